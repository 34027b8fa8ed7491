#include "ops/harness.h"

namespace mw::testing {

const OpCases kReduceSum("reduce_sum", {
    {.name = "inner", .operands = {normal("f32[batch=2, seq=4, embed=6]")}, .attributes = {{"dims", names({"embed"})}}, .results = {"f32[batch=2, seq=4]"}},
    {.name = "outer_and_inner", .operands = {normal("f32[batch=2, seq=4, embed=6]")}, .attributes = {{"dims", names({"embed", "batch"})}}, .results = {"f32[seq=4]"}},
    {.name = "all", .operands = {normal("f32[batch=2, embed=3]")}, .attributes = {{"dims", names({"batch", "embed"})}}, .results = {"f32[]"}},
    {.name = "integers", .operands = {ids("i32[batch=2, seq=4]", -3, 7)}, .attributes = {{"dims", names({"seq"})}}, .results = {"i32[batch=2]"}},
});
const OpErrors kReduceSumErrors("reduce_sum", {
    {{"f32[batch=2, embed=4]"}, {{"dims", names({"embd"})}}, "there is no dim 'embd' in f32[batch=2, embed=4] (did you mean 'embed'?)"},
    {{"f32[batch=2]"}, {{"dims", names({})}}, "no dim to reduce is named"},
    {{"f32[batch=2, embed=4]"}, {{"dims", names({"embed", "embed"})}}, "dim 'embed' is named twice"},
    {{"f32[batch=0]"}, {{"dims", names({"batch"})}}, "there is nothing to reduce"},
    {{"u8[batch=2]"}, {{"dims", names({"batch"})}}, "cannot hold a sum; cast it to i32 or f32"},
});

const OpCases kReduceMax("reduce_max", {
    {.name = "inner", .operands = {distinct("f32[batch=2, seq=4]")}, .attributes = {{"dims", names({"seq"})}}, .results = {"f32[batch=2]"}},
    {.name = "outer", .operands = {distinct("f32[batch=4, seq=2, embed=2]")}, .attributes = {{"dims", names({"batch", "seq"})}}, .results = {"f32[embed=2]"}},
});
const OpCases kReduceMin("reduce_min", {
    {.name = "inner", .operands = {distinct("f32[batch=2, seq=4]")}, .attributes = {{"dims", names({"seq"})}}, .results = {"f32[batch=2]"}},
    {.name = "all", .operands = {distinct("f32[batch=4, seq=2]")}, .attributes = {{"dims", names({"batch", "seq"})}}, .results = {"f32[]"}},
});
const OpCases kArgmax("argmax", {
    {.name = "inner", .operands = {distinct("f32[batch=2, vocab=6]")}, .attributes = {{"dims", names({"vocab"})}}, .results = {"i32[batch=2]"}},
    {.name = "outer_with_ties", .operands = {exactly("f32[vocab=3, batch=2]", {1, 5, 4, 5, 4, 2})}, .attributes = {{"dims", names({"vocab"})}}, .results = {"i32[batch=2]"}},
});

}  // namespace mw::testing
