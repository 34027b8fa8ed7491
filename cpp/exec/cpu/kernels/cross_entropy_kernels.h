// The innermost loops of cross-entropy for one instruction set; cross_entropy.cpp is the rest.
#pragma once
#include <cstdint>

#include "exec/cpu/isa.h"

namespace mw {

// A tile of transposed logits, [rows = vocabulary][lanes = tokens], 48 numbers from row to row: e = exp(logit - reference[lane]), sums and
// maxima down the rows.
struct ExpTile {
  const float* logits;
  int rows, lanes;  // lanes: of a panel; arrays per token are padded to that
  const float* reference;
  float* sum;         // += e
  float* largest;     // max= logit - reference
  float* e_f32;       // nullable: [rows][e_row]
  uint16_t* e_bf16;   // nullable: [rows][e_row]
  float* near_f32;    // nullable: [rows][near_row]
  uint32_t* e_pairs;  // nullable: [rows / 2][near_row] words of two rows; a last odd row is paired with zero
  int64_t e_row, near_row;
  float softcap;  // of exp_capped_tile: logit = softcap tanh(logits / softcap)
};

enum FloatKind { kFloat32 = 0, kBFloat16 = 1 };

struct CrossEntropyKernels {
  void (*exp_tile)(const ExpTile&);
  void (*exp_capped_tile)(const ExpTile&);  // what is kept is e (1 - (logit / softcap)^2); sums and maxima are of e and logit
  void (*cap)(float* logits, float* slopes, int64_t n, float softcap);   // logits in place; slopes = 1 - (capped / softcap)^2
  float (*dot[2][2])(const void* x, const void* w, int64_t n);           // [kind of x][kind of w]
  void (*scale[2])(float* y, const void* x, float scale, int64_t n);     // y = scale * x
  void (*subtract[2])(float* y, const void* x, float scale, int64_t n);  // y -= scale * x
  void (*combine[2][2])(void* y, const float* sum, float factor, const void* w, float scale, int64_t n);  // y = factor * sum - scale * w
};

const CrossEntropyKernels& cross_entropy_kernels(Isa isa);

namespace avx2 {
extern const CrossEntropyKernels kCrossEntropyKernels;
}
namespace avx512 {
extern const CrossEntropyKernels kCrossEntropyKernels;
}
namespace avx512bf16 {
extern const CrossEntropyKernels kCrossEntropyKernels;
}

}  // namespace mw
