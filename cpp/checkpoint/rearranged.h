// A tensor whose elements lie in stored tensors in another order: rows permuted, the last two axes exchanged, one expert of a stack,
// two tensors joined column by column. Read by slice, whatever decodes the stored elements.
//
//   Rearranged transposed{.shape = {in, out}, .parts = {{.strides = {1, in}}}};                   // from a stored [out, in]
//   Rearranged expert{.shape = {m, d}, .parts = {{.base = e * m * d, .strides = {d, 1}}}};        // number e of a stored [E, m, d]
//   Rearranged joined{.shape = {d, 2 * m}, .parts = {gate, up}, .split_dim = 1,
//                     .place = [d](int64_t i) { return Place{i % 2, i / 2 * d}; }};               // columns from two stored [m, d]
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "checkpoint/slice.h"

namespace mw {

// One stored tensor. Element [i, j, ...] lies at base + i * strides[0] + j * strides[1] + ..., counted in elements.
struct RearrangedPart {
  int64_t base = 0;
  Shape strides;
};

// Which part index i of the split dim comes from, and what it adds to the element's number there (in place of i * strides[split_dim]).
struct Place {
  size_t part = 0;
  int64_t offset = 0;
};

struct Rearranged {
  Shape shape;
  std::vector<RearrangedPart> parts;
  size_t split_dim = 0;
  std::function<Place(int64_t)> place = nullptr;  // none: one part, and split_dim is like any other
  float added = 0;                                // to every element
};

Rearranged as_stored(const Shape& shape);

// Decodes `count` consecutive elements of a part, from number `first` on.
using DecodeRun = std::function<void(size_t part, int64_t first, int64_t count, float* to)>;

// UserError when the slice is not inside, or `as` is not a float. `name` is the tensor's. Runs follow the stored order where that and
// the order of the result agree; otherwise tiles are turned, so that neither side is walked element by element.
void read_rearranged(std::string_view name, const Rearranged& tensor, const Slice& slice, DType as, void* to, const DecodeRun& decode);

}  // namespace mw
