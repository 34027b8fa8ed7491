#include "ops/harness.h"

namespace mw::testing {
namespace {

const std::string kX = "f32[batch=2, seq=6]";
const AttributeValue kAxes = names({"data:1:2"});
const AttributeValue kParts = int64_t{2};

}  // namespace

const OpCases kAllGather("all_gather", {{.name = "seq", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"dim", "seq"}, {"parts", kParts}}, .results = {"f32[batch=2, seq=12]"}}});
const OpCases kReduceScatter("reduce_scatter", {{.name = "seq", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"dim", "seq"}, {"parts", kParts}}, .results = {"f32[batch=2, seq=3]"}}});
const OpCases kShardSlice("shard_slice", {{.name = "seq", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"dim", "seq"}, {"parts", kParts}}, .results = {"f32[batch=2, seq=3]"}}});
const OpCases kAllReduce("all_reduce", {{.name = "sum", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"kind", "sum"}, {"parts", kParts}}, .results = {kX}}});
const OpCases kAllToAll("all_to_all", {{.name = "seq_to_batch", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"concat_dim", "seq"}, {"parts", kParts}, {"split_dim", "batch"}}, .results = {"f32[batch=1, seq=12]"}}});
const OpCases kShardOffset("shard_offset", {{.name = "three_rows_each", .attributes = {{"axes", kAxes}, {"parts", kParts}, {"size", int64_t{3}}}, .results = {"i32[]"}}});
const OpCases kRingShift("ring_shift", {{.name = "seq", .operands = {normal(kX)}, .attributes = {{"axes", kAxes}, {"parts", kParts}}, .results = {kX}}});

const OpErrors kShardOffsetErrors("shard_offset", {{{}, {{"axes", kAxes}, {"behind", int64_t{2}}, {"parts", kParts}, {"size", int64_t{3}}}, "'behind' is 2; expected 0 to 1"}});
const OpErrors kReduceScatterErrors("reduce_scatter", {
    {{"f32[seq=5]"}, {{"axes", kAxes}, {"dim", "seq"}, {"parts", kParts}}, "2 parts do not divide dim 'seq' of f32[seq=5]"},
    {{"f32[seq=5]"}, {{"axes", kAxes}, {"dim", "sq"}, {"parts", kParts}}, "did you mean 'seq'?"},
    {{"f32[seq=5]"}, {{"axes", kAxes}, {"dim", "seq"}, {"parts", int64_t{0}}}, "'parts' is 0; expected 1 or more"},
});
const OpErrors kAllReduceErrors("all_reduce", {{{"f32[seq=5]"}, {{"axes", kAxes}, {"kind", "mean"}, {"parts", kParts}}, "kind 'mean'; expected 'sum' or 'max'"}});
const OpErrors kAllToAllErrors("all_to_all", {{{"f32[seq=4]"}, {{"axes", kAxes}, {"concat_dim", "seq"}, {"parts", kParts}, {"split_dim", "seq"}}, "cannot be both split and concatenated"}});

}  // namespace mw::testing
