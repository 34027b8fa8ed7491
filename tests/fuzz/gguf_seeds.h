// Small valid GGUF files as data that can be damaged before it is written: keys, tensors, shapes, types.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mw {

struct GgufSeed {
  using Value = std::variant<uint32_t, float, bool, std::string, std::vector<std::string>, std::vector<float>>;
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // outermost first
    uint32_t type = 0;
    std::vector<float> values = {};  // where they matter (F32); otherwise bytes are made up
  };
  std::vector<std::pair<std::string, Value>> metadata;
  std::vector<Tensor> tensors;

  std::string bytes() const;  // as a writer would lay it out
};

const std::vector<GgufSeed>& gguf_seeds();  // one of each architecture or so

}  // namespace mw
