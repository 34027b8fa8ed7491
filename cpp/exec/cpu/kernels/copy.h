// Copies between strided arrays, with a change of dtype where they differ: transposition, slice, concatenation, padding, broadcast.
//
//   // y[j, i] = x[i, j]
//   strided_copy(pool, isa, {.source = x, .source_dtype = DType::kBF16, .destination = y, .destination_dtype = DType::kBF16,
//                            .sizes = {I, J}, .source_strides = {J, 1}, .destination_strides = {1, I}, .rank = 2});
//
// Strides count elements; a source stride of 0 repeats. A slice or one operand of a concatenation is a pointer moved to its first
// element. Equal dtypes copy bits; f32, bf16, f16, i32 and u8 convert into one another (floats to integers towards zero).
#pragma once
#include <array>
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

inline constexpr int kMaxCopyDims = 8;

struct CopyCall {
  const void* source;
  DType source_dtype;
  void* destination;  // does not overlap the source
  DType destination_dtype;
  std::array<int64_t, kMaxCopyDims> sizes, source_strides, destination_strides;
  int rank;
};
void strided_copy(ThreadPool& pool, Isa isa, const CopyCall& call);
void copy_bytes(ThreadPool& pool, Isa isa, const void* source, void* destination, int64_t bytes);

// destination[0..count) = value, rounded to dtype.
void fill(ThreadPool& pool, Isa isa, DType dtype, void* destination, int64_t count, double value);

// y[o, i, k] = i over [outer, n, inner].
void iota(ThreadPool& pool, int32_t* y, int64_t outer, int64_t n, int64_t inner);

}  // namespace mw
