#include "ops/harness.h"

namespace mw::testing {
namespace {

// Targets of 8 tokens over a vocabulary of 6: some ignored, one at each end.
OperandSpec targets(const char* type) { return exactly(type, {0, 5, -1, 2, 3, -100, 2, 4}); }
Attributes weight_in(const char* dtype) { return {{"weight_dtype", dtype}}; }
const Attributes kCapped{{"softcap", 1.5}}, kCappedGradient{{"softcap", 1.5}, {"weight_dtype", "f32"}};

}  // namespace

const OpCases kCrossEntropy("cross_entropy", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]")}, .results = {"f32[batch=2, seq=4]", "f32[batch=2, seq=4]"}, .other_dtypes = false},
    {.name = "odd_sizes", .operands = {normal("f32[tokens=5, embed=3]"), normal("f32[vocab=7, embed=3]"), targets("i32[tokens=5]")}, .results = {"f32[tokens=5]", "f32[tokens=5]"}, .other_dtypes = false},
    {.name = "only_lse", .operands = {normal("f32[tokens=4, embed=3]"), normal("f32[vocab=6, embed=3]"), targets("i32[tokens=4]")}, .results = {"f32[tokens=4]", "f32[tokens=4]"}, .upstream = {0}, .other_dtypes = false},
    {.name = "only_target", .operands = {normal("f32[tokens=4, embed=3]"), normal("f32[vocab=6, embed=3]"), targets("i32[tokens=4]")}, .results = {"f32[tokens=4]", "f32[tokens=4]"}, .upstream = {1}, .other_dtypes = false},
    {.name = "upstream_from_batch", .operands = {normal("f32[batch=2, seq=3, embed=4]"), normal("f32[vocab=6, embed=4]"), targets("i32[batch=2, seq=3]")}, .results = {"f32[batch=2, seq=3]", "f32[batch=2, seq=3]"}, .upstream_from_batch = true, .other_dtypes = false},
    {.name = "embed_first", .operands = {normal("f32[embed=4, tokens=3]"), normal("f32[embed=4, vocab=6]"), targets("i32[tokens=3]")}, .results = {"f32[tokens=3]", "f32[tokens=3]"}, .other_dtypes = false},
    {.name = "a_shard", .operands = {constant_of(normal("f32[tokens=8, embed=3]")), constant_of(normal("f32[vocab=3, embed=3]")), targets("i32[tokens=8]"), exactly("i32[]", {3})}, .attributes = {{"offsets", names({"vocab"})}},
     .results = {"f32[tokens=8]", "f32[tokens=8]"}, .other_dtypes = false},
    {.name = "large_logits", .operands = {normal("f32[tokens=4, embed=3]", 20), normal("f32[vocab=6, embed=3]", 20), targets("i32[tokens=4]")}, .results = {"f32[tokens=4]", "f32[tokens=4]"}, .other_dtypes = false},
    {.name = "softcap", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]")}, .attributes = kCapped, .results = {"f32[batch=2, seq=4]", "f32[batch=2, seq=4]"}, .other_dtypes = false},
    {.name = "softcap_upstream_from_batch", .operands = {normal("f32[batch=2, seq=3, embed=4]"), normal("f32[vocab=6, embed=4]"), targets("i32[batch=2, seq=3]")}, .attributes = kCapped, .results = {"f32[batch=2, seq=3]", "f32[batch=2, seq=3]"}, .upstream_from_batch = true, .other_dtypes = false},
    {.name = "softcap_only_target", .operands = {normal("f32[tokens=4, embed=3]"), normal("f32[vocab=6, embed=3]"), targets("i32[tokens=4]")}, .attributes = kCapped, .results = {"f32[tokens=4]", "f32[tokens=4]"}, .upstream = {1}, .other_dtypes = false},
    {.name = "softcap_a_shard", .operands = {constant_of(normal("f32[tokens=8, embed=3]")), constant_of(normal("f32[vocab=3, embed=3]")), targets("i32[tokens=8]"), exactly("i32[]", {3})}, .attributes = {{"offsets", names({"vocab"})}, {"softcap", 30.0}},
     .results = {"f32[tokens=8]", "f32[tokens=8]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[batch=2, seq=4, embed=6]"), normal("bf16[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]")}, .results = {"f32[batch=2, seq=4]", "f32[batch=2, seq=4]"}, .other_dtypes = false},
});

const OpErrors kCrossEntropyErrors("cross_entropy", {
    {{"f32[tokens=4, embed=3]", "f32[vocab=6, mlp=3]", "i32[tokens=4]"}, {}, "expected exactly one common dim"},
    {{"f32[tokens=4, embed=3]", "f32[vocab=6, embed=5]", "i32[tokens=4]"}, {}, "dim 'embed' has two sizes"},
    {{"f32[tokens=4, embed=3]", "f32[embed=3]", "i32[tokens=4]"}, {}, "expected two dims, [vocab, embed]"},
    {{"f32[tokens=4, embed=3]", "f32[vocab=6, embed=3]", "f32[tokens=4]"}, {}, "targets is f32[tokens=4]; expected i32"},
    {{"f32[tokens=4, embed=3]", "f32[vocab=6, embed=3]", "i32[tokens=5]"}, {}, "targets is i32[tokens=5]; expected the dims of x's tokens, i32[tokens=4]"},
    {{"f32[tokens=4, embed=3]", "f32[vocab=0, embed=3]", "i32[tokens=4]"}, {}, "w is f32[vocab=0, embed=3]; expected no empty dim"},
    {{"f32[tokens=4, embed=3]", "f32[vocab=6, embed=3]", "i32[tokens=4]"}, {{"softcap", -30.0}}, "softcap is -30.000000; expected 0 (none) or a positive number"},
    {{"bf16[tokens=4, embed=3]", "f32[vocab=6, embed=3]", "i32[tokens=4]"}, {}, "w is f32[vocab=6, embed=3]; expected bf16"},
});

const OpCases kCrossEntropyGradient("cross_entropy_gradient", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]"), positive("f32[batch=2, seq=4]"), normal("f32[batch=2, seq=4]")}, .attributes = weight_in("f32"),
     .results = {"f32[batch=2, seq=4, embed=6]", "f32[vocab=6, embed=6]"}, .other_dtypes = false},
    {.name = "a_shard", .operands = {normal("f32[tokens=8, embed=3]"), normal("f32[vocab=3, embed=3]"), targets("i32[tokens=8]"), positive("f32[tokens=8]"), normal("f32[tokens=8]"), exactly("i32[]", {3})},
     .attributes = {{"offsets", names({"vocab"})}, {"weight_dtype", "f32"}}, .results = {"f32[tokens=8, embed=3]", "f32[vocab=3, embed=3]"}, .other_dtypes = false},
    {.name = "softcap", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]"), positive("f32[batch=2, seq=4]"), normal("f32[batch=2, seq=4]")}, .attributes = kCappedGradient,
     .results = {"f32[batch=2, seq=4, embed=6]", "f32[vocab=6, embed=6]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[tokens=5, embed=3]"), normal("bf16[vocab=7, embed=3]"), targets("i32[tokens=5]"), positive("f32[tokens=5]"), normal("f32[tokens=5]")}, .attributes = weight_in("f32"),
     .results = {"bf16[tokens=5, embed=3]", "f32[vocab=7, embed=3]"}, .other_dtypes = false},
});

const OpCases kCrossEntropyWithGradients("cross_entropy_with_gradients", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]"), normal("f32[batch=2, seq=4]")}, .attributes = weight_in("f32"),
     .results = {"f32[batch=2, seq=4]", "f32[batch=2, seq=4]", "f32[batch=2, seq=4, embed=6]", "f32[vocab=6, embed=6]"}, .other_dtypes = false},
    {.name = "softcap", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[vocab=6, embed=6]"), targets("i32[batch=2, seq=4]"), normal("f32[batch=2, seq=4]")}, .attributes = kCappedGradient,
     .results = {"f32[batch=2, seq=4]", "f32[batch=2, seq=4]", "f32[batch=2, seq=4, embed=6]", "f32[vocab=6, embed=6]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[tokens=5, embed=3]"), normal("bf16[vocab=7, embed=3]"), targets("i32[tokens=5]"), normal("f32[tokens=5]")}, .attributes = weight_in("f32"),
     .results = {"f32[tokens=5]", "f32[tokens=5]", "bf16[tokens=5, embed=3]", "f32[vocab=7, embed=3]"}, .other_dtypes = false},
});

}  // namespace mw::testing
