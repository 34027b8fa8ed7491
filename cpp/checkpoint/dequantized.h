// A folder of safetensors files whose weights were published quantised, seen as if they were not:
//
//   stored                                                                   seen
//   NAME.weight F8_E4M3 [out, in], NAME.weight_scale_inv [rows, columns]     NAME.weight [out, in]     (DeepSeek V3 and R1, FP8 Qwen3)
//   NAME_blocks U8 [E, out, in / 32, 16], NAME_scales U8 [E, out, in / 32]   NAME [E, in, out]         (GPT-OSS: MXFP4)
//
// FP8: w = fp8 * scale of its block, in f32, then rounded to the dtype asked for; blocks at the edges may be partial. MXFP4: two
// values per byte, the low half first, times 2^(scale - 127); the last two axes are exchanged, as the model holds them.
//
//   const DequantizedFolder weights(TensorFolder::open(path), {.block = {128, 128}});
//   weights.stored_parts("model.layers.0.mlp.experts.down_proj")   // {"..._blocks", "..._scales"}: for an export of the untouched bytes
#pragma once
#include <array>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "checkpoint/rearranged.h"

namespace mw {

struct QuantizationFormat {
  std::array<int64_t, 2> block{128, 128};  // FP8: rows and columns of one scale
};

// From the quantization_config of a config.json (its quant_method is fp8 or mxfp4). UserError for any other method.
QuantizationFormat quantization_format(const nlohmann::json& quantization_config, const std::string& source);

class DequantizedFolder : public TensorSource {
 public:
  // UserError: an FP8 weight without its scales or scales of another shape, blocks without scales.
  explicit DequantizedFolder(TensorFolder folder, QuantizationFormat format = {});

  const std::string& path() const override { return folder_.path(); }
  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override;
  TensorInfo info(const std::string& name) const override;
  using TensorSource::read;
  void read(const std::string& name, const Slice& slice, DType as, void* to) const override;

  bool is_quantized() const { return !quantized_.empty(); }
  bool is_quantized(const std::string& name) const { return quantized_.contains(name); }
  // The stored tensors behind a name, itself where it is not quantised.
  std::vector<std::string> stored_parts(const std::string& name) const;
  const StoredTensor& stored_tensor(const std::string& stored_name) const { return folder_.tensor(stored_name); }
  std::span<const std::byte> stored_bytes(const std::string& stored_name) const;
  const TensorFolder& folder() const { return folder_; }

 private:
  struct Quantized {
    bool is_fp8 = false;
    std::string values, scales;  // names in the folder
    Rearranged seen;
  };

  void add_fp8(const std::string& name);
  void add_mxfp4(const std::string& name);
  void read_fp8(const std::string& name, const Quantized& tensor, const Slice& slice, DType as, void* to) const;
  void read_mxfp4(const std::string& name, const Quantized& tensor, const Slice& slice, DType as, void* to) const;

  TensorFolder folder_;
  QuantizationFormat format_;
  std::map<std::string, Quantized> quantized_;
  std::vector<std::string> names_;
};

}  // namespace mw
