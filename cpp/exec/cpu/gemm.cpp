#include "exec/cpu/gemm.h"

#include <utility>

#include "base/error.h"
#include "exec/cpu/gemm_tiles.h"

namespace mw {

const GemmKernels& gemm_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return avx2::kGemmKernels;
    case Isa::kAvx512:
      return avx512::kGemmKernels;
    case Isa::kAvx512Bf16:
      return avx512bf16::kGemmKernels;
    case Isa::kAmx: {
      static const GemmKernels kernels = amx::with_tiles(avx512bf16::kGemmKernels);
      return kernels;
    }
  }
  throw InternalError("unknown instruction set");
}

namespace {

constexpr int64_t kPackRows = 128;   // rows of A in one packing tile
constexpr int64_t kPackWords = 512;  // words of a panel in one packing tile

void check_matrix(const char* name, DType type, int64_t row, int64_t col) {
  if (type != DType::kF32 && type != DType::kBF16) {
    throw UserError(concat_text("gemm: ", name, " is ", dtype_name(type), "; the kernels take f32 and bf16"));
  }
  if (row < 0 || col < 0) throw UserError(concat_text("gemm: ", name, " has a negative stride"));
}

// C^T = B^T A^T, so that the contiguous dim of C lies along the lanes.
Gemm swap_operands(const Gemm& g) {
  Gemm s = g;
  s.m = g.n, s.n = g.m;
  s.a = {g.b.data, g.b.type, g.b.col, g.b.row, g.b.batch};
  s.b = {g.a.data, g.a.type, g.a.col, g.a.row, g.a.batch};
  s.c = {g.c.data, g.c.type, g.c.col, g.c.row, g.c.batch};
  return s;
}

int64_t words_of(const Gemm& g, Word word) { return ceil_div(g.k, elements_per_word(word)); }
int64_t copies(const Gemm& g, int64_t batch_stride) { return batch_stride == 0 ? 1 : g.batch; }

// Where the two packed operands lie, and the tiles that write them.
struct Packing {
  const Gemm& g;
  const GemmPlan& plan;
  const GemmKernels& kernels;
  Panels panels;
  int64_t words;
  char *a, *b;
  int64_t a_copies, b_copies, a_groups, word_groups;

  Packing(const Gemm& gemm, const GemmPlan& p, void* workspace)
      : g(gemm), plan(p), kernels(gemm_kernels(p.isa)), panels(gemm.n, kernels), words(words_of(gemm, p.word)) {
    a = static_cast<char*>(workspace);
    b = a + plan.a_bytes;
    a_copies = plan.pack_a ? copies(g, g.a.batch) : 0;
    b_copies = plan.pack_b ? copies(g, g.b.batch) : 0;
    a_groups = ceil_div(g.m, kPackRows);
    word_groups = ceil_div(words, kPackWords);
  }
  int64_t a_stride() const { return packed_rows_bytes(kernels, plan.word, g.m, words); }  // bytes from one batch's to the next
  int64_t b_stride() const { return panels.padded() * words * 4; }
  int64_t row_tiles() const { return a_copies * a_groups * word_groups; }
  int64_t lane_tiles() const { return b_copies * panels.count() * word_groups; }

  void pack_rows(int64_t tile) const {
    const int64_t word = tile % word_groups * kPackWords, group = tile / word_groups % a_groups, batch = tile / word_groups / a_groups;
    const int64_t per_word = elements_per_word(plan.word), bytes = dtype_bytes(g.a.type);
    const int64_t word_end = std::min(words, word + kPackWords), row_end = std::min(g.m, (group + 1) * kPackRows);
    const int64_t row = group * kPackRows;
    const RowOperand to = packed_rows(kernels, plan.word, a + batch * a_stride(), words);
    pack_into_rows(kernels, plan.word, g.a.type == DType::kBF16, to, row, word,
                   {.lanes = row_end - row,
                    .depth = std::min(g.k, word_end * per_word) - word * per_word,
                    .source = static_cast<const char*>(g.a.data) + (batch * g.a.batch + row * g.a.row + word * per_word * g.a.col) * bytes,
                    .depth_stride = g.a.col,
                    .lane_stride = g.a.row});
  }
  void pack_lanes(int64_t tile) const {
    const int64_t word = tile % word_groups * kPackWords, panel = tile / word_groups % panels.count();
    const int64_t batch = tile / word_groups / panels.count();
    const int64_t per_word = elements_per_word(plan.word), bytes = dtype_bytes(g.b.type);
    const int64_t depth = std::min(g.k, (word + kPackWords) * per_word) - word * per_word, start = panels.start(panel);
    pack_function(kernels, g.b.type == DType::kBF16, plan.word)(
        {.panel = b + batch * b_stride() + (start * words + word * panels.width(panel)) * 4,
         .width = panels.width(panel),
         .lanes = panels.lanes(panel),
         .depth = depth,
         .source = static_cast<const char*>(g.b.data) + (batch * g.b.batch + word * per_word * g.b.row + start * g.b.col) * bytes,
         .depth_stride = g.b.row,
         .lane_stride = g.b.col});
  }

  RowOperand rows(int64_t batch) const {
    if (plan.pack_a) return packed_rows(kernels, plan.word, a + (g.a.batch == 0 ? 0 : batch) * a_stride(), words);
    const int64_t bytes = dtype_bytes(g.a.type), per_word = elements_per_word(plan.word);
    return {.data = static_cast<const char*>(g.a.data) + batch * g.a.batch * bytes,
            .row_bytes = g.a.row * bytes,
            .step_bytes = g.a.col * bytes * per_word,
            .half_word = g.k % per_word != 0};
  }
  LaneOperand lanes(int64_t batch) const {
    if (plan.pack_b) return {.data = b + (g.b.batch == 0 ? 0 : batch) * b_stride(), .words = words};
    return {.data = static_cast<const char*>(g.b.data) + batch * g.b.batch * 4, .words = words, .step_bytes = g.b.row * 4};
  }
};

void write_zeros(const Gemm& g, ThreadPool& pool) {
  if (g.accumulate) return;
  const int64_t bytes = dtype_bytes(g.c.type);
  pool.run(g.batch, [&](int64_t batch, int) {
    for (int64_t i = 0; i < g.m; ++i) {
      for (int64_t j = 0; j < g.n; ++j) {
        char* element = static_cast<char*>(g.c.data) + (batch * g.c.batch + i * g.c.row + j * g.c.col) * bytes;
        std::fill_n(element, bytes, '\0');
      }
    }
  });
}

void run_tile(const Packing& packing, int64_t batch, TileRange range) {
  const Gemm& g = packing.g;
  const Multiply multiply(packing.kernels, packing.plan.word);
  const RowOperand a = packing.rows(batch);
  const LaneOperand b = packing.lanes(batch);
  if (g.c.type == DType::kF32) {
    float* c = static_cast<float*>(g.c.data) + batch * g.c.batch;
    if (g.alpha == 1.0f) {
      return multiply_into(multiply, packing.kernels.store_f32, packing.panels, a, b, range, c, g.c.row, g.accumulate);
    }
    return multiply_with_epilogue(multiply, packing.panels, a, b, range, [&](const float* tile, int64_t row, int rows, int64_t panel) {
      float* const out = c + row * g.c.row + packing.panels.start(panel);
      for (int r = 0; r < rows; ++r) {
        packing.kernels.store_f32(out + r * g.c.row, tile + r * kPanelLanes, packing.panels.lanes(panel), g.alpha, g.accumulate);
      }
    });
  }
  uint16_t* c = static_cast<uint16_t*>(g.c.data) + batch * g.c.batch;
  multiply_into_bf16(multiply, packing.kernels.store_bf16, packing.panels, a, b, range, c, g.c.row, g.alpha, g.accumulate);
}

// About 24 tiles or more where they stay above some 10 MFLOP, so that any number of threads finds work, of at most some 40 MFLOP.
void choose_tiles(const Gemm& g, GemmPlan& plan) {
  const GemmKernels& kernels = gemm_kernels(plan.isa);
  const Panels panels(g.n, kernels);
  const int64_t lanes = 3 * kernels.panel_step, most = 8 * kPanelLanes / lanes;  // of a panel; panels
  const double flops = 2.0 * g.m * g.n * g.k;
  const double wanted = std::clamp(flops / 24, 8e6, 40e6);
  const int64_t per_panel_column = 2 * lanes * g.k;
  const int64_t words = std::max<int64_t>(1, std::min(words_of(g, plan.word), kernels.block_words(plan.word)));
  int64_t columns = std::clamp<int64_t>(kernels.near_words / (lanes * words), 1, most);
  columns = std::min(columns, panels.count());
  columns = ceil_div(panels.count(), ceil_div(panels.count(), columns));
  int64_t rows = static_cast<int64_t>(wanted / (static_cast<double>(per_panel_column) * columns));
  rows = std::clamp<int64_t>(rows, 64, 512);
  const int64_t row_tiles = ceil_div(g.m, rows);
  plan.tile_rows = round_up(ceil_div(g.m, row_tiles), kernels.rows(plan.word));
  plan.tile_panels = columns;
}

}  // namespace

GemmPlan plan_gemm(const Gemm& gemm, Isa isa) {
  check_matrix("A", gemm.a.type, gemm.a.row, gemm.a.col);
  check_matrix("B", gemm.b.type, gemm.b.row, gemm.b.col);
  check_matrix("C", gemm.c.type, gemm.c.row, gemm.c.col);
  if (gemm.m < 0 || gemm.n < 0 || gemm.k < 0 || gemm.batch < 0) throw UserError("gemm: a size is negative");
  GemmPlan plan{};
  plan.isa = isa;
  plan.tile_rows = kTileRows, plan.tile_panels = 1;
  plan.swapped = gemm.c.col != 1 && gemm.n != 1;
  if (plan.swapped && gemm.c.row != 1 && gemm.m != 1) {
    throw UserError(concat_text("gemm: C has strides ", gemm.c.row, " and ", gemm.c.col, "; one of them has to be 1"));
  }
  if (gemm.m == 0 || gemm.n == 0 || gemm.k == 0 || gemm.batch == 0) return plan;
  const Gemm g = plan.swapped ? swap_operands(gemm) : gemm;
  const GemmKernels& kernels = gemm_kernels(isa);
  const bool a_bf16 = g.a.type == DType::kBF16, b_bf16 = g.b.type == DType::kBF16;
  plan.word = a_bf16 && b_bf16 && kernels.has_bf16_pairs ? Word::kBf16Pair : Word::kF32;
  // On Zen 5 in place wherever the words and lanes are there: measured equal or better than packing in all three forms of f32 (with huge
  // pages). But not where B's rows share cache sets and A is read along its rows: 83 % of the peak in place, 93 % packed. On Intel's
  // processors packed where it is read more than a few times: dW at 78 % of the peak instead of 57 %, dX at 85 % instead of 80 %.
  const bool packs = kernels.packs_f32, packs_a = packs && g.n > kPanelLanes, packs_b = packs && g.m > 3 * kTileRows;
  plan.pack_a = plan.word == Word::kF32 ? a_bf16 || (g.a.col != 1 && (packs_a || g.a.row != 1)) : g.a.col != 1;
  plan.pack_b = plan.word != Word::kF32 || b_bf16 || packs_b || g.b.col != 1 || g.n % kernels.panel_step != 0 ||
                (share_cache_sets(g.b.row) && g.a.col == 1);
  const int64_t words = words_of(g, plan.word);
  plan.a_bytes = plan.pack_a ? round_up(copies(g, g.a.batch) * packed_rows_bytes(kernels, plan.word, g.m, words), 64) : 0;
  plan.b_bytes = plan.pack_b ? copies(g, g.b.batch) * Panels(g.n, kernels).padded() * words * 4 : 0;
  plan.workspace_bytes = plan.a_bytes + plan.b_bytes;
  choose_tiles(g, plan);
  return plan;
}

void run_gemm(const Gemm& gemm, const GemmPlan& plan, void* workspace, ThreadPool& pool) {
  const Gemm g = plan.swapped ? swap_operands(gemm) : gemm;
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  if (g.k == 0) return write_zeros(g, pool);
  const Packing packing(g, plan, workspace);
  pool.run(packing.row_tiles(), [&](int64_t tile, int) { packing.pack_rows(tile); });
  pool.run(packing.lane_tiles(), [&](int64_t tile, int) { packing.pack_lanes(tile); });
  // A thread's share of the tiles has rows of its own where A is the larger operand, else panels of its own: of what it packed, or wrote
  // before, most is in its caches.
  const int64_t row_tiles = ceil_div(g.m, plan.tile_rows), panel_tiles = ceil_div(packing.panels.count(), plan.tile_panels);
  const int64_t shares = g.m < g.n ? 1 : std::min<int64_t>(pool.threads(), row_tiles), per_batch = row_tiles * panel_tiles;
  pool.run(g.batch * per_batch, [&](int64_t tile, int) {
    const int64_t in_batch = tile % per_batch, share = in_batch / panel_tiles * shares / row_tiles;
    const int64_t first = ceil_div(share * row_tiles, shares), rows = ceil_div((share + 1) * row_tiles, shares) - first;
    const int64_t in_share = in_batch - first * panel_tiles;
    const int64_t row = (first + in_share % rows) * plan.tile_rows, panel = in_share / rows * plan.tile_panels;
    run_tile(packing, tile / per_batch,
             {row, std::min(g.m, row + plan.tile_rows), panel, std::min(packing.panels.count(), panel + plan.tile_panels)});
  });
}

}  // namespace mw
