// RMS and layer normalisation of rows, forward and backward.
//
//   const NormCall call{.x = x, .weight = w, .y = y, .rows = tokens, .n = embed, .dtype = DType::kBF16, .weight_dtype = DType::kBF16, .eps
//   = 1e-5f}; rms_norm(pool, isa, call);
//
//   NormGradientCall back{.x = x, .weight = w, .dy = dy, .dx = dx, .dweight = dw, .rows = tokens, .n = embed, ...};
//   rms_norm_backward(pool, isa, back, workspace);   // norm_backward_workspace_bytes(rows, n) bytes
//
// rms_norm (Zhang and Sennrich 2019): y = w * cast(x / sqrt(mean(x^2) + eps)), normalised in f32 and rounded to x's dtype before the
// product, as transformers' Llama does; offset_one: y = cast((1 + w) * x / sqrt(...)) all in f32, as Gemma does.
// layer_norm (Ba, Kiros and Hinton 2016): y = (x - mean) / sqrt(var + eps) * w + b. Weight gradients are sums over a number of tiles
// that depends on the shape alone, added in their order.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// Where row r begins: (r / inner_rows) * outer + (r % inner_rows) * inner elements. Heads of a token inside a wider array, for example.
struct RowPlaces {
  int64_t inner_rows = 1;
  int64_t outer = 0;  // 0: rows lie one behind the other
  int64_t inner = 0;
};

struct NormCall {
  const void* x;
  const void* weight;          // [n]; rms_norm only: null is a weight of 1
  const void* bias = nullptr;  // [n], layer_norm only
  void* y;                     // may be x
  int64_t rows, n;
  DType dtype;         // of x and y: kF32 or kBF16
  DType weight_dtype;  // of weight and bias; of no meaning without a weight
  float eps;
  bool offset_one = false;  // rms_norm only
  RowPlaces x_places = {}, y_places = {};
};

struct NormGradientCall {
  const void* x;
  const void* weight;  // as in NormCall
  const void* dy;
  void* dx;               // may be dy or x
  void* dweight;          // [n]; null: not wanted, or there is no weight
  void* dbias = nullptr;  // [n], layer_norm only
  int64_t rows, n;
  DType dtype;                        // of x, dy, dx
  DType weight_dtype;                 // of weight
  DType dweight_dtype = DType::kF32;  // of dweight and dbias
  float eps;
  bool offset_one = false;
  bool accumulate = false;  // add to dweight and dbias
  RowPlaces x_places = {}, dy_places = {}, dx_places = {};
};

void rms_norm(ThreadPool& pool, Isa isa, const NormCall& call);
void layer_norm(ThreadPool& pool, Isa isa, const NormCall& call);
int64_t norm_backward_workspace_bytes(int64_t rows, int64_t n);
void rms_norm_backward(ThreadPool& pool, Isa isa, const NormGradientCall& call, void* workspace);
void layer_norm_backward(ThreadPool& pool, Isa isa, const NormGradientCall& call, void* workspace);

}  // namespace mw
