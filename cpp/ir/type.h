// The type of a Value: an element type and named dims in memory order, outermost first.
//
//   Type x{DType::kF32, {{"batch", 8}, {"seq", 256}, {"embed", 768}}};
//   to_string(x)  ->  "f32[batch=8, seq=256, embed=768]"
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace mw {

struct Dim {
  std::string name;
  int64_t size = 0;
  bool operator==(const Dim&) const = default;
};

struct Type {
  DType dtype = DType::kF32;
  std::vector<Dim> dims;

  bool operator==(const Type&) const = default;
  int rank() const { return static_cast<int>(dims.size()); }
  int64_t elements() const;
  int64_t bytes() const { return elements() * dtype_bytes(dtype); }
  int index_of(std::string_view name) const;  // -1 when absent
  bool has(std::string_view name) const { return index_of(name) >= 0; }
  int64_t size_of(std::string_view name) const;  // UserError naming the dims there are
  std::vector<std::string> dim_names() const;
  // Elements to step over in memory for one step along each dim.
  std::vector<int64_t> strides() const;
  Type with_dtype(DType other) const { return {other, dims}; }
};

std::string to_string(const Type& type);
Type parse_type(std::string_view text);

// The dims of `type` without those named.
std::vector<Dim> without(const Type& type, const std::vector<std::string>& names);

// UserError when a name stands twice, a size is negative, or there are more than 32 dims or 2^48 elements (so that no product overflows).
void check_dims(const std::vector<Dim>& dims);

}  // namespace mw
