#include "optim/optimizer.h"

#include "base/error.h"
#include "ops/ops.h"

namespace mw {
namespace {

constexpr double kNormFloor = 1e-6;  // torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6

struct Scalars {
  Tensor lr, gradient_scale, correction1, correction2;
};

// Factor that brings the global norm of all gradients down to `clip`.
Tensor clip_factor(Tensor norm, double clip) {
  return minimum(constant(*norm.builder, clip) / (norm + kNormFloor), constant(*norm.builder, 1.0));
}

// Of the gradients of all stages. A stage without any takes part with 0.
Tensor global_norm(Builder& b, const std::vector<Tensor>& gradients, const OverStages& over) {
  Tensor squares = gradients.empty() ? constant(b, 0.0) : sum_of_squares(gradients);
  if (!over.axis.empty()) squares = all_reduce(squares, "sum", {over.axis}, over.stages);
  return sqrt(squares);
}

struct NewWeight {
  Tensor weight, copy;  // FP32, and bf16 where the rule gives that at once
};

// New version of the FP32 weights; states of the rule are written.
NewWeight update_weight(Builder& b, const OptimizerConfig& config, const TrainedParameter& parameter, Tensor weight, Tensor gradient,
                        const Scalars& scalars) {
  const Type type = parameter.type.with_dtype(DType::kF32);
  const double decay = parameter.decay ? config.weight_decay : 0.0;
  const std::optional<DType> copy = parameter.type.dtype == DType::kBF16 ? std::optional(DType::kBF16) : std::nullopt;
  if (config.kind == "adamw") {
    const Tensor m = b.state("first_moment." + parameter.name, type), v = b.state("second_moment." + parameter.name, type);
    const AdamWResult r = adamw(weight, gradient, m, v, scalars.lr, scalars.gradient_scale, scalars.correction1, scalars.correction2,
                                config.beta1, config.beta2, config.eps, decay, copy);
    b.write_state("first_moment." + parameter.name, r.first_moment);
    b.write_state("second_moment." + parameter.name, r.second_moment);
    return {r.weight, r.copy};
  }
  if (config.momentum == 0.0) {  // no buffer is kept
    const Tensor g = gradient * scalars.gradient_scale + weight * decay;
    return {weight - g * scalars.lr, {}};
  }
  const Tensor buffer = b.state("momentum." + parameter.name, type);
  const SgdResult r = sgd(weight, gradient, buffer, scalars.lr, scalars.gradient_scale, config.momentum, decay, copy);
  b.write_state("momentum." + parameter.name, r.momentum);
  return {r.weight, r.copy};
}

// bias + rate sign(mean load - load).
Tensor balanced_bias(Tensor bias, Tensor load, double rate) {
  Builder& b = *bias.builder;
  const Tensor less = reduce_mean(load, load.type().dim_names()) - load;
  const Tensor zero = constant(b, 0.0), step = constant(b, rate);
  const Tensor up = select(binary("gt", less, zero), step, zero), down = select(binary("lt", less, zero), step, zero);
  return bias + (up - down);
}

void check_range(const std::string& key, double value, double low, double high) {
  if (!(value >= low && value < high))
    throw UserError("optimizer: " + key + " is " + std::to_string(value) + "; expected a number in [" + std::to_string(low) + ", " +
                    std::to_string(high) + ")");
}

}  // namespace

void check_optimizer(const OptimizerConfig& config) {
  if (config.kind != "adamw" && config.kind != "sgd")
    throw UserError("unknown optimizer '" + config.kind + "'" + did_you_mean(config.kind, {"adamw", "sgd"}) + "; expected adamw or sgd");
  check_range("beta1", config.beta1, 0, 1);
  check_range("beta2", config.beta2, 0, 1);
  check_range("momentum", config.momentum, 0, 1);
  check_range("eps", config.eps, 0, 1e9);
  check_range("weight_decay", config.weight_decay, 0, 1e9);
  check_range("clip", config.clip, 0, 1e30);
}

std::vector<std::string> optimizer_state_prefixes(const OptimizerConfig& config) {
  if (config.kind == "adamw") return {"first_moment.", "second_moment."};
  if (config.momentum != 0.0) return {"momentum."};
  return {};
}

Program trace_update(const OptimizerConfig& config, const std::vector<TrainedParameter>& parameters,
                     const std::vector<BalancedBias>& balanced, const OverStages& over) {
  check_optimizer(config);
  Builder b("update");
  const Type scalar{DType::kF32, {}};
  std::vector<Tensor> gradients, counted;
  for (const TrainedParameter& parameter : parameters) {
    const Type type = parameter.type.with_dtype(DType::kF32);
    Tensor gradient =
        over.without_gradient.contains(parameter.name) ? broadcast_to(constant(b, 0.0), type) : b.state("gradient." + parameter.name, type);
    if (const auto pair = over.summed.find(parameter.name); pair != over.summed.end())
      gradient = all_reduce(gradient, "sum", {pair->second}, 2);
    gradients.push_back(gradient);
    if (!over.counted_elsewhere.contains(parameter.name)) counted.push_back(gradient);
  }
  Scalars scalars{.lr = b.input("lr", scalar), .gradient_scale = {}, .correction1 = {}, .correction2 = {}};
  if (config.kind == "adamw") {
    scalars.correction1 = b.input("correction1", scalar);
    scalars.correction2 = b.input("correction2", scalar);
  }
  {
    Scope scope(b, "clip");
    const Tensor norm = global_norm(b, counted, over);
    b.output("grad_norm", norm);
    scalars.gradient_scale = config.clip > 0 ? clip_factor(norm, config.clip) : constant(b, 1.0);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const TrainedParameter& parameter = parameters[i];
    Scope scope(b, "update." + parameter.name);
    const bool has_master = parameter.type.dtype != DType::kF32;
    const std::string weight_name = has_master ? kMasterPrefix + parameter.name : parameter.name;
    const Tensor weight =
        has_master ? b.state(weight_name, parameter.type.with_dtype(DType::kF32)) : b.parameter(weight_name, parameter.type);
    const NewWeight updated = update_weight(b, config, parameter, weight, gradients[i], scalars);
    b.write_state(weight_name, updated.weight);
    if (has_master) b.write_state(parameter.name, updated.copy.builder ? updated.copy : cast(updated.weight, parameter.type.dtype));
  }
  for (const BalancedBias& bias : balanced) {
    Scope scope(b, "update." + bias.name);
    const Tensor load = b.state("gradient." + bias.name, bias.type);
    b.write_state(bias.name, balanced_bias(b.parameter(bias.name, bias.type), load, bias.rate));
  }
  return b.take();
}

}  // namespace mw
