// rms_norm and layer_norm over the one dim of their weight, and their gradients. rms_norm may also lack a weight; the attribute `dim`
// then names what it normalises, and w below is 1.
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

// x[, w][, b or dy]: is there a weight behind x?
bool is_weighted(const Attributes& attributes) { return !attributes.find("dim"); }
const std::string& normed_dim(const Signature& signature) {
  return is_weighted(*signature.attributes) ? normed_dim(signature.operand(1)) : signature.attributes->text("dim");
}
const std::string& normed_dim(const std::vector<Tensor>& operands, const Attributes& attributes) {
  return is_weighted(attributes) ? normed_dim(operands[1].type()) : attributes.text("dim");
}

void check_weight(std::string_view name, const Type& weight, const Type& x) {
  expect_float("x", x);
  if (weight.rank() != 1)
    throw UserError(std::string(name) + " is " + to_string(weight) + "; expected one dim, the one that is normalised");
  expect_same_size(normed_dim(weight), "x", x, name, weight);
  if (weight.dtype != x.dtype && weight.dtype != DType::kF32) {
    throw UserError(std::string(name) + " is " + to_string(weight) + "; expected " + std::string(dtype_name(x.dtype)) + " as x, or f32");
  }
}

// Without a weight.
void check_dim(const Signature& signature) {
  const Type& x = signature.operand(0);
  expect_float("x", x);
  x.size_of(signature.attributes->text("dim"));
}

// The dim that is normalised is needed whole; every other one is mapped, or for a gradient summed into dw and db.
template <DimUse others>
DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = dim == normed_dim(signature) ? DimUse::kWhole : others};
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

// What element i of the normalised row is multiplied by.
struct Multiplier {
  const HostArray* weight;
  double offset;
  std::string dim;

  explicit Multiplier(const ReferenceContext& context)
      : weight(is_weighted(*context.attributes) ? context.operands[1] : nullptr),
        offset(weight && !context.attributes->flag_or("offset_one", false) ? 0.0 : 1.0),
        dim(weight ? normed_dim(weight->type) : context.attributes->text("dim")) {}
  double of(int64_t i) const { return weight ? offset + weight->data[static_cast<size_t>(i)] : offset; }
};

template <bool centred>
void reference_norm(const ReferenceContext& context) {
  const HostArray& x = context.operand(0);
  const HostArray* b = context.operands.size() > 2 ? context.operands[2] : nullptr;
  const Multiplier w(context);
  for_each_row(x.type, w.dim, [&](const Row& row) {
    const Moments m = moments_of(x.data, row, centred, context.attributes->number("eps"));
    for (int64_t i = 0; i < row.size; ++i) {
      const double bias = b ? b->data[static_cast<size_t>(i)] : 0.0;
      context.result(0).data[row.at(i)] = (x.data[row.at(i)] - m.mean) * m.scale * w.of(i) + bias;
    }
  });
}

template <bool centred>
void reference_norm_gradient(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &dy = *context.operands.back();
  HostArray& dx = context.result(0);
  HostArray* dw = context.results.size() > 1 ? context.results[1] : nullptr;
  HostArray* db = context.results.size() > 2 ? context.results[2] : nullptr;
  const Multiplier w(context);
  for_each_row(x.type, w.dim, [&](const Row& row) {
    const Moments m = moments_of(x.data, row, centred, context.attributes->number("eps"));
    const double size = static_cast<double>(row.size);
    const auto normed = [&](int64_t i) { return (x.data[row.at(i)] - m.mean) * m.scale; };
    const auto h = [&](int64_t i) { return dy.data[row.at(i)] * w.of(i); };
    double mean_h = 0, mean_hn = 0;
    for (int64_t i = 0; i < row.size; ++i) {
      if (centred) mean_h += h(i) / size;
      mean_hn += h(i) * normed(i) / size;
    }
    for (int64_t i = 0; i < row.size; ++i) {
      dx.data[row.at(i)] = m.scale * (h(i) - mean_h - normed(i) * mean_hn);
      if (dw) dw->data[static_cast<size_t>(i)] += dy.data[row.at(i)] * normed(i);
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
  const Tensor x = operands[0], dy = cast(operands.back(), DType::kF32);
  const bool weighted = is_weighted(attributes);
  const std::string dim = normed_dim(operands, attributes);
  const Normed normed = normalise(x, dim, centred, attributes.number("eps"));
  Tensor h = dy;
  if (weighted) {
    const Tensor wide = cast(operands[1], DType::kF32);
    h = dy * (attributes.flag_or("offset_one", false) ? wide + 1.0 : wide);
  }
  Tensor centre = h - normed.n * reduce_mean(h * normed.n, {dim});
  if (centred) centre = centre - reduce_mean(h, {dim});
  std::vector<Tensor> results{cast(centre * normed.scale, x.dtype())};
  if (!weighted) return results;
  const Type& weight = operands[1].type();
  const DType weight_dtype = parse_dtype(attributes.text("weight_dtype"));
  results.push_back(sum_to(dy * normed.n, weight, weight_dtype));
  if (attributes.flag_or("bias", false)) results.push_back(sum_to(dy, weight, weight_dtype));
  return results;
}

void check_count(const Signature& signature, size_t count) {
  if (signature.operands.size() == count) return;
  throw UserError("it has " + std::to_string(signature.operands.size()) + " operands; expected " + std::to_string(count) +
                  (is_weighted(*signature.attributes) ? "" : ", there is no weight beside the attribute dim"));
}

// x [, w], dy -> dx [, dw [, db]]
template <bool may_lack_weight>
std::vector<Type> infer_gradient(const Signature& signature) {
  const bool weighted = !may_lack_weight || is_weighted(*signature.attributes);
  check_count(signature, weighted ? 3 : 2);
  const Type &x = signature.operand(0), &dy = *signature.operands.back();
  expect_same_dims("the gradient of y", dy, "x", x.dims);
  expect_dtype("the gradient of y", dy, x.dtype);
  if (!weighted) return check_dim(signature), std::vector<Type>{x};
  const Type& w = signature.operand(1);
  check_weight("weight", w, x);
  const Type dw = w.with_dtype(parse_dtype(signature.attributes->text("weight_dtype")));
  std::vector<Type> results{x, dw};
  if (signature.attributes->flag_or("bias", false)) results.push_back(dw);
  return results;
}

// ---- rms_norm ----

std::vector<Type> infer_rms(const Signature& signature) {
  const bool weighted = is_weighted(*signature.attributes);
  check_count(signature, weighted ? 2 : 1);
  if (weighted) {
    check_weight("weight", signature.operand(1), signature.operand(0));
  } else {
    check_dim(signature);
  }
  return {signature.operand(0)};
}

std::vector<Tensor> decompose_rms(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor x = operands[0];
  const Tensor n = normalise(x, normed_dim(operands, attributes), false, attributes.number("eps")).n;
  if (!is_weighted(attributes)) return {cast(n, x.dtype())};
  const Tensor w = operands[1];
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
            "before the product, as in transformers' Llama. offset_one: (1 + w) in FP32 before the rounding, as in Gemma. Without a "
            "weight: "
            "over the dim named by `dim`.",
        .infer = infer_rms,
        .role = role<DimUse::kMapped>,
        .gradient = gradient_rms,
        .cost = cost<5>,
        .reference = reference_norm<false>,
        .decompose = decompose_rms},
    OpDef{.name = "rms_norm_gradient",
          .doc = "x [, w], dy -> dx [, dw] of rms_norm: with n = x r, r = 1 / sqrt(mean(x^2) + eps) and h = w dy, dx = r (h - n mean(h "
                 "n)), dw = "
                 "sum dy n.",
          .infer = infer_gradient<true>,
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
          .infer = infer_gradient<false>,
          .role = role<DimUse::kContracted>,
          .cost = cost<16>,
          .reference = reference_norm_gradient<true>,
          .decompose = decompose_gradient<true>},
};

void append_gradient(GradientContext& context, const OpDef& def, Attributes attributes) {
  const Tensor x = context.operands[0];
  std::vector<Tensor> operands{x};
  if (context.operands.size() > 1) {
    operands.push_back(context.operands[1]);
    attributes.set("weight_dtype", std::string(dtype_name(context.gradient_dtype(1))));
  }
  if (context.operands.size() > 2) attributes.set("bias", true);
  operands.push_back(cast(*context.upstream[0], x.dtype()));
  const std::vector<Tensor> gradients = context.builder.append(def, operands, std::move(attributes), Source::here());
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

Tensor rms_norm(Tensor x, std::string dim, double eps, Source source) {
  return x.builder->append1(kDefs[0], {x}, {{"dim", std::move(dim)}, {"eps", eps}}, source);
}

Tensor layer_norm(Tensor x, Tensor weight, std::optional<Tensor> bias, double eps, Source source) {
  std::vector<Tensor> operands{x, weight};
  if (bias) operands.push_back(*bias);
  return x.builder->append1(kDefs[2], operands, {{"eps", eps}}, source);
}

}  // namespace mw
