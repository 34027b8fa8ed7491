#include "ops/harness.h"
#include "ops/rope.h"

namespace mw::testing {
namespace {

Attributes rope_of(RopeAttributes rope) { return rope.to_attributes(); }

Attributes angles_of(RopeAttributes rope, std::string dim, int64_t pairs) {
  Attributes attributes = rope.to_attributes();
  attributes.set("dim", std::move(dim));
  attributes.set("pairs", pairs);
  return attributes;
}

const RopeAttributes kLlama3{.theta = 500000, .scaling = "llama3", .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_positions = 32};

const RopeAttributes kYarn{.theta = 10000, .pairing = "interleaved", .scaling = "yarn", .factor = 40, .original_positions = 4096};
const RopeAttributes kGptOss{.theta = 150000, .scaling = "yarn", .factor = 32, .original_positions = 4096, .truncate = false, .attention_factor = 1.3465735902799727};

}  // namespace

const OpCases kRope("rope", {
    {.name = "half", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=8]"), ids("i32[batch=2, seq=4]", 0, 100)}, .attributes = rope_of({}),
     .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=8]"}},
    {.name = "interleaved", .operands = {normal("f32[batch=2, seq=3, kv_heads=2, head_dim=6]"), ids("i32[batch=2, seq=3]", 0, 100)}, .attributes = rope_of({.pairing = "interleaved"}),
     .results = {"f32[batch=2, seq=3, kv_heads=2, head_dim=6]"}},
    {.name = "inverse", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, head_dim=4]"), ids("i32[batch=1, seq=3]", 0, 50)}, .attributes = rope_of({.inverse = true}),
     .results = {"f32[batch=1, seq=3, kv_heads=1, head_dim=4]"}},
    {.name = "linear", .operands = {normal("f32[batch=1, seq=5, kv_heads=1, head_dim=10]"), ids("i32[batch=1, seq=5]", 0, 5000)}, .attributes = rope_of({.scaling = "linear", .factor = 4}),
     .results = {"f32[batch=1, seq=5, kv_heads=1, head_dim=10]"}},
    {.name = "llama3_long_positions", .operands = {normal("f32[batch=1, seq=4, kv_heads=2, head_dim=16]"), ids("i32[batch=1, seq=4]", 100000, 31000)}, .attributes = rope_of(kLlama3),
     .results = {"f32[batch=1, seq=4, kv_heads=2, head_dim=16]"}},
    {.name = "llama3_without_a_range_between", .operands = {normal("f32[batch=1, seq=4, kv_heads=2, head_dim=16]"), ids("i32[batch=1, seq=4]", 0, 9000)}, .attributes = rope_of({.theta = 500000, .scaling = "llama3", .factor = 16, .high_freq_factor = 1}),
     .results = {"f32[batch=1, seq=4, kv_heads=2, head_dim=16]"}},
    {.name = "yarn", .operands = {normal("f32[batch=1, seq=4, kv_heads=2, head_dim=16]"), ids("i32[batch=1, seq=4]", 4000, 100000)}, .attributes = rope_of(kYarn),
     .results = {"f32[batch=1, seq=4, kv_heads=2, head_dim=16]"}},
    {.name = "yarn_without_truncation", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, head_dim=64]"), ids("i32[batch=1, seq=3]", 0, 130000)}, .attributes = rope_of(kGptOss),
     .results = {"f32[batch=1, seq=3, kv_heads=1, head_dim=64]"}},
    {.name = "attention_factor", .operands = {normal("f32[batch=1, seq=2, rope_dim=4]"), ids("i32[batch=1, seq=2]", 0, 9)}, .attributes = rope_of({.pairing = "interleaved", .attention_factor = 1.25}),
     .results = {"f32[batch=1, seq=2, rope_dim=4]"}},
    {.name = "positions_of_seq_alone", .operands = {normal("f32[batch=2, seq=2, kv_heads=3, head_dim=2]"), ids("i32[seq=2]", 0, 9)}, .attributes = rope_of({}),
     .results = {"f32[batch=2, seq=2, kv_heads=3, head_dim=2]"}},
});

const OpErrors kRopeErrors("rope", {
    {{"f32[seq=2, head_dim=5]", "i32[seq=2]"}, rope_of({}), "expected an innermost dim of even size"},
    {{"f32[seq=2, head_dim=4]", "f32[seq=2]"}, rope_of({}), "positions is f32[seq=2]; expected i32"},
    {{"f32[seq=2, head_dim=4]", "i32[batch=2]"}, rope_of({}), "there is no dim 'batch' in f32[seq=2, head_dim=4]"},
    {{"f32[seq=2, head_dim=4]", "i32[head_dim=4]"}, rope_of({}), "expected no dim 'head_dim'"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.pairing = "halve"}), "rope pairing is 'halve'; expected one of 'half', 'interleaved' (did you mean 'half'?)"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.scaling = "lama3"}), "did you mean 'llama3'?"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.scaling = "llama3", .low_freq_factor = 4, .high_freq_factor = 1}), "expected 0 < low_freq_factor <= high_freq_factor"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.scaling = "yarn", .beta_fast = 1, .beta_slow = 32}), "rope beta_fast is 1.000000 and beta_slow 32.000000; expected 0 < beta_slow < beta_fast"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.theta = 1, .scaling = "yarn"}), "rope theta is 1.000000; yarn expects a number above 1"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.scaling = "yarn", .original_positions = 0}), "rope original_positions is 0; expected 1 or more"},
    {{"f32[seq=2, head_dim=4]", "i32[seq=2]"}, rope_of({.theta = 0}), "rope theta is 0.000000; expected a positive number"},
});

const OpCases kRopeAngles("rope_angles", {
    {.name = "plain", .operands = {ids("i32[batch=2, seq=4]", 0, 1000)}, .attributes = angles_of({}, "head_dim", 3), .results = {"f32[batch=2, seq=4, head_dim=3]"}, .other_dtypes = false},
    {.name = "yarn", .operands = {ids("i32[seq=4]", 0, 100000)}, .attributes = angles_of(kGptOss, "head_dim", 32), .results = {"f32[seq=4, head_dim=32]"}, .other_dtypes = false},
    {.name = "llama3", .operands = {ids("i32[seq=4]", 0, 100000)}, .attributes = angles_of(kLlama3, "head_dim", 8), .results = {"f32[seq=4, head_dim=8]"}, .other_dtypes = false},
});

}  // namespace mw::testing
