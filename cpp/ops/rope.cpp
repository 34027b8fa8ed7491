// rope: rotates the pairs (x_a, x_b) along the innermost dim by an angle of their own (Su et al. 2021):
//   y_a = x_a cos - x_b sin,  y_b = x_b cos + x_a sin,  angle = position * frequency, formed in FP32 as transformers does.
#include "ops/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

const std::vector<std::string> kPairings{"half", "interleaved"};
const std::vector<std::string> kScalings{"none", "linear", "llama3", "yarn"};

void expect_choice(const std::string& what, const std::string& value, const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string text;
  for (const std::string& choice : choices) text += (text.empty() ? "'" : ", '") + choice + "'";
  throw UserError("rope " + what + " is '" + value + "'; expected one of " + text + did_you_mean(value, choices));
}

void check_attributes(const RopeAttributes& rope) {
  expect_choice("pairing", rope.pairing, kPairings);
  expect_choice("scaling", rope.scaling, kScalings);
  if (!(rope.theta > 0)) throw UserError("rope theta is " + std::to_string(rope.theta) + "; expected a positive number");
  if (rope.scaling != "none" && !(rope.factor > 0))
    throw UserError("rope factor is " + std::to_string(rope.factor) + "; expected a positive number");
  if (rope.scaling == "llama3" && !(rope.low_freq_factor > 0 && rope.high_freq_factor >= rope.low_freq_factor)) {
    throw UserError("rope low_freq_factor is " + std::to_string(rope.low_freq_factor) + " and high_freq_factor " +
                    std::to_string(rope.high_freq_factor) + "; expected 0 < low_freq_factor <= high_freq_factor");
  }
  if (rope.scaling == "yarn") {
    if (!(rope.beta_slow > 0 && rope.beta_fast > rope.beta_slow)) {
      throw UserError("rope beta_fast is " + std::to_string(rope.beta_fast) + " and beta_slow " + std::to_string(rope.beta_slow) +
                      "; expected 0 < beta_slow < beta_fast");
    }
    if (!(rope.theta > 1)) throw UserError("rope theta is " + std::to_string(rope.theta) + "; yarn expects a number above 1");
    if (rope.original_positions < 1)
      throw UserError("rope original_positions is " + std::to_string(rope.original_positions) + "; expected 1 or more");
  }
}

// Llama 3.1: long waves are slowed down by `factor`, short ones kept, those between interpolated.
float llama3_frequency(const RopeAttributes& rope, float frequency) {
  const float factor = static_cast<float>(rope.factor), low = static_cast<float>(rope.low_freq_factor);
  const double positions = static_cast<double>(rope.original_positions);
  // torch divides a number by a tensor as reciprocal times number.
  const float wavelength = (1.0f / frequency) * static_cast<float>(2 * std::numbers::pi);
  const float longest = static_cast<float>(positions / rope.low_freq_factor),
              shortest = static_cast<float>(positions / rope.high_freq_factor);
  if (wavelength > longest) return frequency / factor;
  if (wavelength < shortest || rope.high_freq_factor == rope.low_freq_factor) return frequency;  // Llama 4 has none between
  const float smooth =
      ((1.0f / wavelength) * static_cast<float>(positions) - low) / static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

// YaRN (Peng et al. 2023): the pairs between `low` and `high`, which turn beta_fast and beta_slow times within the original positions,
// go over from their own frequency to one slowed down by `factor`.
struct YarnRange {
  double low, high;

  YarnRange(const RopeAttributes& rope, int64_t head_dim) {
    const auto pair_of = [&](double turns) {
      const double positions = static_cast<double>(rope.original_positions), size = static_cast<double>(head_dim);
      return size * std::log(positions / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
    };
    low = pair_of(rope.beta_fast);
    high = pair_of(rope.beta_slow);
    if (rope.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;
  }
  // FP32 step by step as torch's tensors go.
  float frequency(const RopeAttributes& rope, int64_t pair, float power) const {
    const float ramp = (static_cast<float>(pair) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    const float slowed = 1.0f / (static_cast<float>(rope.factor) * power);
    return slowed * (1.0f - kept) + 1.0f / power * kept;
  }
};

void check_positions(const Type& positions) { expect_dtype("positions", positions, DType::kI32); }

// ---- rope_angles: what the decomposition starts from ----

std::vector<Type> infer_angles(const Signature& signature) {
  check_positions(signature.operand(0));
  check_attributes(RopeAttributes::from(*signature.attributes));
  Type result{DType::kF32, signature.operand(0).dims};
  result.dims.push_back({signature.attributes->text("dim"), signature.attributes->integer("pairs")});
  return {result};
}

DimRole role_angles(const Signature& signature, std::string_view dim) {
  return {.use = dim == signature.attributes->text("dim") ? DimUse::kWhole : DimUse::kMapped};
}

void reference_angles(const ReferenceContext& context) {
  const HostArray& positions = context.operand(0);
  const int64_t pairs = context.attributes->integer("pairs");
  const std::vector<float> frequencies = rope_frequencies(RopeAttributes::from(*context.attributes), 2 * pairs);
  for (size_t i = 0; i < context.result(0).data.size(); ++i) {
    const size_t n = static_cast<size_t>(pairs);
    context.result(0).data[i] = static_cast<float>(positions.data[i / n]) * frequencies[i % n];
  }
}

// ---- rope ----

std::vector<Type> infer(const Signature& signature) {
  const Type &x = signature.operand(0), &positions = signature.operand(1);
  expect_float("x", x);
  check_positions(positions);
  check_attributes(RopeAttributes::from(*signature.attributes));
  if (x.dims.empty() || x.dims.back().size % 2 != 0)
    throw UserError("x is " + to_string(x) + "; expected an innermost dim of even size, whose halves are rotated");
  for (const Dim& dim : positions.dims) {
    if (dim.name == x.dims.back().name)
      throw UserError("positions are " + to_string(positions) + "; expected no dim '" + dim.name + "', along which x is rotated");
    expect_same_size(dim.name, "x", x, "positions", positions);
  }
  return {x};
}

DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = dim == signature.operand(0).dims.back().name ? DimUse::kWhole : DimUse::kMapped};
}

// The same rotation backwards.
void gradient(GradientContext& context) {
  RopeAttributes back = RopeAttributes::from(context.attributes());
  back.inverse = !back.inverse;
  context.gradients[0] =
      cast(rope(cast(*context.upstream[0], context.operands[0].dtype()), context.operands[1], back), context.gradient_dtype(0));
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = 3.0 * static_cast<double>(signature.operand(0).elements());
  return cost;
}

void reference(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &positions = context.operand(1);
  const RopeAttributes rope = RopeAttributes::from(*context.attributes);
  const Dim last = x.type.dims.back();
  const int64_t pairs = last.size / 2;
  const std::vector<float> frequencies = rope_frequencies(rope, last.size);
  const bool half = rope.pairing == "half";
  LoopNest(without(x.type, {last.name}), {&x.type, &positions.type}).run([&](int64_t, const int64_t* at) {
    for (int64_t i = 0; i < pairs; ++i) {
      const double angle = static_cast<float>(positions.data[static_cast<size_t>(at[1])]) * frequencies[static_cast<size_t>(i)];
      const double c = std::cos(angle) * rope.attention_factor, s = std::sin(angle) * (rope.inverse ? -1 : 1) * rope.attention_factor;
      const size_t a = static_cast<size_t>(at[0] + (half ? i : 2 * i)), b = static_cast<size_t>(at[0] + (half ? i + pairs : 2 * i + 1));
      context.result(0).data[a] = x.data[a] * c - x.data[b] * s;
      context.result(0).data[b] = x.data[b] * c + x.data[a] * s;
    }
  });
}

extern const std::array<OpDef, 2> kDefs;

std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0];
  const RopeAttributes rope = RopeAttributes::from(attributes);
  const std::string dim = x.type().dims.back().name;
  const int64_t pairs = x.type().dims.back().size / 2;
  const bool half = rope.pairing == "half";
  Attributes angle_attributes = attributes;
  angle_attributes.set("dim", dim);
  angle_attributes.set("pairs", pairs);
  const Tensor angles = x.builder->append1(kDefs[1], {operands[1]}, std::move(angle_attributes), Source::here());
  const Tensor c = cast(unary("cos", angles) * rope.attention_factor, x.dtype());
  const Tensor s = cast(unary("sin", angles) * (rope.inverse ? -rope.attention_factor : rope.attention_factor), x.dtype());
  const Tensor split_x = half ? x : split(x, dim, {{dim, pairs}, {"pair", 2}});
  const auto part = [&](int64_t which) {
    return half ? slice(x, dim, which * pairs, pairs) : merge(slice(split_x, "pair", which, 1), {dim, "pair"}, dim);
  };
  const auto joined = [&](Tensor a, Tensor b) {
    if (half) return concat({a, b}, dim);
    return merge(concat({split(a, dim, {{dim, pairs}, {"pair", 1}}), split(b, dim, {{dim, pairs}, {"pair", 1}})}, "pair"), {dim, "pair"},
                 dim);
  };
  const Tensor a = part(0), b = part(1);
  return {joined(a * c - b * s, b * c + a * s)};
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "rope",
          .doc = "Rotary position embedding (Su et al. 2021): pairs along the innermost dim are rotated by position * frequency, formed in "
                 "FP32. "
                 "pairing half: (i, i + d/2); interleaved: (2i, 2i + 1). scaling linear, llama3 and yarn (Peng et al. "
                 "2023) as in transformers' modeling_rope_utils. inverse rotates back.",
          .num_operands = 2,
          .infer = infer,
          .role = role,
          .gradient = gradient,
          .cost = cost,
          .reference = reference,
          .decompose = decompose},
    OpDef{.name = "rope_angles",
          .doc = "positions[..] -> f32[.., dim = pairs]: position * frequency of each pair, formed in FP32; what rope decomposes into, "
                 "with cos and sin.",
          .num_operands = 1,
          .infer = infer_angles,
          .role = role_angles,
          .reference = reference_angles},
};

}  // namespace

std::span<const OpDef> rope_ops() { return kDefs; }

Attributes RopeAttributes::to_attributes() const {
  Attributes attributes{{"theta", theta}, {"pairing", pairing}};
  if (scaling != "none") {
    attributes.set("scaling", scaling);
    attributes.set("factor", factor);
  }
  if (scaling == "llama3") {
    attributes.set("low_freq_factor", low_freq_factor);
    attributes.set("high_freq_factor", high_freq_factor);
    attributes.set("original_positions", original_positions);
  }
  if (scaling == "yarn") {
    attributes.set("beta_fast", beta_fast);
    attributes.set("beta_slow", beta_slow);
    attributes.set("original_positions", original_positions);
    if (!truncate) attributes.set("truncate", false);
  }
  if (attention_factor != 1.0) attributes.set("attention_factor", attention_factor);
  if (inverse) attributes.set("inverse", true);
  return attributes;
}

RopeAttributes RopeAttributes::from(const Attributes& attributes) {
  RopeAttributes rope;
  rope.theta = attributes.number("theta");
  rope.pairing = attributes.text("pairing");
  rope.scaling = attributes.text_or("scaling", rope.scaling);
  rope.factor = attributes.number_or("factor", rope.factor);
  rope.low_freq_factor = attributes.number_or("low_freq_factor", rope.low_freq_factor);
  rope.high_freq_factor = attributes.number_or("high_freq_factor", rope.high_freq_factor);
  rope.original_positions = attributes.integer_or("original_positions", rope.original_positions);
  rope.beta_fast = attributes.number_or("beta_fast", rope.beta_fast);
  rope.beta_slow = attributes.number_or("beta_slow", rope.beta_slow);
  rope.truncate = attributes.flag_or("truncate", rope.truncate);
  rope.attention_factor = attributes.number_or("attention_factor", rope.attention_factor);
  rope.inverse = attributes.flag_or("inverse", false);
  return rope;
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

double yarn_attention_factor(double factor, double mscale, double mscale_all_dim) {
  if (mscale != 0 && mscale_all_dim != 0) return yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim);
  return yarn_mscale(factor);
}

std::vector<float> rope_frequencies(const RopeAttributes& rope, int64_t head_dim) {
  check_attributes(rope);
  std::vector<float> frequencies;
  const std::optional<YarnRange> yarn = rope.scaling == "yarn" ? std::optional<YarnRange>(std::in_place, rope, head_dim) : std::nullopt;
  for (int64_t i = 0; i < head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    // A power rounded once; torch's vectorised one is at most one unit in the last place away, and seldom.
    const float power = static_cast<float>(std::pow(static_cast<double>(static_cast<float>(rope.theta)), static_cast<double>(exponent)));
    float frequency = 1.0f / power;
    if (rope.scaling == "linear") frequency /= static_cast<float>(rope.factor);
    if (rope.scaling == "llama3") frequency = llama3_frequency(rope, frequency);
    if (yarn) frequency = yarn->frequency(rope, i / 2, power);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

Tensor rope(Tensor x, Tensor positions, const RopeAttributes& rope, Source source) {
  return x.builder->append1(kDefs[0], {x, positions}, rope.to_attributes(), source);
}

}  // namespace mw
