#include "ops/attention_terms.h"

#include <string>

#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

Tensor integer(Builder& builder, int64_t value) { return constant(builder, static_cast<double>(value), Type{DType::kI32, {}}); }

// i32[DIM]: the global index of each element of a shard.
Tensor indices_in_whole(Builder& builder, const Dim& rows, const std::vector<Tensor>& starts) {
  if (starts.empty()) return iota(builder, rows);
  std::vector<Tensor> runs;
  for (const Tensor& start : starts) runs.push_back(iota(builder, {rows.name, rows.size / static_cast<int64_t>(starts.size())}) + start);
  return runs.size() == 1 ? runs[0] : concat(runs, rows.name);
}

}  // namespace

MaskedScores masked_by(Tensor scores, Tensor visible) {
  return {select(visible, scores, constant(*scores.builder, kNothingVisible)), visible};
}

Tensor attention_scores(Tensor q, Tensor k, const AttentionAttributes& attributes) {
  const Tensor scores = dot(q, k, {"head_dim"}, DType::kF32);
  if (attributes.softcap == 0) return scores * attributes.scale;
  return unary("tanh", scores * (attributes.scale / attributes.softcap)) * attributes.softcap;
}

MaskedScores masked_scores(Tensor q, Tensor k, const std::vector<Tensor>& segments, const std::vector<Tensor>& starts,
                           const std::vector<Tensor>& key_starts, const AttentionAttributes& attributes) {
  Builder& builder = *q.builder;
  const Tensor scores = attention_scores(q, k, attributes);
  const Dim rows{"seq", q.size("seq")}, keys{"kv_seq", k.size("kv_seq")}, batch{"batch", q.size("batch")};
  const Tensor j = indices_in_whole(builder, keys, key_starts),
               i = broadcast_to(indices_in_whole(builder, rows, starts), Type{DType::kI32, {rows, keys}});
  Tensor visible = attributes.causal ? binary("ge", i, j) : binary("ge", j, integer(builder, 0));
  if (attributes.window > 0) visible = binary("logical_and", binary("lt", i - j, integer(builder, attributes.window)), visible);
  if (!segments.empty()) {
    const Tensor same = binary("eq", broadcast_to(segments[0], Type{DType::kI32, {batch, rows, keys}}), segments[1]);
    visible = binary("logical_and", same, visible);
  }
  return masked_by(scores, visible);
}

std::vector<Tensor> attend(const SoftmaxTerms& terms, DType dtype, Tensor v) {
  Builder& builder = *v.builder;
  const auto& [scores, visible] = terms.masked;
  const Tensor zero = constant(builder, 0.0), one = constant(builder, 1.0);
  Tensor largest = reduce_max(scores, {"kv_seq"});
  std::optional<Tensor> sinks;
  if (terms.sinks) {
    sinks = cast(*terms.sinks, DType::kF32);
    largest = maximum(largest, *sinks);
  }
  const Tensor weights = select(visible, exp(scores - largest), zero);
  Tensor sum = reduce_sum(weights, {"kv_seq"});
  if (sinks) sum = sum + exp(*sinks - largest);
  const Tensor any = binary("gt", sum, zero);
  const Tensor divisor = select(any, sum, one);
  const Tensor out = dot(cast(weights / divisor, dtype), v, {"kv_seq"});
  return {out, select(any, largest + log(divisor), constant(builder, kNothingVisible))};
}

std::vector<Tensor> attend_gradient(const SoftmaxTerms& terms, const AttentionAttributes& attributes, Tensor q, Tensor k, Tensor v,
                                    const AttentionOutputs& outputs, DType sinks_dtype) {
  const auto& [scores, visible] = terms.masked;
  const std::string value_dim = v.type().dims.back().name;
  const Tensor zero = constant(*q.builder, 0.0);
  const Tensor p = select(visible, exp(scores - outputs.lse), zero);
  Tensor delta = reduce_sum(cast(outputs.dout, DType::kF32) * cast(outputs.out, DType::kF32), {value_dim});
  if (outputs.dlse) delta = delta - *outputs.dlse;
  const Tensor dp = dot(outputs.dout, v, {value_dim}, DType::kF32);
  Tensor ds = p * (dp - delta) * attributes.scale;
  if (attributes.softcap > 0) {
    const Tensor tanh = select(visible, scores, zero) * (1 / attributes.softcap);
    ds = ds * (-square(tanh) + 1.0);
  }
  const Tensor rounded = cast(ds, q.dtype());
  const Tensor dq = dot(rounded, k, {"kv_seq"}), dk = dot(rounded, q, {"seq", "q_per_kv"}),
               dv = dot(cast(p, q.dtype()), outputs.dout, {"seq", "q_per_kv"});
  std::vector<Tensor> gradients{dq, reorder(dk, k.type().dim_names()), reorder(dv, v.type().dim_names())};
  if (terms.sinks) {
    const Tensor share = exp(cast(*terms.sinks, DType::kF32) - outputs.lse);
    gradients.push_back(cast(sum_to(-(share * delta), terms.sinks->type(), DType::kF32), sinks_dtype));
  }
  return gradients;
}

}  // namespace mw
