#include "ops/harness.h"

namespace mw::testing {

const OpCases kGatherRows("gather_rows", {
    {.name = "embedding", .operands = {normal("f32[vocab=6, embed=4]"), ids("i32[batch=2, seq=4]", 0, 6)}, .attributes = {{"dim", "vocab"}}, .results = {"f32[batch=2, seq=4, embed=4]"}},
    {.name = "ids_outside_give_zeros", .operands = {normal("f32[vocab=4, embed=2]"), ids("i32[seq=8]", -2, 8)}, .attributes = {{"dim", "vocab"}}, .results = {"f32[seq=8, embed=2]"}},
    {.name = "rows_not_outermost", .operands = {normal("f32[embed=2, vocab=4]"), ids("i32[seq=6]", 0, 4)}, .attributes = {{"dim", "vocab"}}, .results = {"f32[seq=6, embed=2]"}},
    {.name = "batched", .operands = {normal("f32[batch=2, seq=4, vocab=6]"), ids("i32[batch=2, seq=4]", 0, 6)}, .attributes = {{"dim", "vocab"}}, .results = {"f32[batch=2, seq=4]"}},
    {.name = "integers", .operands = {ids("i32[vocab=4]", 0, 100), ids("i32[seq=6]", 0, 4)}, .attributes = {{"dim", "vocab"}}, .results = {"i32[seq=6]"}},
});
const OpErrors kGatherRowsErrors("gather_rows", {
    {{"f32[vocab=6, embed=4]", "f32[seq=4]"}, {{"dim", "vocab"}}, "the ids are f32[seq=4]; expected i32"},
    {{"f32[vocab=6, embed=4]", "i32[seq=4]"}, {{"dim", "vocabulary"}}, "there is no dim 'vocabulary'"},
    {{"f32[vocab=6, embed=4]", "i32[vocab=4]"}, {{"dim", "vocab"}}, "have the dim 'vocab' that they index"},
    {{"f32[vocab=6, seq=3]", "i32[seq=4]"}, {{"dim", "vocab"}}, "dim 'seq' has two sizes"},
});

const OpCases kScatterRows("scatter_rows", {
    {.name = "embedding", .operands = {normal("f32[batch=2, seq=4, embed=4]"), ids("i32[batch=2, seq=4]", 0, 6)}, .attributes = {{"dim", "vocab"}, {"type", "f32[vocab=6, embed=4]"}}, .results = {"f32[vocab=6, embed=4]"}},
    {.name = "ids_outside_add_nothing", .operands = {normal("f32[seq=8, embed=2]"), ids("i32[seq=8]", -2, 8)}, .attributes = {{"dim", "vocab"}, {"type", "f32[embed=2, vocab=4]"}}, .results = {"f32[embed=2, vocab=4]"}},
    {.name = "batched", .operands = {normal("f32[batch=2, top=2]"), ids("i32[batch=2, top=2]", 0, 6)}, .attributes = {{"dim", "classes"}, {"type", "f32[batch=2, classes=6]"}}, .results = {"f32[batch=2, classes=6]"}},
    {.name = "bf16_rows_into_f32", .operands = {normal("bf16[seq=4, embed=2]"), ids("i32[seq=4]", 0, 2)}, .attributes = {{"dim", "vocab"}, {"type", "f32[vocab=2, embed=2]"}}, .results = {"f32[vocab=2, embed=2]"}, .other_dtypes = false},
});
const OpErrors kScatterRowsErrors("scatter_rows", {
    {{"f32[seq=4, embed=2]", "i32[seq=4]"}, {{"dim", "vocab"}, {"type", "f32[vocab=3, embed=3]"}}, "do not fit the table f32[vocab=3, embed=3]; expected f32[seq=4, embed=3]"},
    {{"i32[seq=4]", "i32[seq=4]"}, {{"dim", "vocab"}, {"type", "i32[vocab=3]"}}, "rows are added: expected floats"},
});

const OpCases kTopK("top_k", {
    {.name = "inner", .operands = {distinct("f32[batch=2, classes=6]")}, .attributes = {{"dim", "classes"}, {"into", "top"}, {"k", int64_t{2}}}, .results = {"f32[batch=2, top=2]", "i32[batch=2, top=2]"}},
    {.name = "outer", .operands = {distinct("f32[classes=4, batch=2]")}, .attributes = {{"dim", "classes"}, {"into", "top"}, {"k", int64_t{3}}}, .results = {"f32[top=3, batch=2]", "i32[top=3, batch=2]"}},
});
const OpErrors kTopKErrors("top_k", {
    {{"f32[classes=4]"}, {{"dim", "classes"}, {"into", "top"}, {"k", int64_t{5}}}, "k = 5 of dim 'classes' of f32[classes=4]; expected 1 to 4"},
});

}  // namespace mw::testing
