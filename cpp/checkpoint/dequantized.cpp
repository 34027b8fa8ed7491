#include "checkpoint/dequantized.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/printable.h"

namespace mw {
namespace {

constexpr std::string_view kWeight = ".weight", kScaleInverse = "_scale_inv", kBlocks = "_blocks", kScales = "_scales";
constexpr int64_t kMxBlock = 32;

std::array<float, 256> fp8_values() {  // E4M3FN: bias 7, no infinities, 0x7f and 0xff are NaN
  std::array<float, 256> values;
  for (unsigned bits = 0; bits < 256; ++bits) {
    const int exponent = static_cast<int>(bits >> 3 & 15), mantissa = static_cast<int>(bits & 7);
    float value =
        exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9) : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((bits & 127) == 127) value = std::numeric_limits<float>::quiet_NaN();
    values[bits] = bits & 128 ? -value : value;
  }
  return values;
}

constexpr std::array<float, 16> kFp4Values{0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

std::array<float, 256> e8m0_values() {
  std::array<float, 256> values;
  for (int bits = 0; bits < 256; ++bits) values[static_cast<size_t>(bits)] = std::ldexp(1.0f, bits - 127);  // 255: infinity
  return values;
}

int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0); }

std::string placed(const TensorFolder& folder, const std::string& name) {
  return printable(folder.path(), 1000) + ": tensor " + in_quotes(name);
}

std::string typed(const StoredTensor& tensor) { return tensor.dtype + shape_text(tensor.shape); }

}  // namespace

QuantizationFormat quantization_format(const nlohmann::json& config, const std::string& source) {
  const std::string where = printable(source, 1000) + ": quantization_config";
  if (!config.is_object()) throw UserError(where + ": expected an object, found " + config.type_name());
  const nlohmann::json method = config.value("quant_method", nlohmann::json());
  if (method != "fp8" && method != "mxfp4") {
    throw UserError(where + ".quant_method: expected 'fp8' (block scales, as DeepSeek-V3 has them) or 'mxfp4' (as gpt-oss has it), found " +
                    printable(method.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  }
  QuantizationFormat format;
  if (method == "mxfp4") return format;
  if (const nlohmann::json kind = config.value("fmt", nlohmann::json("e4m3")); kind != "e4m3") {
    throw UserError(where + ".fmt: expected 'e4m3', found " +
                    printable(kind.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  }
  if (const auto block = config.find("weight_block_size"); block != config.end()) {
    const auto is_size = [](const nlohmann::json& size) { return size.is_number_integer() && size >= 1 && size <= (int64_t{1} << 31); };
    if (!block->is_array() || block->size() != 2 || !is_size((*block)[0]) || !is_size((*block)[1])) {
      throw UserError(where + ".weight_block_size: expected two numbers of at least 1, for example [128, 128], found " +
                      printable(block->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
    }
    format.block = {(*block)[0].get<int64_t>(), (*block)[1].get<int64_t>()};
  }
  return format;
}

DequantizedFolder::DequantizedFolder(TensorFolder folder, QuantizationFormat format) : folder_(std::move(folder)), format_(format) {
  for (const std::string& name : folder_.names()) {
    if (folder_.tensor(name).dtype == "F8_E4M3") {
      add_fp8(name);
    } else if (name.ends_with(kBlocks) && folder_.tensor(name).shape.size() == 4) {
      add_mxfp4(name);
    } else if (folder_.tensor(name).dtype == "F8_E5M2") {
      throw UserError(placed(folder_, name) + " is stored as F8_E5M2; of the FP8 formats only F8_E4M3 with block scales is read");
    }
  }
  std::map<std::string, bool> hidden;
  for (const auto& [name, tensor] : quantized_) hidden[tensor.values] = hidden[tensor.scales] = true;
  for (const std::string& name : folder_.names()) {
    if (!hidden.contains(name)) names_.push_back(name);
  }
  for (const auto& [name, tensor] : quantized_) names_.push_back(name);
  std::sort(names_.begin(), names_.end());
}

void DequantizedFolder::add_fp8(const std::string& name) {
  const StoredTensor& values = folder_.tensor(name);
  const std::string scales_name = name + std::string(kScaleInverse);
  if (!name.ends_with(kWeight) || !folder_.contains(scales_name)) {
    throw UserError(placed(folder_, name) + " is stored as " + typed(values) + " and wants its block scales in " + in_quotes(scales_name) +
                    ", which is missing");
  }
  const StoredTensor& scales = folder_.tensor(scales_name);
  if (values.shape.size() != 2) throw UserError(placed(folder_, name) + " is " + typed(values) + "; expected two dims [out, in]");
  const Shape expected{divide_up(values.shape[0], format_.block[0]), divide_up(values.shape[1], format_.block[1])};
  const std::optional<DType> dtype = dtype_of_stored(scales.dtype);
  if (scales.shape != expected || !dtype || !is_float(*dtype)) {
    throw UserError(concat_text(placed(folder_, scales_name), " is ", typed(scales), "; expected floats ", shape_text(expected),
                                ", one per block of ", format_.block[0], " x ", format_.block[1], " of ", typed(values)));
  }
  quantized_[name] = {.is_fp8 = true, .values = name, .scales = scales_name, .seen = as_stored(values.shape)};
}

void DequantizedFolder::add_mxfp4(const std::string& blocks_name) {
  const std::string name = blocks_name.substr(0, blocks_name.size() - kBlocks.size()), scales_name = name + std::string(kScales);
  const StoredTensor& blocks = folder_.tensor(blocks_name);
  if (!folder_.contains(scales_name)) {
    throw UserError(placed(folder_, blocks_name) + " holds MXFP4 blocks and wants its scales in " + in_quotes(scales_name) +
                    ", which is missing");
  }
  if (folder_.contains(name)) throw UserError(placed(folder_, name) + " is there twice: as it is, and as MXFP4 blocks");
  const StoredTensor& scales = folder_.tensor(scales_name);
  const Shape expected(blocks.shape.begin(), blocks.shape.end() - 1);
  if (blocks.dtype != "U8" || scales.dtype != "U8" || blocks.shape[3] != kMxBlock / 2 || scales.shape != expected ||
      num_elements(blocks.shape) == 0) {
    throw UserError(placed(folder_, blocks_name) + " is " + typed(blocks) + " and " + in_quotes(scales_name) + " is " + typed(scales) +
                    "; expected U8[experts, out, in / 32, 16] and U8[experts, out, in / 32]");
  }
  const int64_t out = blocks.shape[1], in = blocks.shape[2] * kMxBlock;
  quantized_[name] = {.is_fp8 = false,
                      .values = blocks_name,
                      .scales = scales_name,
                      .seen = {.shape = {blocks.shape[0], in, out}, .parts = {{.base = 0, .strides = {out * in, 1, in}}}}};
}

bool DequantizedFolder::contains(const std::string& name) const { return std::binary_search(names_.begin(), names_.end(), name); }

TensorInfo DequantizedFolder::info(const std::string& name) const {
  if (const auto found = quantized_.find(name); found != quantized_.end())
    return {found->second.seen.shape, found->second.is_fp8 ? "F8_E4M3" : "MXFP4", DType::kBF16};
  return folder_.info(name);
}

void DequantizedFolder::read(const std::string& name, const Slice& slice, DType as, void* to) const {
  const auto found = quantized_.find(name);
  if (found == quantized_.end()) return folder_.read(name, slice, as, to);
  return found->second.is_fp8 ? read_fp8(name, found->second, slice, as, to) : read_mxfp4(name, found->second, slice, as, to);
}

void DequantizedFolder::read_fp8(const std::string& name, const Quantized& tensor, const Slice& slice, DType as, void* to) const {
  static const std::array<float, 256> kValues = fp8_values();
  const SafetensorsFile& file = folder_.file_of(tensor.values);
  const std::byte* values = file.bytes(folder_.tensor(tensor.values)).data();
  const Shape& scales_shape = folder_.tensor(tensor.scales).shape;
  std::vector<float> scales(static_cast<size_t>(num_elements(scales_shape)));  // a 16,000th of the weight
  folder_.read(tensor.scales, DType::kF32, scales.data());
  const int64_t columns = tensor.seen.shape[1];
  TouchedPages pages(file.mapping());
  read_rearranged(name, tensor.seen, slice, as, to, [&](size_t, int64_t first, int64_t count, float* out) {
    const int64_t row = first / columns, column = first % columns;  // a run stays in its row
    const float* row_scales = scales.data() + row / format_.block[0] * scales_shape[1];
    for (int64_t i = 0; i < count;) {
      const int64_t block = (column + i) / format_.block[1];
      const int64_t end = std::min(count, (block + 1) * format_.block[1] - column);
      for (; i < end; ++i) out[i] = kValues[static_cast<size_t>(values[first + i])] * row_scales[block];
    }
    pages.touch({values + first, static_cast<size_t>(count)});
  });
}

void DequantizedFolder::read_mxfp4(const std::string& name, const Quantized& tensor, const Slice& slice, DType as, void* to) const {
  static const std::array<float, 256> kPowers = e8m0_values();
  const SafetensorsFile &blocks_file = folder_.file_of(tensor.values), &scales_file = folder_.file_of(tensor.scales);
  const std::byte* blocks = blocks_file.bytes(folder_.tensor(tensor.values)).data();
  const std::byte* scales = scales_file.bytes(folder_.tensor(tensor.scales)).data();
  TouchedPages block_pages(blocks_file.mapping()), scale_pages(scales_file.mapping());
  read_rearranged(name, tensor.seen, slice, as, to, [&](size_t, int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t element = first + i;
      const unsigned pair = static_cast<unsigned>(blocks[element / 2]);
      out[i] = kFp4Values[element % 2 ? pair >> 4 : pair & 15] * kPowers[static_cast<size_t>(scales[element / kMxBlock])];
    }
    block_pages.touch({blocks + first / 2, static_cast<size_t>((first + count + 1) / 2 - first / 2)});
    scale_pages.touch({scales + first / kMxBlock, static_cast<size_t>(divide_up(first + count, kMxBlock) - first / kMxBlock)});
  });
}

std::vector<std::string> DequantizedFolder::stored_parts(const std::string& name) const {
  const auto found = quantized_.find(name);
  if (found == quantized_.end()) return {folder_.tensor(name).name};
  return {found->second.values, found->second.scales};
}

std::span<const std::byte> DequantizedFolder::stored_bytes(const std::string& stored_name) const {
  return folder_.file_of(stored_name).bytes(folder_.tensor(stored_name));
}

}  // namespace mw
