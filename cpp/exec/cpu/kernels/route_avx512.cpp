#include <immintrin.h>

#include <cmath>

#include "exec/cpu/kernels/route_kernels.h"

namespace mw::avx512 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/route.inl"
}  // namespace

constinit const RouteKernels kRouteKernels = {route_row, route_row_backward};

}  // namespace mw::avx512
