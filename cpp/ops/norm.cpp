// rms_norm and layer_norm over the one dim of their weight, and their gradients.
//   rms:    n = x r,              r = (mean(x^2) + eps)^-1/2                  (Zhang and Sennrich 2019)
//   layer:  n = (x - mean(x)) r,  r = (mean((x - mean(x))^2) + eps)^-1/2      (Ba, Kiros and Hinton 2016)
//   y = w n + b;   dx = r (h - [layer: mean(h)] - n mean(h n)) with h = w dy;   dw = sum dy n;   db = sum dy
#include "ops/norm.h"

#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/reduce.h"

namespace mw {
namespace {

const std::string& normed_dim(const Type& weight) { return weight.dims.at(0).name; }

void check_weight(std::string_view name, const Type& weight, const Type& x) {
  expect_float("x", x);
  if (weight.rank() != 1)
    throw UserError(std::string(name) + " is " + to_string(weight) + "; expected one dim, the one that is normalised");
  expect_same_size(normed_dim(weight), "x", x, name, weight);
  if (weight.dtype != x.dtype && weight.dtype != DType::kF32) {
    throw UserError(std::string(name) + " is " + to_string(weight) + "; expected " + std::string(dtype_name(x.dtype)) + " as x, or f32");
  }
}

// The dim that is normalised is needed whole; every other one is mapped, or for a gradient summed into dw and db.
template <DimUse others>
DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = dim == normed_dim(signature.operand(1)) ? DimUse::kWhole : others};
}

template <int flops_per_element>
Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = flops_per_element * static_cast<double>(signature.operand(0).elements());
  return cost;
}

// One row along the normalised dim: the flat index of element i in x, y, dx, dy is start + i * step.
struct Row {
  int64_t start, step, size;
  size_t at(int64_t i) const { return static_cast<size_t>(start + i * step); }
};

template <typename Body>
void for_each_row(const Type& x, const std::string& dim, Body&& body) {
  const size_t d = static_cast<size_t>(x.index_of(dim));
  const int64_t step = x.strides()[d], size = x.dims[d].size;
  LoopNest(without(x, {dim}), {&x}).run([&](int64_t, const int64_t* at) { body(Row{at[0], step, size}); });
}

struct Moments {
  double mean = 0, scale = 0;
};

Moments moments_of(const std::vector<double>& x, const Row& row, bool centred, double eps) {
  Moments m;
  const double n = static_cast<double>(row.size);
  for (int64_t i = 0; centred && i < row.size; ++i) m.mean += x[row.at(i)] / n;
  double variance = 0;
  for (int64_t i = 0; i < row.size; ++i) variance += (x[row.at(i)] - m.mean) * (x[row.at(i)] - m.mean) / n;
  m.scale = 1.0 / std::sqrt(variance + eps);
  return m;
}

template <bool centred>
void reference_norm(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &w = context.operand(1);
  const HostArray* b = context.operands.size() > 2 ? context.operands[2] : nullptr;
  const double one = context.attributes->flag_or("offset_one", false) ? 1.0 : 0.0;
  for_each_row(x.type, normed_dim(w.type), [&](const Row& row) {
    const Moments m = moments_of(x.data, row, centred, context.attributes->number("eps"));
    for (int64_t i = 0; i < row.size; ++i) {
      const size_t c = static_cast<size_t>(i);
      context.result(0).data[row.at(i)] = (x.data[row.at(i)] - m.mean) * m.scale * (one + w.data[c]) + (b ? b->data[c] : 0.0);
    }
  });
}

template <bool centred>
void reference_norm_gradient(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &w = context.operand(1), &dy = context.operand(2);
  HostArray &dx = context.result(0), &dw = context.result(1);
  HostArray* db = context.results.size() > 2 ? context.results[2] : nullptr;
  const double one = context.attributes->flag_or("offset_one", false) ? 1.0 : 0.0;
  for_each_row(x.type, normed_dim(w.type), [&](const Row& row) {
    const Moments m = moments_of(x.data, row, centred, context.attributes->number("eps"));
    const double size = static_cast<double>(row.size);
    const auto normed = [&](int64_t i) { return (x.data[row.at(i)] - m.mean) * m.scale; };
    const auto h = [&](int64_t i) { return dy.data[row.at(i)] * (one + w.data[static_cast<size_t>(i)]); };
    double mean_h = 0, mean_hn = 0;
    for (int64_t i = 0; i < row.size; ++i) {
      if (centred) mean_h += h(i) / size;
      mean_hn += h(i) * normed(i) / size;
    }
    for (int64_t i = 0; i < row.size; ++i) {
      dx.data[row.at(i)] = m.scale * (h(i) - mean_h - normed(i) * mean_hn);
      dw.data[static_cast<size_t>(i)] += dy.data[row.at(i)] * normed(i);
      if (db) db->data[static_cast<size_t>(i)] += dy.data[row.at(i)];
    }
  });
}

// x normalised, and the factor r, in FP32.
struct Normed {
  Tensor n, scale;
};
Normed normalise(Tensor x, const std::string& dim, bool centred, double eps) {
  Tensor wide = cast(x, DType::kF32);
  if (centred) wide = wide - reduce_mean(wide, {dim});
  const Tensor scale = rsqrt(reduce_mean(square(wide), {dim}) + eps);
  return {wide * scale, scale};
}

template <bool centred>
std::vector<Tensor> decompose_gradient(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0], w = operands[1], dy = cast(operands[2], DType::kF32);
  const std::string dim = normed_dim(w.type());
  const Normed normed = normalise(x, dim, centred, attributes.number("eps"));
  const Tensor wide = cast(w, DType::kF32);
  const Tensor h = dy * (attributes.flag_or("offset_one", false) ? wide + 1.0 : wide);
  Tensor centre = h - normed.n * reduce_mean(h * normed.n, {dim});
  if (centred) centre = centre - reduce_mean(h, {dim});
  const DType weight_dtype = parse_dtype(attributes.text("weight_dtype"));
  std::vector<Tensor> results{cast(centre * normed.scale, x.dtype()), sum_to(dy * normed.n, w.type(), weight_dtype)};
  if (attributes.flag_or("bias", false)) results.push_back(sum_to(dy, w.type(), weight_dtype));
  return results;
}

// x, w, dy -> dx, dw [, db]
std::vector<Type> infer_gradient(const Signature& signature) {
  const Type &x = signature.operand(0), &w = signature.operand(1), &dy = signature.operand(2);
  check_weight("weight", w, x);
  expect_same_dims("the gradient of y", dy, "x", x.dims);
  expect_dtype("the gradient of y", dy, x.dtype);
  const Type dw = w.with_dtype(parse_dtype(signature.attributes->text("weight_dtype")));
  std::vector<Type> results{x, dw};
  if (signature.attributes->flag_or("bias", false)) results.push_back(dw);
  return results;
}

// ---- rms_norm ----

std::vector<Type> infer_rms(const Signature& signature) {
  check_weight("weight", signature.operand(1), signature.operand(0));
  return {signature.operand(0)};
}

std::vector<Tensor> decompose_rms(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0], w = operands[1];
  const Tensor n = normalise(x, normed_dim(w.type()), false, attributes.number("eps")).n;
  if (attributes.flag_or("offset_one", false)) return {cast(n * (cast(w, DType::kF32) + 1.0), x.dtype())};
  return {cast(cast(cast(n, x.dtype()), w.dtype()) * w, x.dtype())};
}

void gradient_rms(GradientContext& context);

// ---- layer_norm ----

std::vector<Type> infer_layer(const Signature& signature) {
  check_weight("weight", signature.operand(1), signature.operand(0));
  if (signature.operands.size() > 2) {
    expect_same_dims("bias", signature.operand(2), "weight", signature.operand(1).dims);
    expect_dtype("bias", signature.operand(2), signature.operand(1).dtype);
  }
  return {signature.operand(0)};
}

std::vector<Tensor> decompose_layer(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0], w = operands[1];
  Tensor y = normalise(x, normed_dim(w.type()), true, attributes.number("eps")).n * cast(w, DType::kF32);
  if (operands.size() > 2) y = y + cast(operands[2], DType::kF32);
  return {cast(y, x.dtype())};
}

void gradient_layer(GradientContext& context);

const std::array<OpDef, 4> kDefs{
    OpDef{
        .name = "rms_norm",
        .doc =
            "y = w x / sqrt(mean(x^2) + eps) over the dim of w (Zhang and Sennrich 2019); x is normalised in FP32 and rounded to its dtype "
            "before the product, as in transformers' Llama. offset_one: (1 + w) in FP32 before the rounding, as in Gemma.",
        .num_operands = 2,
        .infer = infer_rms,
        .role = role<DimUse::kMapped>,
        .gradient = gradient_rms,
        .cost = cost<5>,
        .reference = reference_norm<false>,
        .decompose = decompose_rms},
    OpDef{.name = "rms_norm_gradient",
          .doc = "x, w, dy -> dx, dw of rms_norm: with n = x r, r = 1 / sqrt(mean(x^2) + eps) and h = w dy, dx = r (h - n mean(h n)), dw = "
                 "sum dy n.",
          .infer = infer_gradient,
          .role = role<DimUse::kContracted>,
          .cost = cost<12>,
          .reference = reference_norm_gradient<false>,
          .decompose = decompose_gradient<false>},
    OpDef{.name = "layer_norm",
          .doc = "y = w (x - mean(x)) / sqrt(var(x) + eps) [+ b] over the dim of w, in FP32, rounded once (Ba, Kiros and Hinton 2016).",
          .infer = infer_layer,
          .role = role<DimUse::kMapped>,
          .gradient = gradient_layer,
          .cost = cost<8>,
          .reference = reference_norm<true>,
          .decompose = decompose_layer},
    OpDef{.name = "layer_norm_gradient",
          .doc = "x, w, dy -> dx, dw [, db] of layer_norm: with n the normalised x, r its factor and h = w dy, "
                 "dx = r (h - mean(h) - n mean(h n)), dw = sum dy n, db = sum dy.",
          .infer = infer_gradient,
          .role = role<DimUse::kContracted>,
          .cost = cost<16>,
          .reference = reference_norm_gradient<true>,
          .decompose = decompose_gradient<true>},
};

void append_gradient(GradientContext& context, const OpDef& def, Attributes attributes) {
  const Tensor x = context.operands[0];
  attributes.set("weight_dtype", std::string(dtype_name(context.gradient_dtype(1))));
  if (context.operands.size() > 2) attributes.set("bias", true);
  const std::vector<Tensor> gradients =
      context.builder.append(def, {x, context.operands[1], cast(*context.upstream[0], x.dtype())}, std::move(attributes), Source::here());
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (context.needed[i]) context.gradients[i] = cast(gradients[i], context.gradient_dtype(i));
  }
}

void gradient_rms(GradientContext& context) { append_gradient(context, kDefs[1], context.attributes()); }
void gradient_layer(GradientContext& context) { append_gradient(context, kDefs[3], context.attributes()); }

}  // namespace

std::span<const OpDef> norm_ops() { return kDefs; }

Tensor rms_norm(Tensor x, Tensor weight, double eps, bool offset_one, Source source) {
  Attributes attributes{{"eps", eps}};
  if (offset_one) attributes.set("offset_one", true);
  return x.builder->append1(kDefs[0], {x, weight}, std::move(attributes), source);
}

Tensor layer_norm(Tensor x, Tensor weight, std::optional<Tensor> bias, double eps, Source source) {
  std::vector<Tensor> operands{x, weight};
  if (bias) operands.push_back(*bias);
  return x.builder->append1(kDefs[2], operands, {{"eps", eps}}, source);
}

}  // namespace mw
