#include "exec/cpu/kernels/rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "exec/cpu/kernels/rows_kernels.h"

namespace mw {
namespace {

const RowsKernels& rows_kernels(Isa isa) { return isa == Isa::kAvx2 ? avx2::kRowsKernels : avx512::kRowsKernels; }
int is_bf16(DType dtype) {
  MW_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "expected f32 or bf16, not ", dtype_name(dtype));
  return dtype == DType::kBF16;
}
int64_t per_tile(int64_t row_size, int64_t tile_size) { return std::max<int64_t>(1, tile_size / std::max<int64_t>(1, row_size)); }

// Calls f(begin, end) over [0, rows) in tiles.
template <typename F>
void for_row_ranges(ThreadPool& pool, int64_t rows, int64_t rows_per_tile, F&& f) {
  pool.run((rows + rows_per_tile - 1) / rows_per_tile,
           [&](int64_t tile, int) { f(tile * rows_per_tile, std::min(rows, (tile + 1) * rows_per_tile)); });
}

// An id's row in the table, or -1.
int64_t row_of(int32_t id, int64_t first_id, int64_t rows) {
  const int64_t row = id - first_id;
  return row >= 0 && row < rows ? row : -1;
}

// Positions 0..count of `keys` by ascending key, equal keys in their order: radix sort, a byte at a time. Returns the one of the two
// buffers that holds the result.
int32_t* sort_positions(const uint32_t* keys, int64_t count, uint32_t largest, int32_t* order, int32_t* spare) {
  for (int64_t i = 0; i < count; ++i) order[i] = static_cast<int32_t>(i);
  for (int shift = 0; shift < 32 && (largest >> shift) != 0; shift += 8) {
    std::array<int64_t, 257> begin{};
    for (int64_t i = 0; i < count; ++i) ++begin[(keys[i] >> shift & 0xff) + 1];
    for (int byte = 0; byte < 256; ++byte) begin[byte + 1] += begin[byte];
    for (int64_t i = 0; i < count; ++i) spare[begin[keys[order[i]] >> shift & 0xff]++] = order[i];
    std::swap(order, spare);
  }
  return order;
}

}  // namespace

void gather_rows(ThreadPool& pool, const GatherRowsCall& call) {
  for_row_ranges(pool, call.count, per_tile(call.row_bytes, 1 << 18), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* const out = static_cast<char*>(call.y) + i * call.row_bytes;
      const int64_t row = row_of(call.ids[i], call.first_id, call.rows);
      if (row < 0)
        std::memset(out, 0, call.row_bytes);
      else
        std::memcpy(out, static_cast<const char*>(call.table) + row * call.row_bytes, call.row_bytes);
    }
  });
}

int64_t scatter_rows_workspace_bytes(int64_t count) { return 3 * 4 * count; }

void scatter_rows(ThreadPool& pool, Isa isa, const ScatterRowsCall& call, void* workspace) {
  MW_CHECK(call.rows < (int64_t{1} << 31) && call.count < (int64_t{1} << 31), "scatter_rows of ", call.count, " into ", call.rows);
  const auto kernel = rows_kernels(isa).sum_rows[is_bf16(call.x_dtype)][is_bf16(call.table_dtype)];
  uint32_t* const keys = static_cast<uint32_t*>(workspace);  // the row, or `rows` where there is none: these sort behind all others
  for (int64_t i = 0; i < call.count; ++i) {
    const int64_t row = row_of(call.ids[i], call.first_id, call.rows);
    keys[i] = static_cast<uint32_t>(row < 0 ? call.rows : row);
  }
  int32_t* const buffer = reinterpret_cast<int32_t*>(keys + call.count);
  const int32_t* const order = sort_positions(keys, call.count, static_cast<uint32_t>(call.rows), buffer, buffer + call.count);
  const int64_t row_bytes = call.width * dtype_bytes(call.table_dtype);
  for_row_ranges(pool, call.rows, per_tile(row_bytes, 1 << 19), [&](int64_t begin, int64_t end) {
    const int32_t* at = std::lower_bound(order, order + call.count, begin, [&](int32_t i, int64_t row) { return keys[i] < row; });
    for (int64_t row = begin; row < end; ++row) {
      const int32_t* const first = at;
      while (at != order + call.count && keys[*at] == row) ++at;
      void* const out = static_cast<char*>(call.table) + row * row_bytes;
      if (at != first)
        kernel(call.x, first, at - first, call.width, out, call.accumulate);
      else if (!call.accumulate)
        std::memset(out, 0, row_bytes);
    }
  });
}

void top_k(ThreadPool& pool, Isa isa, const TopKCall& call) {
  MW_CHECK(call.k >= 1 && call.k <= call.n, "top ", call.k, " of ", call.n);
  const auto kernel = rows_kernels(isa).top_k[is_bf16(call.dtype)];
  const int64_t bytes = dtype_bytes(call.dtype);
  for_row_ranges(pool, call.rows, per_tile(call.n, 16384), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      void* const values = call.values == nullptr ? nullptr : static_cast<char*>(call.values) + row * call.k * bytes;
      kernel(static_cast<const char*>(call.x) + row * call.n * bytes, call.n, call.k, values, call.indices + row * call.k);
    }
  });
}

void argmax_rows(ThreadPool& pool, Isa isa, DType dtype, const void* x, int64_t rows, int64_t n, int32_t* indices) {
  top_k(pool, isa, {.x = x, .values = nullptr, .indices = indices, .rows = rows, .n = n, .k = 1, .dtype = dtype});
}

}  // namespace mw
