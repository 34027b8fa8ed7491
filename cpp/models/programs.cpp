#include "models/programs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "layers/embedding.h"
#include "layers/moe_losses.h"
#include "models/registry.h"
#include "ops/elementwise.h"
#include "ops/shape.h"

namespace mw {
namespace {

Type int_type(const BatchSize& size) { return {DType::kI32, {{"batch", size.batch}, {"seq", size.seq}}}; }

// A batch of whole sequences, and the model up to the final norm over it.
struct HiddenBatch {
  Tokens tokens;
  Tensor hidden;
};

HiddenBatch hidden_of_batch(Builder& b, const ModelFamily& family, const ModelConfig& config, const ParameterSet& weights,
                            const BatchSize& size, RouterOutputs* routers = nullptr) {
  const Tensor input_ids = b.input("input_ids", int_type(size));
  const Tensor position_ids = b.input("position_ids", int_type(size));
  const Tensor segment_ids = b.input("segment_ids", int_type(size));
  const Tokens tokens = Tokens::in_sequence(position_ids, segment_ids);
  return {tokens, family.hidden(config, weights, input_ids, tokens, routers)};
}

// The terms of a loss: each is handed out without its weight, and added up with it.
class LossSum {
 public:
  LossSum(Builder& builder, Tensor token_loss, bool several) : builder_(builder), several_(several), sum_(token_loss) {
    if (several_) builder_.output("token_loss", token_loss);
  }
  void add(const std::string& name, Tensor term, double weight) {
    builder_.output(name, term);
    sum_ = sum_ + term * weight;
  }
  Tensor sum() const { return sum_; }

 private:
  Builder& builder_;
  bool several_;
  Tensor sum_;
};

Tensor sum_of(const std::vector<Tensor>& terms) {
  Tensor sum = terms.at(0);
  for (size_t i = 1; i < terms.size(); ++i) sum = sum + terms[i];
  return sum;
}

// The mean over the modules of their losses per token.
Tensor mtp_loss(Builder& b, const ModelFamily& family, const ModelConfig& config, const ParameterSet& weights, const BatchSize& size,
                const HiddenBatch& batch, Tensor loss_scale, RouterOutputs* routers) {
  std::vector<Tensor> losses;
  Tensor hidden = batch.hidden;
  for (int64_t depth = 0; depth < config.mtp_layers; ++depth) {
    const std::string k = "." + std::to_string(depth + 1);
    const Tensor ids = b.input("mtp_input_ids" + k, int_type(size)), targets = b.input("mtp_targets" + k, int_type(size));
    const Tensor loss_weights = b.input("mtp_loss_weights" + k, int_type(size).with_dtype(DType::kF32));
    const Scope scope(b, "mtp" + k);
    const MtpHidden module = family.mtp(config, weights, depth, hidden, ids, batch.tokens, routers);
    losses.push_back(
        next_token_loss(module.normalised, family.head(config, weights), targets, loss_weights, loss_scale, config.final_logit_softcap));
    hidden = module.hidden;
  }
  const Scope scope(b, "mtp");
  return sum_of(losses) * (1.0 / static_cast<double>(config.mtp_layers));
}

// Scopes "layers.N" of the layers with experts, in their order, those of multi-token prediction last.
std::vector<std::string> expert_layers(const ModelConfig& config) {
  std::vector<std::string> layers;
  for (int64_t i = 0; i < config.num_layers + config.mtp_layers; ++i) {
    if (config.has_experts(i)) layers.push_back("layers." + std::to_string(i));
  }
  return layers;
}

void add_router_terms(Builder& b, const ModelConfig& config, const std::vector<ParameterSpec>& parameters, const LossTerms& terms,
                      RouterOutputs routers, Tensor segment_ids, double share, LossSum& loss) {
  const Scope scope(b, "router_losses");
  const std::vector<std::string> layers = expert_layers(config);
  for (size_t i = 0; i < routers.size(); ++i) routers[i].layer = layers.at(i);
  const Tensor counts = cast(binary("ge", segment_ids, constant(b, 0.0, Type{DType::kI32, {}})), DType::kF32);
  if (terms.balance > 0) loss.add("balance_loss", load_balance_loss(routers, counts) * share, terms.balance);
  const auto each_layer = [&](const auto& term) {
    std::vector<Tensor> list;
    for (const RouterOutput& router : routers) list.push_back(term(router));
    return sum_of(list) * share;
  };
  const std::string score = config.moe->routing_score == "sigmoid" ? "sigmoid" : "softmax";
  if (terms.sequence_balance > 0) {
    loss.add("sequence_balance_loss", each_layer([&](const RouterOutput& r) { return sequence_balance_loss(r, counts, score); }),
             terms.sequence_balance);
  }
  if (terms.router_z > 0)
    loss.add("router_z_loss", each_layer([&](const RouterOutput& r) { return router_z_loss(r, counts); }), terms.router_z);
  if (terms.expert_load) {
    for (const RouterOutput& router : routers) b.output("expert_load." + router.layer, expert_load(router, counts));
  }
  if (terms.selection_bias_rate == 0) return;
  size_t layer = 0;
  for (const ParameterSpec& p : parameters) {
    if (p.trained) continue;
    // Modules of multi-token prediction that do not run have no load.
    b.output("gradient." + p.name, layer < routers.size() ? expert_load(routers[layer], counts) : constant(b, 0.0, p.type));
    ++layer;
  }
}

}  // namespace

Program trace_forward(const ModelConfig& config, const BatchSize& size) {
  const ModelFamily& family = model_family(config.family);
  Builder b("forward");
  const ParameterSet weights = declare_parameters(b, family.parameters(config, size.dtype));
  const Tensor x = hidden_of_batch(b, family, config, weights, size).hidden;
  b.output("logits", vocabulary_logits(x, family.head(config, weights), config.final_logit_softcap));
  return b.take();
}

void check_loss_terms(const LossTerms& terms, const ModelConfig& config) {
  const auto check = [&](const char* name, double weight, bool possible, const char* what) {
    if (!(weight >= 0 && std::isfinite(weight))) throw UserError(concat_text(name, " is ", weight, "; expected 0 or more"));
    if (weight > 0 && !possible) throw UserError(concat_text(name, " is ", weight, ", but the model has no ", what));
  };
  check("mtp_loss_weight", terms.mtp, config.mtp_layers > 0, "multi-token prediction (mtp_layers is 0)");
  check("load_balance_loss_weight", terms.balance, config.moe.has_value(), "experts");
  check("sequence_balance_loss_weight", terms.sequence_balance, config.moe.has_value(), "experts");
  check("router_z_loss_weight", terms.router_z, config.moe.has_value(), "experts");
  check("selection_bias_update_rate", terms.selection_bias_rate, config.moe && config.moe->routing_selection_bias,
        "selection bias in its router");
  check("expert_load", terms.expert_load ? 1 : 0, config.moe.has_value(), "experts");
}

Program trace_loss(const ModelConfig& config, const BatchSize& size, const LossTerms& terms, int64_t microbatches) {
  check_loss_terms(terms, config);
  const ModelFamily& family = model_family(config.family);
  Builder b("loss");
  const std::vector<ParameterSpec> parameters = family.parameters(config, size.dtype);
  const ParameterSet weights = declare_parameters(b, parameters);
  RouterOutputs routers;
  const HiddenBatch batch = hidden_of_batch(b, family, config, weights, size, &routers);
  const Tensor targets = b.input("targets", int_type(size));
  const Tensor loss_weights = b.input("loss_weights", int_type(size).with_dtype(DType::kF32));
  const Tensor loss_scale = b.input("loss_scale", {DType::kF32, {}});
  const bool several = terms.mtp > 0 || terms.balance > 0 || terms.sequence_balance > 0 || terms.router_z > 0;
  LossSum loss(b,
               next_token_loss(batch.hidden, family.head(config, weights), targets, loss_weights, loss_scale, config.final_logit_softcap),
               several);
  if (terms.mtp > 0) loss.add("mtp_loss", mtp_loss(b, family, config, weights, size, batch, loss_scale, &routers), terms.mtp);
  if (!routers.empty())
    add_router_terms(b, config, parameters, terms, routers, *batch.tokens.segment_ids, 1.0 / static_cast<double>(microbatches), loss);
  b.output("loss", loss.sum());
  return b.take();
}

Program trace_decode(const ModelConfig& config, const DecodeSize& size) {
  const ModelFamily& family = model_family(config.family);
  Builder b("decode");
  const ParameterSet weights = declare_parameters(b, family.parameters(config, size.dtype));
  const Type row = int_type({.batch = 1, .seq = size.tokens});
  const Tensor input_ids = b.input("input_ids", row);
  const Tensor position_ids = b.input("position_ids", row);
  const Tensor slots = b.input("slots", row);
  const Tensor logit_rows = b.input("logit_rows", {DType::kI32, {{"slot", size.slots}}});
  const Tokens tokens = Tokens::through_caches(
      position_ids,
      {.slots = slots, .num_slots = size.slots, .length = size.cache_length, .step_tokens = std::max(size.step_tokens, size.tokens)});
  const Tensor x = family.hidden(config, weights, input_ids, tokens, nullptr);
  b.output("logits", vocabulary_logits(select_tokens(x, logit_rows), family.head(config, weights), config.final_logit_softcap));
  return b.take();
}

}  // namespace mw
