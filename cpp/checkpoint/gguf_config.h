// The config.json that Hugging Face has for the model of a GGUF file, from the file's metadata and the shapes of its tensors.
//
//   gguf_config(GgufFiles::open("model.gguf"))   // {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, ...}
//
// What a GGUF file does not say, because llama.cpp holds it fixed for the architecture, is filled in (docs/formats/gguf.md lists it).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/gguf_files.h"

namespace mw {

const std::vector<std::string>& gguf_architectures();  // those of general.architecture that are understood

void check_gguf_architecture(const GgufFiles& files);  // UserError that lists them, unless it is one of them

// UserError: an architecture that is not understood, a key that is missing or of the wrong type, rope factors that are not Llama 3's.
nlohmann::json gguf_config(const GgufFiles& files);

}  // namespace mw
