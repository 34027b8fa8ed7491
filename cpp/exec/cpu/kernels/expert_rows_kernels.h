// The vector code of expert_rows.h, one table per instruction set. [bf16 rows]
#pragma once
#include <cstdint>

namespace mw {

struct ExpertRowsKernels {
  void (*scale[2])(const void* x, float weight, int64_t width, void* row);
  // y = the sum of weights[j] (null: 1) times row places[j], j < k.
  void (*sum[2])(const void* rows, const int32_t* places, const float* weights, int64_t k, int64_t width, void* y);
  float (*product[2])(const void* a, const void* b, int64_t width);
};

namespace avx2 {
extern const ExpertRowsKernels kExpertRowsKernels;
}
namespace avx512 {
extern const ExpertRowsKernels kExpertRowsKernels;
}

}  // namespace mw
