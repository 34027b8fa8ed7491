#include "exec/cpu/grouped_gemm.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "exec/cpu/gemm_tiles.h"

namespace mw {
namespace {

constexpr int64_t kMostTileRows = 128;
constexpr int64_t kPackRows = 64;    // lanes of the row operand in one packing tile of GroupedOuter
constexpr int64_t kPackWords = 512;  // words of a panel in one packing tile of GroupedGemm

bool is_bf16(DType type) { return type == DType::kBF16; }

Word word_of(DType a, DType b, Isa isa) {
  return is_bf16(a) && is_bf16(b) && gemm_kernels(isa).has_bf16_pairs ? Word::kBf16Pair : Word::kF32;
}

// Panels of one tile: as many as stay in the second-level cache.
int64_t panels_per_tile(int64_t n, int64_t words) {
  const int64_t count = std::max<int64_t>(1, Panels(n).count());
  const int64_t most = std::clamp<int64_t>(4 * kBlockWords / std::clamp<int64_t>(words, 1, kBlockWords), 1, 8);
  return ceil_div(count, ceil_div(count, std::min(most, count)));
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

// The rows of one tile of a group: nearly equal, a multiple of 8, at most 128.
int64_t row_tiles(int64_t rows) { return ceil_div(rows, kMostTileRows); }
int64_t tile_rows(int64_t rows) { return round_up(ceil_div(rows, row_tiles(rows)), kTileRows); }

// C (f32 or bf16) (+)= the product over the range of one tile.
void multiply_tile(const GemmKernels& kernels, Word word, const Panels& panels, const RowOperand& a, const LaneOperand& b, TileRange range,
                   void* c, DType type, int64_t c_row, bool accumulate) {
  const auto multiply = multiply_function(kernels, word);
  if (type == DType::kF32)
    return multiply_into(multiply, kernels.store_f32, panels, a, b, range, static_cast<float*>(c), c_row, accumulate);
  multiply_with_epilogue(multiply, panels, a, b, range, [&](const float* tile, int64_t row, int rows, int64_t lane, int lanes) {
    for (int r = 0; r < rows; ++r)
      kernels.store_bf16(static_cast<uint16_t*>(c) + (row + r) * c_row + lane, tile + r * kPanelLanes, lanes, 1.0f, accumulate);
  });
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

// The words of a group's rows.
int64_t words_of_rows(int64_t rows, Word word) { return ceil_div(rows, elements_per_word(word)); }

struct OuterPacking {
  const GroupedOuter& g;
  const GroupedPlan& plan;
  const GemmKernels& kernels;
  const Panels& panels;
  const RowGroups& groups;
  char* workspace;

  int64_t a_chunks() const { return plan.pack_a ? ceil_div(g.m, kPackRows) : 0; }
  int64_t b_chunks() const { return plan.pack_b ? panels.count() : 0; }
  char* a_of(int64_t place) const { return workspace + plan.a_at + groups.before(place) * round_up(g.m, kTileRows) * 4; }
  char* b_of(int64_t place) const { return workspace + plan.b_at + groups.before(place) * panels.padded() * 4; }

  void run(int64_t tile) const {
    const int64_t chunks = a_chunks() + b_chunks(), place = tile / chunks, chunk = tile % chunks;
    chunk < a_chunks() ? pack_a(place, chunk) : pack_b(place, chunk - a_chunks());
  }
  void pack_a(int64_t place, int64_t chunk) const {
    const int64_t group = groups.group(place), rows = groups.rows_of(group), words = words_of_rows(rows, plan.word);
    const int64_t per_word = elements_per_word(plan.word), end = std::min(g.m, (chunk + 1) * kPackRows);
    const auto pack = pack_function(kernels, is_bf16(g.a.type), plan.word);
    constexpr int64_t kStep = 128;  // words at a time: the cache lines that neighbouring strips share stay near
    for (int64_t w = 0; w < words; w += kStep) {
      const int64_t depth = std::min(rows, (w + kStep) * per_word) - w * per_word;
      for (int64_t m = chunk * kPackRows; m < end; m += kTileRows) {
        pack({.panel = a_of(place) + (m * words + w * kTileRows) * 4,
              .width = kTileRows,
              .lanes = static_cast<int>(std::min<int64_t>(kTileRows, end - m)),
              .depth = depth,
              .source = at(g.a.data, (groups.start(group) + w * per_word) * g.a.row + m, g.a.type),
              .depth_stride = g.a.row,
              .lane_stride = 1});
      }
    }
  }
  void pack_b(int64_t place, int64_t panel) const {
    const int64_t group = groups.group(place), rows = groups.rows_of(group), words = words_of_rows(rows, plan.word);
    pack_function(kernels, is_bf16(g.b.type),
                  plan.word)({.panel = b_of(place) + panels.start(panel) * words * 4,
                              .width = panels.width(panel),
                              .lanes = panels.lanes(panel),
                              .depth = rows,
                              .source = at(g.b.data, groups.start(group) * g.b.row + panels.start(panel), g.b.type),
                              .depth_stride = g.b.row,
                              .lane_stride = 1});
  }
  RowOperand rows(int64_t place) const {
    const int64_t group = groups.group(place);
    if (plan.pack_a) return RowOperand::strips(a_of(place), words_of_rows(groups.rows_of(group), plan.word));
    return {.data = at(g.a.data, groups.start(group) * g.a.row, g.a.type), .row_bytes = 4, .step_bytes = g.a.row * 4};
  }
  LaneOperand lanes(int64_t place) const {
    const int64_t group = groups.group(place), words = words_of_rows(groups.rows_of(group), plan.word);
    if (plan.pack_b) return {.data = b_of(place), .words = words};
    return {.data = at(g.b.data, groups.start(group) * g.b.row, g.b.type), .words = words, .step_bytes = g.b.row * 4};
  }
};

}  // namespace

GroupedPlan plan_grouped(const GroupedGemm& g, Isa isa) {
  MW_CHECK(g.x.col == 1 && g.y.col == 1, "the rows of a grouped product lie one behind the other");
  GroupedPlan plan{};
  plan.isa = isa;
  plan.word = word_of(g.x.type, g.w.type, isa);
  plan.widen_rows = plan.word == Word::kF32 && is_bf16(g.x.type);
  plan.pack_b = plan.word != Word::kF32 || is_bf16(g.w.type) || g.w.col != 1 || g.n % 16 != 0;
  const int64_t words = ceil_div(g.k, elements_per_word(plan.word)), most_used = std::min(g.groups, g.rows);
  plan.tile_panels = panels_per_tile(g.n, words);
  plan.a_at = RowGroups::bytes(g.groups);
  plan.b_at = plan.a_at + (plan.widen_rows ? round_up(g.rows * g.k * 4, 64) : 0);
  plan.workspace_bytes = plan.b_at + (plan.pack_b ? most_used * Panels(g.n).padded() * words * 4 : 0);
  return plan;
}

void run_grouped(const GroupedGemm& g, const GroupedPlan& plan, const int32_t* row_groups, void* workspace, ThreadPool& pool) {
  if (g.rows == 0 || g.n == 0) return;
  if (g.k == 0) return zero(g.y.data, g.rows, g.n, g.y.row, g.y.type);
  RowGroups groups(workspace, row_groups, g.rows, g.groups);
  zero(at(g.y.data, groups.rows() * g.y.row, g.y.type), g.rows - groups.rows(), g.n, g.y.row, g.y.type);
  const GemmKernels& kernels = gemm_kernels(plan.isa);
  const Panels panels(g.n);
  const int64_t per_word = elements_per_word(plan.word), words = ceil_div(g.k, per_word), copy_bytes = panels.padded() * words * 4;
  char* const base = static_cast<char*>(workspace);
  if (plan.widen_rows) {
    MW_CHECK(g.x.row == g.k, "rows with gaps cannot be widened");
    widen(pool, g.x.data, reinterpret_cast<float*>(base + plan.a_at), g.rows * g.k);
  }
  if (plan.pack_b) {  // the weights of the groups that have rows, once for all their tiles
    const int64_t parts = ceil_div(words, kPackWords);
    pool.run(groups.used() * panels.count() * parts, [&](int64_t tile, int) {
      const int64_t word = tile % parts * kPackWords, panel = tile / parts % panels.count(), place = tile / parts / panels.count();
      const int64_t start = panels.start(panel);
      pack_function(kernels, is_bf16(g.w.type), plan.word)(
          {.panel = base + plan.b_at + place * copy_bytes + (start * words + word * panels.width(panel)) * 4,
           .width = panels.width(panel),
           .lanes = panels.lanes(panel),
           .depth = std::min(g.k, (word + kPackWords) * per_word) - word * per_word,
           .source = at(g.w.data, groups.group(place) * g.w.batch + word * per_word * g.w.row + start * g.w.col, g.w.type),
           .depth_stride = g.w.row,
           .lane_stride = g.w.col});
    });
  }
  const int64_t panel_tiles = ceil_div(panels.count(), plan.tile_panels);
  const int64_t tiles = groups.lay_out([&](int64_t group) { return row_tiles(groups.rows_of(group)) * panel_tiles; });
  pool.run(tiles, [&](int64_t tile, int) {
    const int64_t place = groups.place_of(tile), group = groups.group(place), rows = groups.rows_of(group);
    const int64_t index = tile - groups.before(place), tall = tile_rows(rows);
    const int64_t row = index % row_tiles(rows) * tall, panel = index / row_tiles(rows) * plan.tile_panels;
    const int64_t first = groups.start(group);
    const RowOperand a = plan.widen_rows ? RowOperand{.data = base + plan.a_at + first * g.k * 4, .row_bytes = g.k * 4, .step_bytes = 4}
                                         : RowOperand{.data = at(g.x.data, first * g.x.row, g.x.type),
                                                      .row_bytes = g.x.row * dtype_bytes(g.x.type),
                                                      .step_bytes = 4,
                                                      .half_word = g.k % per_word != 0};
    const LaneOperand b = plan.pack_b
                              ? LaneOperand{.data = base + plan.b_at + place * copy_bytes, .words = words}
                              : LaneOperand{.data = at(g.w.data, group * g.w.batch, g.w.type), .words = words, .step_bytes = g.w.row * 4};
    multiply_tile(kernels, plan.word, panels, a, b,
                  {row, std::min(rows, row + tall), panel, std::min(panels.count(), panel + plan.tile_panels)},
                  at(g.y.data, first * g.y.row, g.y.type), g.y.type, g.y.row, false);
  });
}

GroupedPlan plan_grouped(const GroupedOuter& gemm, Isa isa) {
  const GroupedOuter g = rows_contiguous(gemm);
  MW_CHECK(g.w.col == 1 || g.n == 1, "one dim of each group's result has to be contiguous");
  MW_CHECK(g.a.col == 1 && g.b.col == 1, "the rows of a grouped product lie one behind the other");
  GroupedPlan plan{};
  plan.isa = isa;
  plan.word = word_of(g.a.type, g.b.type, isa);
  plan.pack_a = is_bf16(g.a.type);
  plan.pack_b = is_bf16(g.b.type) || g.n % 16 != 0;
  const int64_t most_used = std::min(g.groups, g.rows);
  const int64_t words = plan.word == Word::kF32 ? g.rows : (g.rows + most_used) / 2;  // each group may end in half a word
  plan.tile_panels = panels_per_tile(g.n, words_of_rows(g.rows / std::max<int64_t>(1, g.groups), plan.word));
  plan.a_at = RowGroups::bytes(g.groups);
  plan.b_at = plan.a_at + (plan.pack_a ? round_up(words * round_up(g.m, kTileRows) * 4, 64) : 0);
  plan.workspace_bytes = plan.b_at + (plan.pack_b ? words * Panels(g.n).padded() * 4 : 0);
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
  const Panels panels(g.n);
  groups.lay_out([&](int64_t group) { return words_of_rows(groups.rows_of(group), plan.word); });
  const OuterPacking packing{g, plan, kernels, panels, groups, static_cast<char*>(workspace)};
  pool.run(groups.used() * (packing.a_chunks() + packing.b_chunks()), [&](int64_t tile, int) { packing.run(tile); });
  const int64_t tall = tile_rows(g.m), m_tiles = ceil_div(g.m, tall), panel_tiles = ceil_div(panels.count(), plan.tile_panels);
  pool.run(groups.used() * m_tiles * panel_tiles, [&](int64_t tile, int) {
    const int64_t place = tile / (m_tiles * panel_tiles), m = tile % m_tiles * tall,
                  panel = tile / m_tiles % panel_tiles * plan.tile_panels;
    const TileRange range{m, std::min(g.m, m + tall), panel, std::min(panels.count(), panel + plan.tile_panels)};
    multiply_tile(kernels, plan.word, panels, packing.rows(place), packing.lanes(place), range,
                  at(g.w.data, groups.group(place) * g.w.batch, g.w.type), g.w.type, g.w.row, g.accumulate);
  });
}

}  // namespace mw
