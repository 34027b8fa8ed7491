#include "ops/harness.h"

namespace mw::testing {

const OpCases kRmsNorm("rms_norm", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[embed=6]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[batch=2, seq=4, embed=6]"}},
    {.name = "offset_one", .operands = {normal("f32[batch=2, seq=3, embed=5]"), normal("f32[embed=5]")}, .attributes = {{"eps", 1e-6}, {"offset_one", true}}, .results = {"f32[batch=2, seq=3, embed=5]"}},
    {.name = "heads", .operands = {normal("f32[batch=1, seq=3, kv_heads=2, q_per_kv=2, head_dim=8]"), normal("f32[head_dim=8]")}, .attributes = {{"eps", 1e-6}},
     .results = {"f32[batch=1, seq=3, kv_heads=2, q_per_kv=2, head_dim=8]"}},
    {.name = "one_vector", .operands = {normal("f32[embed=7]"), normal("f32[embed=7]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[embed=7]"}},
    {.name = "dim_not_innermost", .operands = {normal("f32[embed=5, seq=4]"), normal("f32[embed=5]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[embed=5, seq=4]"}},
    {.name = "eps_dominates", .operands = {normal("f32[seq=2, embed=4]", 1e-3), normal("f32[embed=4]")}, .attributes = {{"eps", 1e-2}}, .results = {"f32[seq=2, embed=4]"}},
    {.name = "without_weight", .operands = {normal("f32[batch=1, seq=3, kv_heads=2, head_dim=8]")}, .attributes = {{"dim", "head_dim"}, {"eps", 1e-5}}, .results = {"f32[batch=1, seq=3, kv_heads=2, head_dim=8]"}},
    {.name = "without_weight_not_innermost", .operands = {normal("f32[embed=5, seq=4]")}, .attributes = {{"dim", "embed"}, {"eps", 1e-2}}, .results = {"f32[embed=5, seq=4]"}},
    {.name = "f32_weight", .operands = {normal("bf16[seq=2, embed=4]"), normal("f32[embed=4]")}, .attributes = {{"eps", 1e-5}}, .results = {"bf16[seq=2, embed=4]"}, .other_dtypes = false},
});

const OpErrors kRmsNormErrors("rms_norm", {
    {{"f32[seq=2, embed=4]", "f32[mlp=4]"}, {{"eps", 1e-5}}, "there is no dim 'mlp' in f32[seq=2, embed=4]"},
    {{"f32[seq=2, embed=4]", "f32[embed=5]"}, {{"eps", 1e-5}}, "dim 'embed' has two sizes"},
    {{"f32[seq=2, embed=4]", "f32[seq=2, embed=4]"}, {{"eps", 1e-5}}, "expected one dim, the one that is normalised"},
    {{"f32[seq=2, embed=4]", "bf16[embed=4]"}, {{"eps", 1e-5}}, "expected f32 as x, or f32"},
    {{"i32[seq=2, embed=4]", "f32[embed=4]"}, {{"eps", 1e-5}}, "expected a float dtype"},
    {{"f32[seq=2, embed=4]"}, {{"eps", 1e-5}}, "it has 1 operands; expected 2"},
    {{"f32[seq=2, embed=4]"}, {{"dim", "embd"}, {"eps", 1e-5}}, "there is no dim 'embd' in f32[seq=2, embed=4] (did you mean 'embed'?)"},
    {{"i32[seq=2, embed=4]"}, {{"dim", "embed"}, {"eps", 1e-5}}, "expected a float dtype"},
    {{"f32[seq=2, embed=4]", "f32[embed=4]"}, {{"dim", "embed"}, {"eps", 1e-5}}, "it has 2 operands; expected 1, there is no weight beside the attribute dim"},
});

const OpCases kRmsNormGradient("rms_norm_gradient", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[embed=6]"), normal("f32[batch=2, seq=4, embed=6]")},
     .attributes = {{"eps", 1e-5}, {"weight_dtype", "f32"}}, .results = {"f32[batch=2, seq=4, embed=6]", "f32[embed=6]"}, .other_dtypes = false},
    {.name = "offset_one", .operands = {normal("f32[batch=2, seq=3, embed=5]"), normal("f32[embed=5]"), normal("f32[batch=2, seq=3, embed=5]")},
     .attributes = {{"eps", 1e-5}, {"offset_one", true}, {"weight_dtype", "f32"}}, .results = {"f32[batch=2, seq=3, embed=5]", "f32[embed=5]"}, .other_dtypes = false},
    {.name = "without_weight", .operands = {normal("f32[batch=2, seq=3, head_dim=5]"), normal("f32[batch=2, seq=3, head_dim=5]")},
     .attributes = {{"dim", "head_dim"}, {"eps", 1e-5}}, .results = {"f32[batch=2, seq=3, head_dim=5]"}},
    {.name = "without_weight_not_innermost", .operands = {normal("f32[embed=5, seq=4]"), normal("f32[embed=5, seq=4]")},
     .attributes = {{"dim", "embed"}, {"eps", 1e-5}}, .results = {"f32[embed=5, seq=4]"}},
    {.name = "bf16", .operands = {normal("bf16[seq=4, embed=6]"), normal("bf16[embed=6]"), normal("bf16[seq=4, embed=6]")},
     .attributes = {{"eps", 1e-5}, {"weight_dtype", "f32"}}, .results = {"bf16[seq=4, embed=6]", "f32[embed=6]"}, .other_dtypes = false},
});

const OpErrors kRmsNormGradientErrors("rms_norm_gradient", {
    {{"f32[seq=2, embed=4]", "f32[embed=4]", "f32[embed=4, seq=2]"}, {{"eps", 1e-5}, {"weight_dtype", "f32"}}, "expected the dims of x, f32[seq=2, embed=4]"},
});

const OpCases kLayerNorm("layer_norm", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[embed=6]"), normal("f32[embed=6]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[batch=2, seq=4, embed=6]"}},
    {.name = "without_bias", .operands = {normal("f32[batch=2, seq=3, embed=5]"), normal("f32[embed=5]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[batch=2, seq=3, embed=5]"}},
    {.name = "one_vector", .operands = {normal("f32[embed=7]"), normal("f32[embed=7]"), normal("f32[embed=7]")}, .attributes = {{"eps", 1e-5}}, .results = {"f32[embed=7]"}},
});

const OpErrors kLayerNormErrors("layer_norm", {
    {{"f32[seq=2, embed=4]", "f32[embed=4]", "f32[embed=5]"}, {{"eps", 1e-5}}, "bias is f32[embed=5]; expected the dims of weight"},
});

const OpCases kLayerNormGradient("layer_norm_gradient", {
    {.name = "with_bias", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[embed=6]"), normal("f32[batch=2, seq=4, embed=6]")},
     .attributes = {{"bias", true}, {"eps", 1e-5}, {"weight_dtype", "f32"}}, .results = {"f32[batch=2, seq=4, embed=6]", "f32[embed=6]", "f32[embed=6]"}, .other_dtypes = false},
    {.name = "without_bias", .operands = {normal("f32[seq=3, embed=5]"), normal("f32[embed=5]"), normal("f32[seq=3, embed=5]")},
     .attributes = {{"eps", 1e-5}, {"weight_dtype", "f32"}}, .results = {"f32[seq=3, embed=5]", "f32[embed=5]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[seq=4, embed=6]"), normal("bf16[embed=6]"), normal("bf16[seq=4, embed=6]")},
     .attributes = {{"bias", true}, {"eps", 1e-5}, {"weight_dtype", "f32"}}, .results = {"bf16[seq=4, embed=6]", "f32[embed=6]", "f32[embed=6]"}, .other_dtypes = false},
});

}  // namespace mw::testing
