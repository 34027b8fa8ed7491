#include "ops/harness.h"

namespace mw::testing {

const OpCases kRename("rename", {
    {.name = "seq", .operands = {normal("f32[batch=2, seq=4, embed=3]")}, .attributes = {{"from", "seq"}, {"to", "kv_seq"}}, .results = {"f32[batch=2, kv_seq=4, embed=3]"}},
});
const OpErrors kRenameErrors("rename", {
    {{"f32[batch=2]"}, {{"from", "bach"}, {"to", "seq"}}, "there is no dim 'bach' in f32[batch=2] (did you mean 'batch'?)"},
    {{"f32[batch=2, seq=3]"}, {{"from", "batch"}, {"to", "seq"}}, "dim 'seq' stands twice"},
    {{"f32[batch=2]"}, {{"from", "batch"}, {"to", "sequence"}}, "the dim name 'sequence' in f32[sequence=2] is not declared"},
});

const OpCases kSplit("split", {
    {.name = "heads", .operands = {normal("f32[batch=2, embed=12]")}, .attributes = {{"dim", "embed"}, {"inner", sizes({3})}, {"into", names({"heads", "head_dim"})}}, .results = {"f32[batch=2, heads=4, head_dim=3]"}},
    {.name = "three_in_the_middle", .operands = {normal("f32[batch=2, embed=12, seq=2]")}, .attributes = {{"dim", "embed"}, {"inner", sizes({2, 3})}, {"into", names({"kv_heads", "q_per_kv", "head_dim"})}}, .results = {"f32[batch=2, kv_heads=2, q_per_kv=2, head_dim=3, seq=2]"}},
});
const OpErrors kSplitErrors("split", {
    {{"f32[embed=10]"}, {{"dim", "embed"}, {"inner", sizes({4})}, {"into", names({"heads", "head_dim"})}}, "does not divide into parts of 'head_dim' = 4"},
    {{"f32[embed=10]"}, {{"dim", "embed"}, {"inner", sizes({5, 2})}, {"into", names({"heads", "head_dim"})}}, "wants one size for each of its new dims but the first"},
});

const OpCases kMerge("merge", {
    {.name = "heads", .operands = {normal("f32[batch=2, heads=4, head_dim=3]")}, .attributes = {{"dims", names({"heads", "head_dim"})}, {"into", "embed"}}, .results = {"f32[batch=2, embed=12]"}},
    {.name = "outer", .operands = {normal("f32[batch=2, seq=3, embed=2]")}, .attributes = {{"dims", names({"batch", "seq"})}, {"into", "tokens"}}, .results = {"f32[tokens=6, embed=2]"}},
});
const OpErrors kMergeErrors("merge", {
    {{"f32[batch=2, seq=3, embed=2]"}, {{"dims", names({"batch", "embed"})}, {"into", "tokens"}}, "'embed' does not follow 'batch'"},
    {{"f32[batch=2, seq=3]"}, {{"dims", names({})}, {"into", "tokens"}}, "merge names no dims"},
});

const OpCases kReorder("reorder", {
    {.name = "three", .operands = {normal("f32[batch=2, seq=4, embed=6]")}, .attributes = {{"order", names({"embed", "batch", "seq"})}}, .results = {"f32[embed=6, batch=2, seq=4]"}},
    {.name = "integers", .operands = {ids("i32[batch=2, seq=4]", 0, 9)}, .attributes = {{"order", names({"seq", "batch"})}}, .results = {"i32[seq=4, batch=2]"}},
});
const OpErrors kReorderErrors("reorder", {
    {{"f32[batch=2, seq=4]"}, {{"order", names({"seq"})}}, "the order names 1 of the 2 dims"},
    {{"f32[batch=2, seq=4]"}, {{"order", names({"seq", "seq"})}}, "dim 'seq' stands twice"},
});

const OpCases kBroadcast("broadcast_to", {
    {.name = "new_outer", .operands = {normal("f32[embed=4]")}, .attributes = {{"type", "f32[batch=2, embed=4]"}}, .results = {"f32[batch=2, embed=4]"}},
    {.name = "new_inner_reordered", .operands = {normal("f32[batch=2, seq=4]")}, .attributes = {{"type", "f32[seq=4, batch=2, embed=2]"}}, .results = {"f32[seq=4, batch=2, embed=2]"}},
    {.name = "number", .operands = {normal("f32[]")}, .attributes = {{"type", "f32[batch=4]"}}, .results = {"f32[batch=4]"}},
});
const OpErrors kBroadcastErrors("broadcast_to", {
    {{"f32[embed=4]"}, {{"type", "f32[embed=5]"}}, "the result wants embed=4"},
    {{"f32[embed=4]"}, {{"type", "f32[batch=5]"}}, "the result wants embed=4"},
    {{"f32[embed=4]"}, {{"type", "bf16[embed=4]"}}, "the dtypes differ"},
});

const OpCases kIota("iota", {{.name = "seq", .attributes = {{"type", "i32[seq=6]"}}, .results = {"i32[seq=6]"}}});
const OpErrors kIotaErrors("iota", {{{}, {{"type", "f32[seq=6]"}}, "iota gives i32 of one dim"}});

const OpCases kSlice("slice", {
    {.name = "middle", .operands = {normal("f32[batch=2, seq=6, embed=2]")}, .attributes = {{"dim", "seq"}, {"size", int64_t{3}}, {"start", int64_t{2}}}, .results = {"f32[batch=2, seq=3, embed=2]"}},
    {.name = "empty", .operands = {normal("f32[batch=2, seq=6]")}, .attributes = {{"dim", "seq"}, {"size", int64_t{0}}, {"start", int64_t{6}}}, .results = {"f32[batch=2, seq=0]"}},
});
const OpErrors kSliceErrors("slice", {{{"f32[seq=6]"}, {{"dim", "seq"}, {"size", int64_t{3}}, {"start", int64_t{4}}}, "rows 4 to 4 + 3 are not within dim 'seq' of f32[seq=6]"}});

const OpCases kPad("pad", {
    {.name = "both", .operands = {normal("f32[batch=2, seq=3]")}, .attributes = {{"after", int64_t{2}}, {"before", int64_t{1}}, {"dim", "seq"}}, .results = {"f32[batch=2, seq=6]"}},
});
const OpErrors kPadErrors("pad", {{{"f32[seq=6]"}, {{"after", int64_t{2}}, {"before", int64_t{-1}}, {"dim", "seq"}}, "not a number of zeros to put around dim"}});

const OpCases kConcat("concat", {
    {.name = "three", .operands = {normal("f32[batch=2, seq=1, embed=2]"), normal("f32[batch=2, seq=3, embed=2]"), normal("f32[batch=2, seq=2, embed=2]")}, .attributes = {{"dim", "seq"}}, .results = {"f32[batch=2, seq=6, embed=2]"}},
    {.name = "one_constant", .operands = {normal("f32[batch=2, seq=1]"), constant_of(normal("f32[batch=2, seq=3]"))}, .attributes = {{"dim", "seq"}}, .results = {"f32[batch=2, seq=4]"}},
});
const OpErrors kConcatErrors("concat", {
    {{"f32[batch=2, seq=1]", "f32[batch=3, seq=1]"}, {{"dim", "seq"}}, "differ in more than the size of 'seq'"},
    {{"f32[seq=1]", "bf16[seq=1]"}, {{"dim", "seq"}}, "differ in more than the size of 'seq'"},
    {{}, {{"dim", "seq"}}, "has no operands"},
});

}  // namespace mw::testing
