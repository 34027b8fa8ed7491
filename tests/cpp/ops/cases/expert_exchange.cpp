#include "ops/harness.h"

namespace mw::testing {
namespace {

// One part: four experts, the second without rows. There is room for eight rows.
OperandSpec row_experts() { return exactly("i32[expert_rows=6]", {0, 0, 2, 2, 2, 3}); }
OperandSpec counts() { return exactly("i32[expert_counts=8]", {2, 0, 3, 1, 2, 0, 3, 1}); }
Attributes exchange(int64_t rows) { return {{"axes", names({"expert:1:1"})}, {"experts", int64_t{4}}, {"parts", int64_t{1}}, {"rows", rows}}; }
Attributes counting(int64_t rows) {
  Attributes attributes = exchange(rows);
  attributes.set("counts", int64_t{8});
  return attributes;
}
const Attributes kUneven{{"axes", names({"expert:1:3"})}, {"experts", int64_t{4}}, {"parts", int64_t{3}}, {"rows", int64_t{8}}};

}  // namespace

const OpCases kExpertCounts("expert_counts", {
    {.name = "enough_room", .operands = {row_experts()}, .attributes = counting(8), .results = {"i32[expert_counts=8]"}},
    {.name = "too_little_room", .operands = {row_experts()}, .attributes = counting(5), .results = {"i32[expert_counts=8]"}},
});
const OpCases kExpertDispatch("expert_dispatch", {
    {.name = "vectors", .operands = {normal("f32[expert_rows=6, embed=6]"), counts()}, .attributes = exchange(8), .results = {"f32[expert_rows=8, embed=6]"}},
});
const OpCases kExpertReturn("expert_return", {
    {.name = "vectors", .operands = {normal("f32[expert_rows=8, embed=6]"), counts()}, .attributes = exchange(6), .results = {"f32[expert_rows=6, embed=6]"}},
});
const OpCases kDispatchedExperts("dispatched_experts", {
    {.name = "two_of_no_expert", .operands = {counts()}, .attributes = exchange(8), .results = {"i32[expert_rows=8]"}},
});

const OpErrors kExpertCountsErrors("expert_counts", {
    {{"i32[seq=6]"}, counting(8), "expected one dim, 'expert_rows'"},
    {{"i32[expert_rows=6]"}, kUneven, "4 experts do not divide into 3 parts"},
});
const OpErrors kExpertDispatchErrors("expert_dispatch", {
    {{"f32[embed=6]", "i32[expert_counts=8]"}, exchange(8), "expected 'expert_rows' as the outermost dim"},
    {{"f32[expert_rows=6]", "i32[expert_rows=8]"}, exchange(8), "expected one dim, 'expert_counts'"},
    {{"f32[expert_rows=6]", "i32[expert_counts=8]"}, exchange(-1), "'rows' is -1; expected 0 or more"},
});

}  // namespace mw::testing
