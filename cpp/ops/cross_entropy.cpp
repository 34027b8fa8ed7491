// cross_entropy over a vocabulary projection: with logits l_v = x . w_v (never held), lse = log sum_v exp(l_v), and l_target.
//   nll = lse - l_target;   for upstream u_lse, u_t:  dl_v = u_lse softmax_v + u_t [v = target],  dx = sum_v dl_v w_v,  dw_v = sum_tokens
//   dl_v x
// With a softcap c (Gemma 2; 0: none), z_v = x . w_v, l_v = c tanh(z_v / c), and dz_v = dl_v (1 - (l_v / c)^2) takes dl_v's place.
#include "ops/cross_entropy.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/gather.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

// x and w share one dim (embed); w's other dim is the vocabulary.
struct Dims {
  Dim embed, vocab;
  std::vector<Dim> tokens;
};

Dims dims_of(const Type& x, const Type& w) {
  if (w.rank() != 2) throw UserError("w is " + to_string(w) + "; expected two dims, [vocab, embed]");
  const bool second = x.has(w.dims[1].name);
  const Dim embed = w.dims[second ? 1 : 0], vocab = w.dims[second ? 0 : 1];
  if (!x.has(embed.name) || x.has(vocab.name))
    throw UserError("x is " + to_string(x) + " and w " + to_string(w) + "; expected exactly one common dim, the one that is contracted");
  expect_same_size(embed.name, "x", x, "w", w);
  if (embed.size == 0 || vocab.size == 0) throw UserError("w is " + to_string(w) + "; expected no empty dim");
  return {embed, vocab, without(x, {embed.name})};
}

double softcap_of(const Attributes& attributes) { return attributes.number_or("softcap", 0); }

Dims check(const Signature& signature) {
  const Type &x = signature.operand(0), &w = signature.operand(1), &targets = signature.operand(2);
  expect_float("x", x);
  expect_dtype("w", w, x.dtype);
  const Dims dims = dims_of(x, w);
  expect_dtype("targets", targets, DType::kI32);
  expect_same_dims("targets", targets, "x's tokens", dims.tokens);
  const double softcap = softcap_of(*signature.attributes);
  if (!(softcap >= 0) || !std::isfinite(softcap))
    throw UserError("softcap is " + std::to_string(softcap) + "; expected 0 (none) or a positive number");
  return dims;
}

void expect_per_token(std::string_view name, const Type& type, const Dims& dims) {
  expect_dtype(name, type, DType::kF32);
  expect_same_dims(name, type, "x's tokens", dims.tokens);
}

template <int products>
Cost cost(const Signature& signature) {
  const Dims dims = dims_of(signature.operand(0), signature.operand(1));
  Cost cost = default_cost(signature);
  cost.flops = 2.0 * products * static_cast<double>(signature.operand(0).elements()) * static_cast<double>(dims.vocab.size);
  return cost;
}

// dl / dz of a logit l, capped or not.
double slope_of(double logit, double softcap) { return softcap > 0 ? 1 - (logit / softcap) * (logit / softcap) : 1; }

// The logits of one token, and where its target stands among them (-1: nowhere). body(token, logits, target, x's offset).
template <typename Body>
void for_each_token(const ReferenceContext& context, Body&& body) {
  const HostArray &x = context.operand(0), &w = context.operand(1), &targets = context.operand(2);
  const Dims dims = dims_of(x.type, w.type);
  const bool sharded = !context.attributes->names_or_empty("offsets").empty();
  const int64_t offset = sharded ? static_cast<int64_t>(context.operands.back()->data.at(0)) : 0;
  const double softcap = softcap_of(*context.attributes);
  const int64_t x_step = x.type.strides()[static_cast<size_t>(x.type.index_of(dims.embed.name))];
  const LoopNest products({dims.vocab, dims.embed}, {&w.type});
  std::vector<double> logits(static_cast<size_t>(dims.vocab.size));
  LoopNest(dims.tokens, {&x.type}).run([&](int64_t token, const int64_t* at) {
    std::fill(logits.begin(), logits.end(), 0.0);
    products.run([&](int64_t i, const int64_t* w_at) {
      logits[static_cast<size_t>(i / dims.embed.size)] +=
          x.data[static_cast<size_t>(at[0] + i % dims.embed.size * x_step)] * w.data[static_cast<size_t>(w_at[0])];
    });
    for (double& logit : logits) logit = softcap > 0 ? softcap * std::tanh(logit / softcap) : logit;
    const int64_t target = static_cast<int64_t>(targets.data[static_cast<size_t>(token)]);
    const bool here = target >= 0 && target >= offset && target < offset + dims.vocab.size;
    body(static_cast<size_t>(token), logits, here ? target - offset : -1, at[0]);
  });
}

double log_sum_exp(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// lse and target's logit into results 0 and 1.
void reference_forward(const ReferenceContext& context) {
  for_each_token(context, [&](size_t token, const std::vector<double>& logits, int64_t target, int64_t) {
    context.result(0).data[token] = log_sum_exp(logits);
    context.result(1).data[token] = target < 0 ? 0.0 : logits[static_cast<size_t>(target)];
  });
}

// dx and dw from g (softmax - onehot); `lse` null: the tokens' own.
void reference_backward(const ReferenceContext& context, const HostArray* lse, const HostArray& g, HostArray& dx, HostArray& dw) {
  const HostArray &x = context.operand(0), &w = context.operand(1);
  const Dims dims = dims_of(x.type, w.type);
  const double softcap = softcap_of(*context.attributes);
  const int64_t x_step = x.type.strides()[static_cast<size_t>(x.type.index_of(dims.embed.name))];
  const LoopNest products({dims.vocab, dims.embed}, {&w.type});
  for_each_token(context, [&](size_t token, const std::vector<double>& logits, int64_t target, int64_t start) {
    const double total = lse ? lse->data[token] : log_sum_exp(logits);
    products.run([&](int64_t i, const int64_t* w_at) {
      const int64_t v = i / dims.embed.size;
      const size_t at_x = static_cast<size_t>(start + i % dims.embed.size * x_step), at_w = static_cast<size_t>(w_at[0]);
      const double logit = logits[static_cast<size_t>(v)];
      const double dlogit = g.data[token] * (std::exp(logit - total) - (v == target ? 1.0 : 0.0)) * slope_of(logit, softcap);
      dx.data[at_x] += dlogit * w.data[at_w];
      dw.data[at_w] += dlogit * x.data[at_x];
    });
  });
}

// ---- cross_entropy: x, w, targets [, offset] -> lse, target_logit ----

std::vector<Type> infer(const Signature& signature) {
  expect_operands(signature, 3);
  const Type per_token{DType::kF32, check(signature).tokens};
  return {per_token, per_token};
}

DimRole role(const Signature& signature, std::string_view dim) {
  const Dims dims = dims_of(signature.operand(0), signature.operand(1));
  if (dim == dims.vocab.name) return {.use = DimUse::kContracted, .needs_offset = true};
  return {.use = dim == dims.embed.name ? DimUse::kWhole : DimUse::kMapped};
}

PartialKind partial(const Signature&, std::string_view, size_t result) { return result == 0 ? PartialKind::kLogSumExp : PartialKind::kSum; }

// d upstream / dz from that of l, where logits are capped.
Tensor times_slope(Tensor upstream, Tensor logits, double softcap) {
  return softcap > 0 ? upstream * (-square(logits * (1 / softcap)) + 1.0) : upstream;
}

// Logits and the one-hot of the targets (u8), both [tokens.., vocab].
struct Logits {
  Tensor logits, onehot;
};
Logits logits_of(const std::vector<Tensor>& operands, const Attributes& attributes, const Dims& dims) {
  Builder& builder = *operands[0].builder;
  Tensor logits = dot(operands[0], operands[1], {dims.embed.name}, DType::kF32);
  if (const double softcap = softcap_of(attributes); softcap > 0) logits = unary("tanh", logits * (1 / softcap)) * softcap;
  Tensor index = iota(builder, dims.vocab);
  if (!attributes.names_or_empty("offsets").empty()) index = index + operands.back();
  return {logits, binary("eq", broadcast_to(operands[2], logits.type().with_dtype(DType::kI32)), index)};
}

std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Dims dims = dims_of(operands[0].type(), operands[1].type());
  const auto [logits, onehot] = logits_of(operands, attributes, dims);
  const Tensor largest = reduce_max(logits, {dims.vocab.name});
  const Tensor lse = largest + log(reduce_sum(exp(logits - largest), {dims.vocab.name}));
  return {lse, reduce_sum(select(onehot, logits, constant(*logits.builder, 0.0)), {dims.vocab.name})};
}

void gradient(GradientContext& context);

// ---- cross_entropy_gradient: x, w, targets, lse, g [, offset] -> dx, dw ----

Type weight_gradient_type(const Signature& signature) {
  return signature.operand(1).with_dtype(parse_dtype(signature.attributes->text("weight_dtype")));
}

std::vector<Type> infer_gradient(const Signature& signature) {
  expect_operands(signature, 5);
  const Dims dims = check(signature);
  expect_per_token("lse", signature.operand(3), dims);
  expect_per_token("the upstream gradient", signature.operand(4), dims);
  return {signature.operand(0), weight_gradient_type(signature)};
}

// A shard of the vocabulary leaves dx partial, a shard of the tokens dw.
DimRole role_gradient(const Signature& signature, std::string_view dim) {
  const Dims dims = dims_of(signature.operand(0), signature.operand(1));
  if (dim == dims.embed.name) return {.use = DimUse::kWhole};
  return {.use = DimUse::kContracted, .needs_offset = dim == dims.vocab.name};
}

void reference_gradient(const ReferenceContext& context) {
  reference_backward(context, context.operands[3], context.operand(4), context.result(0), context.result(1));
}

std::vector<Tensor> decompose_gradient(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0], w = operands[1], lse = operands[3], g = operands[4];
  const Dims dims = dims_of(x.type(), w.type());
  const auto [logits, onehot] = logits_of(operands, attributes, dims);
  const Tensor upstream = (exp(logits - lse) - cast(onehot, DType::kF32)) * g;
  const Tensor dlogits = cast(times_slope(upstream, logits, softcap_of(attributes)), x.dtype());
  std::vector<std::string> tokens;
  for (const Dim& dim : dims.tokens) tokens.push_back(dim.name);
  const Tensor dx = dot(dlogits, w, {dims.vocab.name}), dw = dot(dlogits, x, tokens, parse_dtype(attributes.text("weight_dtype")));
  return {reorder(dx, x.type().dim_names()), reorder(dw, w.type().dim_names())};
}

// ---- cross_entropy_with_gradients: x, w, targets, g -> lse, target_logit, dx, dw ----

std::vector<Type> infer_with_gradients(const Signature& signature) {
  expect_operands(signature, 4);
  const Dims dims = check(signature);
  expect_per_token("the upstream gradient", signature.operand(3), dims);
  const Type per_token{DType::kF32, dims.tokens};
  return {per_token, per_token, signature.operand(0), weight_gradient_type(signature)};
}

DimRole role_with_gradients(const Signature& signature, std::string_view dim) {
  const Dims dims = dims_of(signature.operand(0), signature.operand(1));
  return {.use = dim == dims.embed.name || dim == dims.vocab.name ? DimUse::kWhole : DimUse::kContracted};
}

void reference_with_gradients(const ReferenceContext& context) {
  reference_forward(context);
  reference_backward(context, nullptr, context.operand(3), context.result(2), context.result(3));
}

std::vector<Tensor> decompose_with_gradients(const std::vector<Tensor>& operands, const Attributes& attributes);

const std::array<OpDef, 3> kDefs{
    OpDef{.name = "cross_entropy",
          .doc = "x[.., embed], w[vocab, embed], targets[..] -> lse = log sum_v exp(x . w_v) and x . w_target (0 where the target is not "
                 "in the vocabulary "
                 "or not in this shard of it), without holding tokens x vocab. The negative log-likelihood is their difference. softcap c "
                 "(Gemma 2): c tanh(x . w_v / c) takes the place of each x . w_v.",
          .num_operands = 3,
          .infer = infer,
          .role = role,
          .partial = partial,
          .gradient = gradient,
          .cost = cost<1>,
          .reference = reference_forward,
          .decompose = decompose},
    OpDef{.name = "cross_entropy_gradient",
          .doc =
              "x, w, targets, lse, g -> dx, dw for dlogits = g (softmax - onehot), times 1 - (logit / softcap)^2 where there is a softcap; "
              "recomputes the logits.",
          .num_operands = 5,
          .infer = infer_gradient,
          .role = role_gradient,
          .cost = cost<3>,
          .reference = reference_gradient,
          .decompose = decompose_gradient},
    OpDef{.name = "cross_entropy_with_gradients",
          .doc = "x, w, targets, g -> lse, x . w_target, dx, dw: cross_entropy and its gradient in one visit of the logits, where g is "
                 "known from the batch alone.",
          .num_operands = 4,
          .infer = infer_with_gradients,
          .role = role_with_gradients,
          .cost = cost<3>,
          .reference = reference_with_gradients,
          .decompose = decompose_with_gradients,
          .decompose_when_sharded = true},
};

Attributes softcap_attributes(double softcap) { return softcap == 0 ? Attributes{} : Attributes{{"softcap", softcap}}; }

std::vector<Tensor> decompose_with_gradients(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0], w = operands[1], targets = operands[2], g = operands[3];
  const std::vector<Tensor> forward =
      x.builder->append(kDefs[0], {x, w, targets}, softcap_attributes(softcap_of(attributes)), Source::here());
  const std::vector<Tensor> backward = x.builder->append(kDefs[1], {x, w, targets, forward[0], g}, attributes, Source::here());
  return {forward[0], forward[1], backward[0], backward[1]};
}

// u is -g: the same value under `neg`, as the gradient of lse - target_logit gives it.
bool is_negated(Tensor u, Tensor g) {
  const Program& program = u.builder->program();
  const int32_t producer = program.values[static_cast<size_t>(u.id)].producer;
  if (producer < 0) return false;
  const Op& op = program.ops[static_cast<size_t>(producer)];
  return op.def->name == "neg" && op.operands[0] == g.id;
}

void add(std::optional<Tensor>& sum, Tensor term) { sum = sum ? *sum + term : term; }

// dlogits = g (softmax - onehot) + extra onehot with g = u_lse, extra = u_t + u_lse; a plain nll has no extra. Both times the slope
// of the softcap.
void gradient(GradientContext& context) {
  const Tensor x = context.operands[0], w = context.operands[1], targets = context.operands[2];
  MW_CHECK(context.operands.size() == 3, "cross_entropy is differentiated before it is partitioned");
  const double softcap = softcap_of(context.attributes());
  const std::optional<Tensor> g = context.upstream[0], target_upstream = context.upstream[1];
  std::optional<Tensor> extra;
  if (!g) {
    extra = target_upstream;
  } else if (!target_upstream) {
    extra = g;
  } else if (!is_negated(*target_upstream, *g)) {
    extra = *target_upstream + *g;
  }
  if (g) {
    Attributes attributes = softcap_attributes(softcap);
    attributes.set("weight_dtype", std::string(dtype_name(context.gradient_dtype(1))));
    std::vector<Tensor> gradients;
    if (context.depends_on_parameters && !context.depends_on_parameters(*g)) {
      // The forward op dies: whoever reads its results reads the fused op's (GradientContext::replacements).
      const std::vector<Tensor> fused = context.builder.append(kDefs[2], {x, w, targets, *g}, attributes, Source::here());
      context.replacements.assign(fused.begin(), fused.begin() + 2);
      gradients.assign(fused.begin() + 2, fused.end());
    } else {
      gradients = context.builder.append(kDefs[1], {x, w, targets, context.results[0], *g}, attributes, Source::here());
    }
    for (size_t i = 0; i < 2; ++i) context.gradients[i] = cast(gradients[i], context.gradient_dtype(i));
  }
  if (!extra) return;
  const bool replaced = context.replacements.size() > 1 && context.replacements[1];
  extra = times_slope(*extra, replaced ? *context.replacements[1] : context.results[1], softcap);
  const Dims dims = dims_of(x.type(), w.type());
  const Tensor rows = cast(gather_rows(w, targets, dims.vocab.name), DType::kF32) * *extra;
  add(context.gradients[0], reorder(cast(rows, context.gradient_dtype(0)), x.type().dim_names()));
  const Tensor scattered = scatter_rows(cast(x, DType::kF32) * *extra, targets, dims.vocab, context.gradient_dtype(1));
  add(context.gradients[1], reorder(scattered, w.type().dim_names()));
}

}  // namespace

std::span<const OpDef> cross_entropy_ops() { return kDefs; }

Tensor cross_entropy(Tensor x, Tensor w, Tensor targets, double softcap, Source source) {
  const std::vector<Tensor> results = x.builder->append(kDefs[0], {x, w, targets}, softcap_attributes(softcap), source);
  const Tensor counted = binary("ge", targets, constant(*x.builder, 0.0, Type{DType::kI32, {}}, source), source);
  return binary("mul", binary("sub", results[0], results[1], source), cast(counted, DType::kF32, source), source);
}

}  // namespace mw
