// random_uniform and random_normal: rows of the innermost dim, each from its first index in the whole value.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/philox.h"
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/named_loops.h"

namespace mw::cpu {
namespace {

constexpr size_t kNumKeys = 2;            // seed and step; offsets of sharded dims follow
constexpr int64_t kTileElements = 16384;  // of one task

struct RandomPlan {
  std::string name;
  std::vector<int64_t> sizes, whole;  // of the shard, of the value
  std::vector<int> offset_operand;    // by dim; -1: the dim is whole
  int64_t rows = 1, row = 1;
};

int64_t integer(const std::byte* operand) {
  int32_t value;
  std::memcpy(&value, operand, sizeof value);
  return value;
}

template <typename Fill>
void draw(const RandomPlan& plan, const KernelRun& r, Fill&& fill) {
  const RandomStream stream(static_cast<uint64_t>(integer(r.operands[0])), static_cast<uint64_t>(integer(r.operands[1])), plan.name);
  float* y = reinterpret_cast<float*>(r.results[0]);
  const int64_t pieces = std::max<int64_t>(1, (plan.row + kTileElements - 1) / kTileElements),
                rows_per_tile = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, plan.row));
  const int64_t row_tiles = (plan.rows + rows_per_tile - 1) / rows_per_tile;
  r.pool.run(row_tiles * pieces, [&](int64_t tile, int) {
    const int64_t begin = tile % pieces * kTileElements, end = std::min(plan.row, begin + kTileElements);
    for (int64_t row = tile / pieces * rows_per_tile; row < std::min(plan.rows, (tile / pieces + 1) * rows_per_tile); ++row) {
      int64_t rest = row * plan.row + begin, step = 1, first = 0;
      for (size_t d = plan.sizes.size(); d-- > 0;) {
        const int64_t offset = plan.offset_operand[d] < 0 ? 0 : integer(r.operands[plan.offset_operand[d]]);
        first += (rest % plan.sizes[d] + offset) * step;
        rest /= plan.sizes[d];
        step *= plan.whole[d];
      }
      fill(stream, static_cast<uint64_t>(first), std::span<float>(y + row * plan.row + begin, static_cast<size_t>(end - begin)));
    }
  });
}

template <bool normal>
Kernel make_random(const Signature& s, const KernelEnvironment&) {
  const Type& y = s.result(0);
  RandomPlan plan{.name = s.attributes->text("name"),
                  .sizes = {},
                  .whole = s.attributes->integers("sizes"),
                  .offset_operand = std::vector<int>(y.dims.size(), -1)};
  for (const Dim& dim : y.dims) plan.sizes.push_back(dim.size);
  const std::vector<std::string> offsets = s.attributes->names_or_empty("offsets");
  for (size_t i = 0; i < offsets.size(); ++i)
    plan.offset_operand.at(static_cast<size_t>(y.index_of(offsets[i]))) = static_cast<int>(kNumKeys + i);
  plan.row = y.dims.empty() ? 1 : y.dims.back().size;
  plan.rows = plan.row == 0 ? 0 : y.elements() / plan.row;
  return {.run =
              [plan = std::move(plan)](const KernelRun& r) {
                if constexpr (normal) {
                  draw(plan, r, [](const RandomStream& stream, uint64_t first, std::span<float> out) {
                    fill_normal(stream, first, 0.0f, 1.0f, out);
                  });
                } else {
                  draw(plan, r, [](const RandomStream& stream, uint64_t first, std::span<float> out) { fill_uniform(stream, first, out); });
                }
              },
          .choice = "philox"};
}

}  // namespace

void random_kernels(KernelTable& table) {
  table.emplace("random_uniform", make_random<false>);
  table.emplace("random_normal", make_random<true>);
}

}  // namespace mw::cpu
