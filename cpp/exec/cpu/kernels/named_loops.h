// From named dims to the sizes and strides that kernels loop over.
//
//   named_loops({{"seq", 4}, {"embed", 8}}, {&x, &y})   x f32[seq=4, embed=8], y f32[embed=8]   ->   sizes {4, 8}, strides {{8, 1}, {0, 1}}
//   joined(...)                                         neighbours that every array walks evenly become one loop
#pragma once
#include <array>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "exec/cpu/kernel.h"
#include "ir/type.h"

namespace mw::cpu {

struct NamedLoops {
  std::vector<int64_t> sizes;                 // outermost first
  std::vector<std::vector<int64_t>> strides;  // [array][loop], in elements; 0 where the array lacks the dim

  size_t rank() const { return sizes.size(); }
  int64_t elements() const;
};

NamedLoops named_loops(const std::vector<Dim>& dims, const std::vector<const Type*>& arrays);

// Loops over the same indices in the same order, as few as there can be; loops over one index vanish.
NamedLoops joined(const NamedLoops& loops);

// A tensor seen as [outer, size of `dim`, inner].
struct AlongDim {
  int64_t outer, size, inner;
  AlongDim(const Type& type, std::string_view dim);
};

// Elements that follow each other in `type` at and behind dim number `first`.
int64_t elements_from(const Type& type, int first);

UserError too_many_loops(std::string_view what, size_t found, size_t most);

// For fixed-size call structs. UserError for more loops than the kernel takes.
template <size_t n>
std::array<int64_t, n> padded_to(const std::vector<int64_t>& values, const char* what) {
  std::array<int64_t, n> result{};
  if (values.size() > n) throw too_many_loops(what, values.size(), n);
  for (size_t i = 0; i < values.size(); ++i) result[i] = values[i];
  return result;
}

// Workspace of one kernel cut into parts, each aligned to a cache line.
class WorkspaceParts {
 public:
  int64_t take(int64_t bytes) {
    const int64_t start = bytes_;
    bytes_ += (bytes + 63) / 64 * 64;
    return start;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

// f32 and bf16 are what most kernels compute with. UserError for others.
void expect_kernel_dtype(std::string_view kernel, DType dtype);

}  // namespace mw::cpu
