// route: for each token the k experts of the highest score, and their weights (Shazeer et al. 2017; with groups of experts and a bias for
// the choice alone: DeepSeek-V2 2024, DeepSeek-V3 2024, eq. 13-16).
//
//   s = softmax(l) or sigmoid(l); choose the k largest of s + bias within the best groups; w = s[chosen] [/ (sum + 1e-20)] * scaling
//   softmax_of_top_k: choose the k largest of l + bias; w = softmax(l[chosen]) * scaling
#include "ops/route.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/op_list.h"

namespace mw {
namespace {

constexpr double kTinySum = 1e-20;

int64_t experts_of(const Type& logits) { return logits.dims.back().size; }

void expect_one_of(const std::string& what, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "'" : ", '") + name + "'";
  throw UserError(what + " is '" + value + "'; expected one of " + list + did_you_mean(value, known));
}

void check_logits(const Type& logits, const RouteAttributes& a) {
  expect_dtype("logits", logits, DType::kF32);
  if (logits.dims.empty() || logits.dims.back().name != "experts")
    throw UserError("logits are " + to_string(logits) + "; expected 'experts' as the innermost dim");
  expect_one_of("score", a.score, {"softmax", "sigmoid", "softmax_of_top_k"});
  expect_one_of("group_score", a.group_score, {"max", "top2_sum"});
  const int64_t experts = experts_of(logits);
  if (a.groups < 1 || experts % a.groups != 0) {
    throw UserError(std::to_string(experts) + " experts do not divide into groups=" + std::to_string(a.groups) +
                    " groups of neighbours; expected a divisor of " + std::to_string(experts));
  }
  if (a.groups_selected < 1 || a.groups_selected > a.groups) {
    throw UserError("groups_selected is " + std::to_string(a.groups_selected) + "; expected 1 to groups=" + std::to_string(a.groups));
  }
  const int64_t eligible = experts / a.groups * a.groups_selected;
  if (a.k < 1 || a.k > eligible) {
    throw UserError("k = " + std::to_string(a.k) + " of the " + std::to_string(eligible) + " experts that may be chosen; expected 1 to " +
                    std::to_string(eligible));
  }
  if (a.groups_selected < a.groups && a.group_score == "top2_sum" && experts / a.groups < 2)
    throw UserError("group_score top2_sum wants groups of at least 2 experts; there are " + std::to_string(a.groups) + " groups of 1");
}

Type choice_type(const Type& logits, int64_t k, DType dtype) {
  Type type{dtype, logits.dims};
  type.dims.back() = {"top_k", k};
  return type;
}

std::vector<Type> infer(const Signature& signature) {
  const RouteAttributes a = RouteAttributes::from(*signature.attributes);
  const Type& logits = signature.operand(0);
  check_logits(logits, a);
  if (signature.operands.size() > 2) throw UserError("route takes logits and at most a selection bias");
  if (signature.operands.size() == 2) {
    expect_dtype("selection_bias", signature.operand(1), DType::kF32);
    expect_same_dims("selection_bias", signature.operand(1), "one number per expert", {logits.dims.back()});
  }
  return {choice_type(logits, a.k, DType::kF32), choice_type(logits, a.k, DType::kI32)};
}

DimRole role(const Signature&, std::string_view dim) {
  return {.use = dim == "experts" || dim == "top_k" ? DimUse::kWhole : DimUse::kMapped};
}

bool comes_before(double a, double b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// The `count` best of `candidates` (ascending) by `score`, the best first.
std::vector<int64_t> best_of(std::vector<int64_t> candidates, const std::vector<double>& score, int64_t count) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](int64_t a, int64_t b) { return comes_before(score[static_cast<size_t>(a)], score[static_cast<size_t>(b)]); });
  candidates.resize(static_cast<size_t>(count));
  return candidates;
}

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> list;
  for (int64_t i = begin; i < end; ++i) list.push_back(i);
  return list;
}

// What is compared: without a bias or sums of scores the logits themselves, whose order is that of the scores.
std::vector<double> choice_scores(const RouteAttributes& a, const double* logits, int64_t experts, const double* bias) {
  std::vector<double> scores(logits, logits + experts);
  const bool sums = a.groups_selected < a.groups && a.group_score == "top2_sum";
  if (!bias && !sums) return scores;
  if (a.score == "sigmoid") {
    for (double& x : scores) x = elementwise_value("sigmoid", {&x, 1});
  } else if (a.score == "softmax") {
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& x : scores) sum += x = std::exp(x - top);
    for (double& x : scores) x /= sum;
  }
  for (int64_t i = 0; bias && i < experts; ++i) scores[static_cast<size_t>(i)] += bias[i];
  return scores;
}

std::vector<int64_t> chosen_experts(const RouteAttributes& a, const double* logits, int64_t experts, const double* bias) {
  const std::vector<double> scores = choice_scores(a, logits, experts, bias);
  std::vector<int64_t> candidates = range(0, experts);
  if (a.groups_selected < a.groups) {
    const int64_t size = experts / a.groups;
    std::vector<double> of_group;
    for (int64_t g = 0; g < a.groups; ++g) {
      const std::vector<int64_t> best = best_of(range(g * size, (g + 1) * size), scores, a.group_score == "max" ? 1 : 2);
      double score = 0;
      for (const int64_t i : best) score += scores[static_cast<size_t>(i)];
      of_group.push_back(score);
    }
    std::vector<int64_t> groups = best_of(range(0, a.groups), of_group, a.groups_selected);
    std::sort(groups.begin(), groups.end());
    candidates.clear();
    for (const int64_t g : groups) {
      for (const int64_t i : range(g * size, (g + 1) * size)) candidates.push_back(i);
    }
  }
  return best_of(std::move(candidates), scores, a.k);
}

// softmax over all experts; over the chosen ones only; or sigmoid: of each chosen expert.
std::vector<double> scores_of_chosen(const RouteAttributes& a, const double* logits, int64_t experts, const std::vector<int64_t>& chosen) {
  std::vector<double> scores;
  double top = -INFINITY, sum = 0;
  const std::vector<int64_t> summed = a.score == "softmax" ? range(0, experts) : chosen;
  for (const int64_t i : summed) top = std::max(top, logits[i]);
  for (const int64_t i : summed) sum += std::exp(logits[i] - top);
  for (const int64_t i : chosen)
    scores.push_back(a.score == "sigmoid" ? elementwise_value("sigmoid", {&logits[i], 1}) : std::exp(logits[i] - top) / sum);
  return scores;
}

void reference(const ReferenceContext& context) {
  const RouteAttributes a = RouteAttributes::from(*context.attributes);
  const HostArray& logits = context.operand(0);
  const int64_t experts = experts_of(logits.type), rows = logits.type.elements() / experts;
  for (int64_t row = 0; row < rows; ++row) {
    const double* l = logits.data.data() + row * experts;
    const std::vector<int64_t> chosen =
        chosen_experts(a, l, experts, context.operands.size() > 1 ? context.operand(1).data.data() : nullptr);
    std::vector<double> weights = scores_of_chosen(a, l, experts, chosen);
    double sum = kTinySum;
    for (const double w : weights) sum += w;
    for (int64_t j = 0; j < a.k; ++j) {
      const size_t at = static_cast<size_t>(row * a.k + j), from = static_cast<size_t>(j);
      context.result(0).data[at] = weights[from] * a.scaling / (a.normalize ? sum : 1.0);
      context.result(1).data[at] = static_cast<double>(chosen[from]);
    }
  }
}

void gradient(GradientContext& context);

// ---- route_gradient: logits, indices, the gradient of the weights ----

std::vector<Type> infer_gradient(const Signature& signature) {
  const RouteAttributes a = RouteAttributes::from(*signature.attributes);
  const Type& logits = signature.operand(0);
  check_logits(logits, a);
  expect_dtype("indices", signature.operand(1), DType::kI32);
  expect_dtype("the gradient of the weights", signature.operand(2), DType::kF32);
  for (const size_t i : {1, 2})
    expect_same_dims("the choice", signature.operand(i), "the tokens", choice_type(logits, a.k, DType::kF32).dims);
  return {logits};
}

void reference_gradient(const ReferenceContext& context) {
  const RouteAttributes a = RouteAttributes::from(*context.attributes);
  const HostArray& logits = context.operand(0);
  const int64_t experts = experts_of(logits.type), rows = logits.type.elements() / experts;
  for (int64_t row = 0; row < rows; ++row) {
    const double* l = logits.data.data() + row * experts;
    double* dl = context.result(0).data.data() + row * experts;
    std::vector<int64_t> chosen;
    for (int64_t j = 0; j < a.k; ++j) chosen.push_back(static_cast<int64_t>(context.operand(1).data[static_cast<size_t>(row * a.k + j)]));
    const std::vector<double> s = scores_of_chosen(a, l, experts, chosen);
    std::vector<double> ds(s.size());
    double sum = kTinySum, weighted = 0;
    for (size_t j = 0; j < s.size(); ++j) {
      ds[j] = context.operand(2).data[static_cast<size_t>(row * a.k) + j] * a.scaling;
      sum += s[j];
      weighted += ds[j] * s[j];
    }
    if (a.normalize) {
      for (double& d : ds) d = (d - weighted / sum) / sum;
      weighted = 0;
      for (size_t j = 0; j < s.size(); ++j) weighted += ds[j] * s[j];
    }
    if (a.score == "softmax") {
      const std::vector<double> p = scores_of_chosen(a, l, experts, range(0, experts));
      for (int64_t i = 0; i < experts; ++i) dl[i] = -p[static_cast<size_t>(i)] * weighted;
      for (size_t j = 0; j < s.size(); ++j) dl[chosen[j]] += s[j] * ds[j];
    } else {
      for (size_t j = 0; j < s.size(); ++j) dl[chosen[j]] = s[j] * (a.score == "sigmoid" ? ds[j] * (1 - s[j]) : ds[j] - weighted);
    }
  }
}

// ---- within_capacity {experts, capacity}: indices ----

std::vector<Type> infer_capacity(const Signature& signature) {
  const Type& indices = signature.operand(0);
  expect_dtype("indices", indices, DType::kI32);
  if (signature.attributes->integer("experts") < 1 || signature.attributes->integer("capacity") < 0)
    throw UserError("within_capacity wants at least one expert and a capacity of 0 or more");
  return {indices.with_dtype(DType::kF32)};
}

// Who is within depends on all tokens before: every rank counts them all.
DimRole role_capacity(const Signature&, std::string_view) { return {.use = DimUse::kWhole}; }

void reference_capacity(const ReferenceContext& context) {
  std::vector<int64_t> taken(static_cast<size_t>(context.attributes->integer("experts")), 0);
  for (size_t i = 0; i < context.operand(0).data.size(); ++i) {
    const double expert = context.operand(0).data[i];
    if (expert < 0 || expert >= static_cast<double>(taken.size()))
      throw UserError("expert " + std::to_string(static_cast<int64_t>(expert)) + " is chosen; there are " + std::to_string(taken.size()));
    context.result(0).data[i] = taken[static_cast<size_t>(expert)]++ < context.attributes->integer("capacity") ? 1.0 : 0.0;
  }
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = 4 * static_cast<double>(signature.operand(0).elements());
  return cost;
}

const std::array<OpDef, 3> kDefs{
    OpDef{
        .name = "route",
        .doc =
            "The k experts of the highest score s = softmax(l) or sigmoid(l) (of s + bias where a bias is given; of the best groups only), "
            "best first, the lower index first at a tie, and their weights s, divided by their sum + 1e-20 with `normalize`, times "
            "`scaling`; softmax_of_top_k: the weights are a softmax over the chosen logits.",
        .infer = infer,
        .role = role,
        .gradient = gradient,
        .cost = cost,
        .reference = reference},
    OpDef{.name = "route_gradient",
          .doc = "logits, indices, dweights -> dlogits of route; the choice is constant",
          .num_operands = 3,
          .infer = infer_gradient,
          .role = role,
          .cost = cost,
          .reference = reference_gradient},
    OpDef{.name = "within_capacity",
          .doc = "1 for the first `capacity` choices of each expert, in the order in which they stand in memory; 0 for those beyond",
          .num_operands = 1,
          .infer = infer_capacity,
          .role = role_capacity,
          .reference = reference_capacity}};

void gradient(GradientContext& context) {
  if (!context.upstream[0]) return;
  const Tensor d = context.builder.append1(kDefs[1], {context.operands[0], context.results[1], *context.upstream[0]}, context.attributes(),
                                           Source::here());
  context.gradients[0] = cast(d, context.gradient_dtype(0));
}

}  // namespace

Attributes RouteAttributes::to_attributes() const {
  Attributes attributes{{"score", score}, {"k", k}};
  if (groups != 1) {
    attributes.set("groups", groups);
    attributes.set("groups_selected", groups_selected);
    attributes.set("group_score", group_score);
  }
  if (normalize) attributes.set("normalize", true);
  if (scaling != 1.0) attributes.set("scaling", scaling);
  return attributes;
}

RouteAttributes RouteAttributes::from(const Attributes& attributes) {
  return {.score = attributes.text("score"),
          .k = attributes.integer("k"),
          .groups = attributes.integer_or("groups", 1),
          .groups_selected = attributes.integer_or("groups_selected", 1),
          .group_score = attributes.text_or("group_score", "max"),
          .normalize = attributes.flag_or("normalize", false),
          .scaling = attributes.number_or("scaling", 1.0)};
}

std::span<const OpDef> route_ops() { return kDefs; }

Routing route(Tensor logits, std::optional<Tensor> selection_bias, const RouteAttributes& attributes, Source source) {
  std::vector<Tensor> operands{logits};
  if (selection_bias) operands.push_back(*selection_bias);
  const std::vector<Tensor> results = logits.builder->append(kDefs[0], operands, attributes.to_attributes(), source);
  return {results[0], results[1]};
}

Tensor within_capacity(Tensor indices, int64_t experts, int64_t capacity, Source source) {
  return indices.builder->append1(kDefs[2], {indices}, {{"experts", experts}, {"capacity", capacity}}, source);
}

}  // namespace mw
