#include "ops/attention_terms.h"

#include <string>

#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

Tensor integer(Builder& builder, int64_t value) { return constant(builder, static_cast<double>(value), Type{DType::kI32, {}}); }

}  // namespace

MaskedScores masked_by(Tensor scores, Tensor visible) {
  return {select(visible, scores, constant(*scores.builder, kNothingVisible)), visible};
}

MaskedScores masked_scores(Tensor q, Tensor k, const std::vector<Tensor>& segments, const AttentionAttributes& attributes) {
  Builder& builder = *q.builder;
  const Tensor scores = dot(q, k, {"head_dim"}, DType::kF32) * attributes.scale;
  const Dim rows{"seq", q.size("seq")}, keys{"kv_seq", k.size("kv_seq")}, batch{"batch", q.size("batch")};
  const Tensor j = iota(builder, keys), i = broadcast_to(iota(builder, rows), Type{DType::kI32, {rows, keys}});
  Tensor visible = attributes.causal ? binary("ge", i, j) : binary("ge", j, integer(builder, 0));
  if (attributes.window > 0) visible = binary("logical_and", binary("lt", i - j, integer(builder, attributes.window)), visible);
  if (!segments.empty()) {
    const Tensor same = binary("eq", broadcast_to(segments[0], Type{DType::kI32, {batch, rows, keys}}), segments[1]);
    visible = binary("logical_and", same, visible);
  }
  return masked_by(scores, visible);
}

std::vector<Tensor> attend(const MaskedScores& masked, DType dtype, Tensor v) {
  Builder& builder = *v.builder;
  const Tensor zero = constant(builder, 0.0), one = constant(builder, 1.0);
  const Tensor largest = reduce_max(masked.scores, {"kv_seq"});
  const Tensor weights = select(masked.visible, exp(masked.scores - largest), zero);
  const Tensor sum = reduce_sum(weights, {"kv_seq"});
  const Tensor any = binary("gt", sum, zero);
  const Tensor divisor = select(any, sum, one);
  const Tensor out = dot(cast(weights / divisor, dtype), v, {"kv_seq"});
  return {out, select(any, largest + log(divisor), constant(builder, kNothingVisible))};
}

std::vector<Tensor> attend_gradient(const MaskedScores& masked, double scale, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                                    Tensor dout) {
  const std::string value_dim = v.type().dims.back().name;
  const Tensor p = select(masked.visible, exp(masked.scores - lse), constant(*q.builder, 0.0));
  const Tensor delta = reduce_sum(cast(dout, DType::kF32) * cast(out, DType::kF32), {value_dim});
  const Tensor dp = dot(dout, v, {value_dim}, DType::kF32);
  const Tensor ds = cast(p * (dp - delta) * scale, q.dtype());
  const Tensor dq = dot(ds, k, {"kv_seq"}), dk = dot(ds, q, {"seq", "q_per_kv"}), dv = dot(cast(p, q.dtype()), dout, {"seq", "q_per_kv"});
  return {dq, reorder(dk, k.type().dim_names()), reorder(dv, v.type().dim_names())};
}

}  // namespace mw
