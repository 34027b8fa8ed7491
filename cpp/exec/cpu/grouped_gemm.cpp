#include "exec/cpu/grouped_gemm.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "exec/cpu/gemm_tiles.h"

namespace mw {
namespace {

constexpr int64_t kLeastPartRows = 128;
constexpr int64_t kStripRows = 128;       // rows of GroupedOuter's result packed at a time
constexpr int64_t kMostTilePanels = 8;    // as many as stay in a second-level cache of 1 MiB
constexpr int64_t kMostOuterPanels = 11;  // of 2 MiB, where both operands are packed for each tile
constexpr int64_t kTilesPerThread = 4;
constexpr int64_t kMostBlockWords = 3 * kBlockWords / 2;

bool is_bf16(DType type) { return type == DType::kBF16; }

Word word_of(DType a, DType b, Isa isa) {
  return is_bf16(a) && is_bf16(b) && gemm_kernels(isa).has_bf16_pairs ? Word::kBf16Pair : Word::kF32;
}

// Lanes of one tile: whole panels, nearly equal.
int64_t lanes_per_tile(int64_t n, int64_t most_panels = kMostTilePanels) {
  return round_up(ceil_div(n, ceil_div(n, most_panels * kPanelLanes)), kPanelLanes);
}

// The rows of each group, and the groups by falling number of rows, which is the order of the tiles. Rows of group `groups`, the last ones,
// are of none. Lies in the workspace.
class RowGroups {
 public:
  static int64_t bytes(int64_t groups) { return round_up(8 * (3 * groups + 2), 64); }

  RowGroups(void* workspace, const int32_t* row_groups, int64_t rows, int64_t groups)
      : groups_(groups), start_(static_cast<int64_t*>(workspace)), order_(start_ + groups + 1), before_(order_ + groups) {
    int64_t group = -1;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t next = row_groups[row];
      MW_CHECK(next >= group && next <= groups && next >= 0, "row ", row, " is of expert ", next, " of ", groups, ", the one before of ",
               group);
      while (group < next) start_[++group] = row;
    }
    while (group < groups) start_[++group] = rows;
    for (int64_t g = 0; g < groups; ++g) order_[g] = g;
    std::sort(order_, order_ + groups, [&](int64_t a, int64_t b) { return rows_of(a) != rows_of(b) ? rows_of(a) > rows_of(b) : a < b; });
    while (used_ < groups && rows_of(order_[used_]) > 0) ++used_;
  }

  int64_t used() const { return used_; }  // groups that have rows: the first ones of the order
  int64_t groups() const { return groups_; }
  int64_t rows() const { return start_[groups_]; }  // of any group
  int64_t group(int64_t place) const { return order_[place]; }
  int64_t start(int64_t group) const { return start_[group]; }
  int64_t rows_of(int64_t group) const { return start_[group + 1] - start_[group]; }

  // Lays out `count(group)` items of each used group one behind the other; returns how many there are.
  template <typename Count>
  int64_t lay_out(Count&& count) {
    before_[0] = 0;
    for (int64_t place = 0; place < used_; ++place) before_[place + 1] = before_[place] + count(order_[place]);
    return before_[used_];
  }
  int64_t before(int64_t place) const { return before_[place]; }
  int64_t place_of(int64_t item) const { return std::upper_bound(before_, before_ + used_ + 1, item) - before_ - 1; }

 private:
  int64_t groups_, used_ = 0;
  int64_t *start_, *order_, *before_;
};

// Nearly equal parts of at most `most` rows, each a multiple of `step`.
int64_t rows_per_tile(int64_t rows, int64_t most, int64_t step) { return round_up(ceil_div(rows, ceil_div(rows, most)), step); }

// So many rows share what a tile packs. The Intel processors known have a second-level cache of 2 MiB, Zen 5 of 1.
int64_t most_part_rows(Isa isa) { return gemm_kernels(isa).packs_f32 ? 1024 : 512; }

// The most rows of a tile: fewer where the threads would not have enough tiles, which `count(rows)` tells.
template <typename Count>
int64_t most_tile_rows(Isa isa, const ThreadPool& pool, Count&& count) {
  int64_t most = most_part_rows(isa);
  while (most > kLeastPartRows && count(most) < kTilesPerThread * pool.threads()) most /= 2;
  return most;
}

// The part of a group's result that one tile computes, and the block of the contraction it is at.
struct Part {
  int64_t row, rows, lane, lanes;
};
struct Block {
  int64_t word, words;
  bool last;
};

// C (f32 or bf16) (+)= the sum over blocks of the contraction; of bf16 the sum of several blocks stands in `sums` until it is whole.
class PartResult {
 public:
  PartResult(const GemmKernels& kernels, Word word, char* c, DType type, int64_t c_row, bool accumulate, const Part& part, float* sums)
      : kernels_(kernels),
        multiply_(kernels, word),
        c_(c),
        type_(type),
        c_row_(c_row),
        accumulate_(accumulate),
        panels_(part.lanes, kernels),
        sums_(sums) {}

  const Panels& panels() const { return panels_; }

  // Rows [row, row + rows) of the part; a and b begin at those rows, at the part's first lane and at the block.
  void add(const RowOperand& a, const LaneOperand& b, int64_t row, int64_t rows, const Block& block) const {
    const TileRange range{0, rows, 0, panels_.count()};
    const bool first = block.word == 0;
    if (type_ == DType::kF32) {
      float* const c = reinterpret_cast<float*>(c_) + row * c_row_;
      multiply_into(multiply_, kernels_.store_f32, panels_, a, b, range, c, c_row_, accumulate_ || !first);
    } else if (first && block.last) {
      uint16_t* const c = reinterpret_cast<uint16_t*>(c_) + row * c_row_;
      multiply_into_bf16(multiply_, kernels_.store_bf16, panels_, a, b, range, c, c_row_, 1.0f, accumulate_);
    } else {
      const int64_t width = panels_.padded();
      multiply_into(multiply_, kernels_.store_f32, panels_, a, b, range, sums_ + row * width, width, !first);
      const int64_t lanes = panels_.start(panels_.count() - 1) + panels_.lanes(panels_.count() - 1);
      for (int64_t r = row; block.last && r < row + rows; ++r) {
        kernels_.store_bf16(reinterpret_cast<uint16_t*>(c_) + r * c_row_, sums_ + r * width, lanes, 1.0f, accumulate_);
      }
    }
  }

 private:
  const GemmKernels& kernels_;
  Multiply multiply_;
  char* c_;  // the part's first row and lane
  DType type_;
  int64_t c_row_;
  bool accumulate_;
  Panels panels_;
  float* sums_;
};

// The memory of one worker: panels, strips and sums of the tile it is at.
struct Scratch {
  char *panels, *strips;
  float* sums;

  Scratch(const GroupedPlan& plan, void* workspace, int worker)
      : panels(static_cast<char*>(workspace) + plan.scratch_at + worker * plan.scratch_bytes()),
        strips(panels + plan.panel_bytes),
        sums(reinterpret_cast<float*>(strips + plan.strip_bytes)) {}
};

template <typename Body>
void for_each_block(int64_t words, Body&& body) {
  const int64_t step = block_words(words);
  for (int64_t word = 0; word < words; word += step) body(Block{word, std::min(step, words - word), word + step >= words});
}

void widen(ThreadPool& pool, const void* from, float* to, int64_t count) {
  constexpr int64_t kTile = 1 << 16;
  pool.run(ceil_div(count, kTile), [&](int64_t tile, int) {
    const auto* in = static_cast<const uint16_t*>(from);
    for (int64_t i = tile * kTile; i < std::min(count, (tile + 1) * kTile); ++i) {
      const uint32_t bits = static_cast<uint32_t>(in[i]) << 16;
      std::memcpy(to + i, &bits, 4);
    }
  });
}

char* at(void* data, int64_t elements, DType type) { return static_cast<char*>(data) + elements * dtype_bytes(type); }
const char* at(const void* data, int64_t elements, DType type) { return static_cast<const char*>(data) + elements * dtype_bytes(type); }

void zero(void* c, int64_t rows, int64_t n, int64_t row_stride, DType type) {
  for (int64_t i = 0; i < rows; ++i) std::memset(at(c, i * row_stride, type), 0, static_cast<size_t>(n * dtype_bytes(type)));
}

// w^T = b^T a, so that the contiguous dim of w lies along the lanes.
GroupedOuter rows_contiguous(const GroupedOuter& g) {
  if (g.w.col == 1 || g.n == 1) return g;
  GroupedOuter s = g;
  std::swap(s.m, s.n);
  std::swap(s.a, s.b);
  std::swap(s.w.row, s.w.col);
  return s;
}

// The lanes of a part as panels.
void pack_panels(PackFunction pack, const Panels& panels, const char* source, const MatrixIn& b, int64_t depth, int64_t words, char* to) {
  for (int64_t panel = 0; panel < panels.count(); ++panel) {
    const int64_t lane = panels.start(panel);
    pack({.panel = to + lane * words * 4,
          .width = panels.width(panel),
          .lanes = panels.lanes(panel),
          .depth = depth,
          .source = at(source, lane * b.col, b.type),
          .depth_stride = b.row,
          .lane_stride = b.col});
  }
}

}  // namespace

GroupedPlan plan_grouped(const GroupedGemm& g, Isa isa, int threads) {
  MW_CHECK(g.x.col == 1 && g.y.col == 1, "the rows of a grouped product lie one behind the other");
  GroupedPlan plan{};
  plan.isa = isa;
  plan.word = word_of(g.x.type, g.w.type, isa);
  plan.widen_rows = plan.word == Word::kF32 && is_bf16(g.x.type);
  plan.pack_b = plan.word != Word::kF32 || is_bf16(g.w.type) || gemm_kernels(isa).packs_f32 || g.w.col != 1 ||
                g.n % gemm_kernels(isa).panel_step != 0;
  const int64_t words = ceil_div(g.k, elements_per_word(plan.word));
  plan.tile_lanes = lanes_per_tile(g.n);
  plan.rows_at = RowGroups::bytes(g.groups);
  plan.scratch_at = plan.rows_at + (plan.widen_rows ? round_up(g.rows * g.k * 4, 64) : 0);
  if (plan.pack_b) plan.panel_bytes = plan.tile_lanes * block_words(words) * 4;
  if (is_bf16(g.y.type) && block_words(words) < words) plan.sum_bytes = std::min(g.rows, most_part_rows(isa)) * plan.tile_lanes * 4;
  plan.workspace_bytes = plan.scratch_at + threads * plan.scratch_bytes();
  return plan;
}

void run_grouped(const GroupedGemm& g, const GroupedPlan& plan, const int32_t* row_groups, void* workspace, ThreadPool& pool) {
  if (g.rows == 0 || g.n == 0) return;
  RowGroups groups(workspace, row_groups, g.rows, g.groups);
  const int64_t empty = g.k == 0 ? 0 : groups.rows();  // the first row without a product
  if (!g.accumulate) zero(at(g.y.data, empty * g.y.row, g.y.type), g.rows - empty, g.n, g.y.row, g.y.type);
  if (g.k == 0) return;
  const GemmKernels& kernels = gemm_kernels(plan.isa);
  const int64_t per_word = elements_per_word(plan.word), words = ceil_div(g.k, per_word);
  float* const widened = reinterpret_cast<float*>(static_cast<char*>(workspace) + plan.rows_at);
  if (plan.widen_rows) {
    MW_CHECK(g.x.row == g.k, "rows with gaps cannot be widened");
    widen(pool, g.x.data, widened, g.rows * g.k);
  }
  const auto pack = pack_function(kernels, is_bf16(g.w.type), plan.word);
  const int64_t lane_tiles = ceil_div(g.n, plan.tile_lanes);
  const auto lay_out = [&](int64_t most) {
    return groups.lay_out([&](int64_t group) { return ceil_div(groups.rows_of(group), most) * lane_tiles; });
  };
  const int64_t most = most_tile_rows(plan.isa, pool, lay_out), tiles = lay_out(most);
  pool.run(tiles, [&](int64_t tile, int worker) {
    const int64_t place = groups.place_of(tile), group = groups.group(place), rows = groups.rows_of(group);
    const int64_t index = tile - groups.before(place), row_tiles = ceil_div(rows, most),
                  tall = rows_per_tile(rows, most, kernels.rows(plan.word));
    Part part{.row = index % row_tiles * tall, .rows = 0, .lane = index / row_tiles * plan.tile_lanes, .lanes = 0};
    part.rows = std::min(rows - part.row, tall), part.lanes = std::min(g.n - part.lane, plan.tile_lanes);
    if (part.rows <= 0) return;
    const int64_t row = groups.start(group) + part.row;
    const Scratch scratch(plan, workspace, worker);
    const PartResult result(kernels, plan.word, at(g.y.data, row * g.y.row + part.lane, g.y.type), g.y.type, g.y.row, g.accumulate, part,
                            scratch.sums);
    const char* const w = at(g.w.data, group * g.w.batch + part.lane * g.w.col, g.w.type);
    for_each_block(words, [&](const Block& block) {
      const int64_t depth = block.word * per_word;
      LaneOperand b{.data = w + block.word * g.w.row * 4, .words = block.words, .step_bytes = g.w.row * 4};
      if (plan.pack_b) {
        pack_panels(pack, result.panels(), at(w, depth * g.w.row, g.w.type), g.w, std::min(g.k - depth, block.words * per_word),
                    block.words, scratch.panels);
        b = {.data = scratch.panels, .words = block.words};
      }
      const RowOperand a =
          plan.widen_rows
              ? RowOperand{.data = reinterpret_cast<const char*>(widened + row * g.k + block.word), .row_bytes = g.k * 4, .step_bytes = 4}
              : RowOperand{.data = at(g.x.data, row * g.x.row + depth, g.x.type),
                           .row_bytes = g.x.row * dtype_bytes(g.x.type),
                           .step_bytes = 4,
                           .half_word = block.last && g.k % per_word != 0};
      result.add(a, b, 0, part.rows, block);
    });
  });
}

GroupedPlan plan_grouped(const GroupedOuter& gemm, Isa isa, int threads) {
  const GroupedOuter g = rows_contiguous(gemm);
  MW_CHECK(g.w.col == 1 || g.n == 1, "one dim of each group's result has to be contiguous");
  MW_CHECK(g.a.col == 1 && g.b.col == 1, "the rows of a grouped product lie one behind the other");
  GroupedPlan plan{};
  plan.isa = isa;
  plan.word = word_of(g.a.type, g.b.type, isa);
  plan.pack_a = true;
  plan.pack_b = true;
  const int64_t words = ceil_div(g.rows, elements_per_word(plan.word)), most = std::min(words, kMostBlockWords);
  plan.tile_lanes = lanes_per_tile(g.n, gemm_kernels(isa).packs_f32 ? kMostOuterPanels : kMostTilePanels);
  plan.scratch_at = RowGroups::bytes(g.groups);
  if (plan.pack_a) plan.strip_bytes = packed_rows_bytes(gemm_kernels(isa), plan.word, kStripRows, most);
  if (plan.pack_b) plan.panel_bytes = plan.tile_lanes * most * 4;
  if (is_bf16(g.w.type) && block_words(words) < words)
    plan.sum_bytes = std::min(round_up(g.m, kTileRows), most_part_rows(isa)) * plan.tile_lanes * 4;
  plan.workspace_bytes = plan.scratch_at + threads * plan.scratch_bytes();
  return plan;
}

void run_grouped(const GroupedOuter& gemm, const GroupedPlan& plan, const int32_t* row_groups, void* workspace, ThreadPool& pool) {
  const GroupedOuter g = rows_contiguous(gemm);
  if (g.m == 0 || g.n == 0) return;
  RowGroups groups(workspace, row_groups, g.rows, g.groups);
  if (!g.accumulate) {
    pool.run(g.groups - groups.used(), [&](int64_t unused, int) {
      zero(at(g.w.data, groups.group(groups.used() + unused) * g.w.batch, g.w.type), g.m, g.n, g.w.row, g.w.type);
    });
  }
  const GemmKernels& kernels = gemm_kernels(plan.isa);
  const int64_t per_word = elements_per_word(plan.word), lane_tiles = ceil_div(g.n, plan.tile_lanes);
  const auto pack_b = pack_function(kernels, is_bf16(g.b.type), plan.word);
  const int64_t most = most_tile_rows(plan.isa, pool, [&](int64_t rows) { return groups.used() * ceil_div(g.m, rows) * lane_tiles; });
  const int64_t tall = rows_per_tile(g.m, most, kernels.rows(plan.word)), row_tiles = ceil_div(g.m, tall);
  pool.run(groups.used() * row_tiles * lane_tiles, [&](int64_t tile, int worker) {
    const int64_t group = groups.group(tile / (row_tiles * lane_tiles)), rows = groups.rows_of(group), start = groups.start(group);
    Part part{.row = tile % row_tiles * tall, .rows = 0, .lane = tile / row_tiles % lane_tiles * plan.tile_lanes, .lanes = 0};
    part.rows = std::min(g.m - part.row, tall), part.lanes = std::min(g.n - part.lane, plan.tile_lanes);
    const Scratch scratch(plan, workspace, worker);
    const PartResult result(kernels, plan.word, at(g.w.data, group * g.w.batch + part.row * g.w.row + part.lane, g.w.type), g.w.type,
                            g.w.row, g.accumulate, part, scratch.sums);
    for_each_block(ceil_div(rows, per_word), [&](const Block& block) {
      const int64_t row = start + block.word * per_word, depth = std::min(rows - block.word * per_word, block.words * per_word);
      LaneOperand b{.data = at(g.b.data, row * g.b.row + part.lane, g.b.type), .words = block.words, .step_bytes = g.b.row * 4};
      if (plan.pack_b) {
        pack_panels(pack_b, result.panels(), at(g.b.data, row * g.b.row + part.lane, g.b.type), g.b, depth, block.words, scratch.panels);
        b = {.data = scratch.panels, .words = block.words};
      }
      for (int64_t m = 0; m < part.rows; m += kStripRows) {
        const int64_t count = std::min(kStripRows, part.rows - m);
        RowOperand a{.data = at(g.a.data, row * g.a.row + part.row + m, g.a.type), .row_bytes = 4, .step_bytes = g.a.row * 4};
        if (plan.pack_a) {
          a = packed_rows(kernels, plan.word, scratch.strips, block.words);
          pack_into_rows(kernels, plan.word, is_bf16(g.a.type), a, 0, 0,
                         {.lanes = count,
                          .depth = depth,
                          .source = at(g.a.data, row * g.a.row + part.row + m, g.a.type),
                          .depth_stride = g.a.row,
                          .lane_stride = 1});
        }
        result.add(a, b, m, count, block);
      }
    });
  });
}

}  // namespace mw
