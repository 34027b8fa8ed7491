#include "passes/op_layout.h"

#include "runner.h"

namespace mw {
namespace {

// The layouts of operand and result of a view whose operand lies as `given`, as text.
std::string viewed(const std::string& from, const std::string& to, std::vector<DimShards> given) {
  const ViewLayouts layouts = view_layouts(parse_type(from), parse_type(to), Layout{std::move(given), {}});
  return to_string(layouts.from) + " -> " + to_string(layouts.to);
}

const AxisPart kData{"data", 2, 1}, kTensor{"tensor", 4, 1};

}  // namespace

TEST(passes, a_view_keeps_the_shards_of_what_stays_in_place) {
  EXPECT_EQ(viewed("f32[batch=2, seq=8]", "f32[batch=2, kv_seq=8]", {{"batch", {kData}}, {"seq", {kTensor}}}),
            "batch:data, seq:tensor -> batch:data, kv_seq:tensor");
  EXPECT_EQ(viewed("f32[batch=2, embed=12]", "f32[batch=2, heads=4, head_dim=3]", {{"embed", {kTensor}}}), "embed:tensor -> heads:tensor");
  EXPECT_EQ(viewed("f32[heads=4, head_dim=2]", "f32[embed=8]", {{"head_dim", {kData}}}), " -> ");
  EXPECT_EQ(viewed("f32[embed=12]", "f32[heads=2, head_dim=6]", {{"embed", {kData, kTensor}}}), "embed:data -> heads:data");
}

TEST(passes, a_view_may_add_and_drop_dims_of_size_one) {
  EXPECT_EQ(viewed("f32[embed=8]", "f32[heads=8, head_dim=1]", {{"embed", {kData}}}), "embed:data -> heads:data");
  EXPECT_EQ(viewed("f32[kv_heads=1, q_per_kv=8, seq=2]", "f32[heads=8, seq=2]", {{"q_per_kv", {kTensor}}}),
            "q_per_kv:tensor -> heads:tensor");
  EXPECT_EQ(viewed("f32[embed=1]", "f32[heads=1, head_dim=1]", {}), " -> ");
}

}  // namespace mw
