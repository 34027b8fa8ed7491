#include "models/programs.h"

#include <algorithm>

#include "layers/embedding.h"
#include "models/registry.h"

namespace mw {
namespace {

Type int_type(const BatchSize& size) { return {DType::kI32, {{"batch", size.batch}, {"seq", size.seq}}}; }

// The model up to the final norm over a batch of whole sequences.
Tensor hidden_of_batch(Builder& b, const ModelFamily& family, const ModelConfig& config, const ParameterSet& weights,
                       const BatchSize& size) {
  const Tensor input_ids = b.input("input_ids", int_type(size));
  const Tensor position_ids = b.input("position_ids", int_type(size));
  const Tensor segment_ids = b.input("segment_ids", int_type(size));
  return family.hidden(config, weights, input_ids, Tokens::in_sequence(position_ids, segment_ids));
}

}  // namespace

Program trace_forward(const ModelConfig& config, const BatchSize& size) {
  const ModelFamily& family = model_family(config.family);
  Builder b("forward");
  const ParameterSet weights = declare_parameters(b, family.parameters(config, size.dtype));
  const Tensor x = hidden_of_batch(b, family, config, weights, size);
  b.output("logits", vocabulary_logits(x, family.head(config, weights)));
  return b.take();
}

Program trace_loss(const ModelConfig& config, const BatchSize& size) {
  const ModelFamily& family = model_family(config.family);
  Builder b("loss");
  const ParameterSet weights = declare_parameters(b, family.parameters(config, size.dtype));
  const Tensor x = hidden_of_batch(b, family, config, weights, size);
  const Tensor targets = b.input("targets", int_type(size));
  const Tensor loss_weights = b.input("loss_weights", int_type(size).with_dtype(DType::kF32));
  const Tensor loss_scale = b.input("loss_scale", {DType::kF32, {}});
  b.output("loss", next_token_loss(x, family.head(config, weights), targets, loss_weights, loss_scale));
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
  const Tensor x = family.hidden(config, weights, input_ids, tokens);
  b.output("logits", vocabulary_logits(select_tokens(x, logit_rows), family.head(config, weights)));
  return b.take();
}

}  // namespace mw
