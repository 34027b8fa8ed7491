#include "exec/cpu/kernels/rope.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernels/rope_kernels.h"

namespace mw {
namespace {

const RopeKernels& rope_kernels(Isa isa) {
  return isa == Isa::kAvx2 ? avx2::kRopeKernels : isa == Isa::kAvx512 ? avx512::kRopeKernels : avx512bf16::kRopeKernels;
}
int64_t rows_per_tile(int64_t row_elements, int64_t tile_elements) {
  return std::max<int64_t>(1, tile_elements / std::max<int64_t>(1, row_elements));
}

}  // namespace

int64_t rope_table_bytes(int64_t rows, int64_t rotary) { return rows * rotary * 4; }

void rope_table(ThreadPool& pool, Isa isa, const int32_t* positions, int64_t rows, const float* inv_freq, int64_t pairs, float factor,
                float* table) {
  const RopeKernels& kernels = rope_kernels(isa);
  const int64_t per_tile = rows_per_tile(pairs, 8192);
  pool.run((rows + per_tile - 1) / per_tile, [&](int64_t tile, int) {
    for (int64_t row = tile * per_tile; row < std::min(rows, (tile + 1) * per_tile); ++row) {
      float* const out = table + row * 2 * pairs;
      kernels.table_row(positions[row], inv_freq, pairs, factor, out, out + pairs);
    }
  });
}

void rope(ThreadPool& pool, Isa isa, const RopeCall& call) {
  MW_CHECK(call.dtype == DType::kF32 || call.dtype == DType::kBF16, "rope takes f32 or bf16, not ", dtype_name(call.dtype));
  MW_CHECK(call.rotary % 2 == 0 && call.rotary <= call.head_dim, "rope turns ", call.rotary, " of ", call.head_dim);
  const auto kernel = rope_kernels(isa).rows[call.dtype == DType::kBF16];
  const int64_t per_tile = rows_per_tile(call.heads * call.head_dim, 65536);
  pool.run((call.rows + per_tile - 1) / per_tile,
           [&](int64_t tile, int) { kernel(call, tile * per_tile, std::min(call.rows, (tile + 1) * per_tile)); });
}

}  // namespace mw
