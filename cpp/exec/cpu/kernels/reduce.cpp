#include "exec/cpu/kernels/reduce.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "exec/cpu/kernels/reduce_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTileElements = 65536;
constexpr int64_t kColumns = 512;    // of one tile
constexpr int64_t kMostSplits = 64;  // of one output's sum

// Some dims, neighbours merged where the strides allow it, those of size 1 dropped.
struct Dims {
  int rank = 0;
  std::array<int64_t, kMaxReduceDims> sizes, strides;
  int64_t count = 1;

  Dims(const std::array<int64_t, kMaxReduceDims>& all_sizes, const std::array<int64_t, kMaxReduceDims>& all_strides, int all) {
    MW_CHECK(all >= 0 && all <= kMaxReduceDims, "reduce with ", all, " dims");
    for (int dim = 0; dim < all; ++dim) {
      count *= all_sizes[dim];
      if (all_sizes[dim] == 1) continue;
      if (rank > 0 && strides[rank - 1] == all_strides[dim] * all_sizes[dim]) {
        sizes[rank - 1] *= all_sizes[dim];
        strides[rank - 1] = all_strides[dim];
      } else {
        sizes[rank] = all_sizes[dim];
        strides[rank++] = all_strides[dim];
      }
    }
    if (rank == 0) sizes[0] = 1, strides[0] = 0, rank = 1;
  }
  int64_t inner_size() const { return sizes[rank - 1]; }
  int64_t inner_stride() const { return strides[rank - 1]; }
  // Offset of the flat index over all dims but the innermost.
  int64_t outer_offset(int64_t flat) const {
    int64_t offset = 0;
    for (int dim = rank - 2; dim >= 0; --dim) {
      offset += flat % sizes[dim] * strides[dim];
      flat /= sizes[dim];
    }
    return offset;
  }
};

// How the work is cut: a function of the shape alone.
struct Layout {
  Dims kept, reduced;
  bool by_columns;         // lanes run along the innermost kept dim; else along the innermost reduced one
  int64_t width;           // outputs of a tile
  int64_t tiles_per_line;  // by columns: tiles of one line of the innermost kept dim
  int64_t output_tiles;
  int64_t splits, split_size;  // parts of the reduced index

  explicit Layout(const ReduceCall& call)
      : kept(call.kept_sizes, call.kept_strides, call.kept_rank), reduced(call.reduced_sizes, call.reduced_strides, call.reduced_rank) {
    // The order of a reduction is free: put the smallest stride innermost.
    for (int i = 1; i < reduced.rank; ++i) {
      for (int j = i; j > 0 && reduced.strides[j - 1] < reduced.strides[j]; --j) {
        std::swap(reduced.strides[j - 1], reduced.strides[j]);
        std::swap(reduced.sizes[j - 1], reduced.sizes[j]);
      }
    }
    by_columns = kept.inner_stride() == 1 && kept.inner_size() >= 8 && !(reduced.inner_stride() == 1 && reduced.inner_size() >= 64);
    if (by_columns) {
      width = std::min(kColumns, kept.inner_size());
      tiles_per_line = (kept.inner_size() + width - 1) / width;
      output_tiles = kept.count / kept.inner_size() * tiles_per_line;
    } else {
      width =
          std::clamp<int64_t>(kTileElements / std::max<int64_t>(1, reduced.count), 1, std::min(kColumns, std::max<int64_t>(1, kept.count)));
      tiles_per_line = 1;
      output_tiles = (kept.count + width - 1) / width;
    }
    const int64_t wanted = reduced.count * width / kTileElements;
    splits = output_tiles >= kMostSplits ? 1 : std::clamp<int64_t>(wanted, 1, kMostSplits);
    split_size = (reduced.count + splits - 1) / splits;
  }
};

int dtype_column(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kBF16:
      return 1;
    case DType::kI32:
      return 2;
    case DType::kU8:
      return 3;
    default:
      throw InternalError(concat_text("reduce takes f32, bf16, i32 or u8, not ", dtype_name(dtype)));
  }
}

class Reduction {
 public:
  Reduction(Isa isa, const ReduceCall& call) : call_(call), layout_(call), element_bytes_(dtype_bytes(call.dtype)) {
    const ReduceKernels& kernels = isa == Isa::kAvx2 ? avx2::kReduceKernels : avx512::kReduceKernels;
    const int row = call.op == ReduceOp::kMax ? 1 : call.op == ReduceOp::kMin ? 2 : 0;
    run_ = kernels.run[row][dtype_column(call.dtype)];
    columns_ = kernels.columns[row][dtype_column(call.dtype)];
  }
  const Layout& layout() const { return layout_; }

  // Outputs of tile t: [first, first + count).
  int64_t first_output(int64_t t) const {
    if (!layout_.by_columns) return t * layout_.width;
    return t / layout_.tiles_per_line * layout_.kept.inner_size() + t % layout_.tiles_per_line * layout_.width;
  }
  int64_t num_outputs(int64_t t) const {
    if (!layout_.by_columns) return std::min(layout_.width, layout_.kept.count - t * layout_.width);
    return std::min(layout_.width, layout_.kept.inner_size() - t % layout_.tiles_per_line * layout_.width);
  }

  // The part `split` of the outputs of tile t.
  void reduce_tile(int64_t t, int64_t split, double* totals) const {
    const int64_t begin = split * layout_.split_size, end = std::min(layout_.reduced.count, begin + layout_.split_size);
    const int64_t first = first_output(t), count = num_outputs(t);
    std::fill(totals, totals + count, start());
    if (layout_.by_columns) {
      const int64_t line = first / layout_.kept.inner_size(), column = first % layout_.kept.inner_size();
      reduce_range(layout_.kept.outer_offset(line) + column, begin, end,
                   [&](const char* x, int64_t stride, int64_t some) { columns_(x, stride, some, count, totals); });
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t inner = layout_.kept.inner_size(), output = first + i;
      const int64_t offset = layout_.kept.outer_offset(output / inner) + output % inner * layout_.kept.inner_stride();
      reduce_range(offset, begin, end,
                   [&](const char* x, int64_t stride, int64_t some) { totals[i] = join(totals[i], run_(x, stride, some)); });
    }
  }

  void store(int64_t first, int64_t count, const double* totals) const {
    const double scale = call_.op == ReduceOp::kMean ? 1.0 / static_cast<double>(layout_.reduced.count) : 1.0;
    if (call_.y_dtype == DType::kF32) {
      float* const y = static_cast<float*>(call_.y) + first;
      for (int64_t i = 0; i < count; ++i) y[i] = static_cast<float>(totals[i] * scale);
      return;
    }
    for (int64_t i = 0; i < count; ++i) store_element(call_.y_dtype, call_.y, first + i, totals[i] * scale);
  }

  double join(double a, double b) const {
    switch (call_.op) {
      case ReduceOp::kMax:
        return a > b || a != a ? a : b;
      case ReduceOp::kMin:
        return a < b || a != a ? a : b;
      default:
        return a + b;
    }
  }

 private:
  double start() const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return call_.op == ReduceOp::kMax ? -infinity : call_.op == ReduceOp::kMin ? infinity : 0.0;
  }

  // Calls f(address, stride, count) for each straight run of the flat reduced indices [begin, end).
  template <typename F>
  void reduce_range(int64_t offset, int64_t begin, int64_t end, F&& f) const {
    const Dims& reduced = layout_.reduced;
    for (int64_t flat = begin; flat < end;) {
      const int64_t column = flat % reduced.inner_size(), some = std::min(end - flat, reduced.inner_size() - column);
      const int64_t place = offset + reduced.outer_offset(flat / reduced.inner_size()) + column * reduced.inner_stride();
      f(static_cast<const char*>(call_.x) + place * element_bytes_, reduced.inner_stride(), some);
      flat += some;
    }
  }

  const ReduceCall& call_;
  Layout layout_;
  int64_t element_bytes_;
  double (*run_)(const void*, int64_t, int64_t);
  void (*columns_)(const void*, int64_t, int64_t, int64_t, double*);
};

}  // namespace

int64_t reduce_workspace_bytes(const ReduceCall& call) {
  const Layout layout(call);
  return layout.splits == 1 ? 0 : layout.output_tiles * layout.splits * layout.width * 8;
}

void reduce(ThreadPool& pool, Isa isa, const ReduceCall& call, void* workspace) {
  const Reduction reduction(isa, call);
  const Layout& layout = reduction.layout();
  const int64_t splits = layout.splits, width = layout.width;
  if (splits == 1) {
    pool.run(layout.output_tiles, [&](int64_t tile, int) {
      double totals[kColumns];
      reduction.reduce_tile(tile, 0, totals);
      reduction.store(reduction.first_output(tile), reduction.num_outputs(tile), totals);
    });
    return;
  }
  double* const parts = static_cast<double*>(workspace);  // [output tile][split][output]
  pool.run(layout.output_tiles * splits,
           [&](int64_t tile, int) { reduction.reduce_tile(tile / splits, tile % splits, parts + tile * width); });
  pool.run(layout.output_tiles, [&](int64_t tile, int) {
    double* const totals = parts + tile * splits * width;
    const int64_t count = reduction.num_outputs(tile);
    for (int64_t split = 1; split < splits; ++split) {
      for (int64_t i = 0; i < count; ++i) totals[i] = reduction.join(totals[i], totals[split * width + i]);
    }
    reduction.store(reduction.first_output(tile), count, totals);
  });
}

}  // namespace mw
