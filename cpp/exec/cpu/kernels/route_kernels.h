// The vector code of route, one table per instruction set. A row is one token.
#pragma once
#include <cstdint>

namespace mw {

enum class RouteScore : uint8_t { kSoftmax, kSigmoid, kSoftmaxOfTopK };

struct RouteCall {
  RouteScore score;
  int64_t experts, k, groups, groups_selected;
  bool top2_sum;  // a group's score; else that of its best expert
  bool normalize;
  float scaling;
};

struct RouteKernels {
  // bias: null for none. scratch: experts + groups floats.
  void (*forward)(const RouteCall& call, const float* logits, const float* bias, float* weights, int32_t* indices, float* scratch);
  // The gradient of the logits.
  void (*backward)(const RouteCall& call, const float* logits, const int32_t* indices, const float* dweights, float* dlogits);
};

namespace avx2 {
extern const RouteKernels kRouteKernels;
}
namespace avx512 {
extern const RouteKernels kRouteKernels;
}

}  // namespace mw
