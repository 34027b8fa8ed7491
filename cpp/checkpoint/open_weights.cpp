#include "checkpoint/open_weights.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/dequantized.h"
#include "checkpoint/gguf_model.h"

namespace mw {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;

QuantizationFormat format_of(const std::string& folder) {
  const std::string path = folder + "/config.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return {};
  const nlohmann::json config = parse_json_strict(read_file(path, kMaxConfigBytes), path);
  const auto found = config.is_object() ? config.find("quantization_config") : config.end();
  return found == config.end() || found->is_null() ? QuantizationFormat{} : quantization_format(*found, path);
}

}  // namespace

bool is_gguf_path(const std::string& path) {
  std::string ending = path.size() < 5 ? "" : path.substr(path.size() - 5);
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ending == ".gguf";
}

std::unique_ptr<TensorSource> open_weights(const std::string& path) {
  if (is_gguf_path(path)) return std::make_unique<GgufModel>(GgufFiles::open(path));
  const bool is_file = path.ends_with(".safetensors");
  const QuantizationFormat format = is_file ? QuantizationFormat{} : format_of(path);
  TensorFolder folder = is_file ? TensorFolder::open_file(path) : TensorFolder::open(path);
  return std::make_unique<DequantizedFolder>(std::move(folder), format);
}

}  // namespace mw
