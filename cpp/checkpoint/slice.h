// Slices of row-major tensors: per dim [begin, end). The pieces that ranks hold and that files are read in.
//
//   const Slice rows{.begin = {10, 0}, .end = {20, 64}};            // rows 10..19 of f32[100, 64]
//   for_each_run({100, 64}, rows, [&](int64_t in_tensor, int64_t in_piece, int64_t count) { ... });   // one run of 640 elements
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace mw {

using Shape = std::vector<int64_t>;

struct Slice {
  Shape begin, end;
};

std::string shape_text(const Shape& shape);  // "[100, 64]"
std::string slice_text(const Slice& slice);  // "[10:20, 0:64]"
Slice whole(const Shape& shape);
int64_t num_elements(const Shape& shape);  // of a shape already checked against overflow
int64_t num_elements(const Slice& slice);

// UserError unless 0 <= begin <= end <= size in every dim; `name` is the tensor's.
void check_slice(std::string_view name, const Shape& shape, const Slice& slice);

// Calls fn(element offset in the tensor, element offset in the packed piece, number of elements) for each contiguous run, in order.
template <typename Fn>
void for_each_run(const Shape& shape, const Slice& slice, Fn&& fn) {
  if (num_elements(slice) == 0) return;
  size_t rank = shape.size();
  int64_t run = 1, stride = 1;  // trailing dims taken whole, and the first one that is not, make one run
  while (rank > 0 && slice.begin[rank - 1] == 0 && slice.end[rank - 1] == shape[rank - 1]) run *= shape[--rank];
  stride = run;
  int64_t offset = 0;
  if (rank > 0) {
    --rank;
    run *= slice.end[rank] - slice.begin[rank];
    offset = slice.begin[rank] * stride;
    stride *= shape[rank];
  }
  Shape strides(rank), index(slice.begin.begin(), slice.begin.begin() + static_cast<std::ptrdiff_t>(rank));
  for (size_t d = rank; d-- > 0; stride *= shape[d]) {
    strides[d] = stride;
    offset += index[d] * stride;
  }
  for (int64_t done = 0;; done += run) {
    fn(offset, done, run);
    size_t d = rank;
    while (d > 0) {
      --d;
      offset += strides[d];
      if (++index[d] < slice.end[d]) break;
      offset -= strides[d] * (index[d] - slice.begin[d]);
      index[d] = slice.begin[d];
      if (d == 0) return;
    }
    if (rank == 0) return;
  }
}

// Copies `count` elements, converting between float types; neither side need be aligned. Equal dtypes are copied bit by bit;
// other pairs with a non-float side are a UserError.
void copy_elements(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t count);

}  // namespace mw
