// The weights behind a path, whatever their format: a Hugging Face folder, one safetensors file, a GGUF file.
//
//   const std::unique_ptr<TensorSource> weights = open_weights("DeepSeek-V3");   // FP8 and MXFP4 weights are decoded on reading
#pragma once
#include <memory>
#include <string>

#include "checkpoint/tensor_source.h"

namespace mw {

bool is_gguf_path(const std::string& path);  // by its ending

// Of a folder, config.json is looked at for its quantization_config. UserError as the classes behind it have them.
std::unique_ptr<TensorSource> open_weights(const std::string& path);

}  // namespace mw
