#include "layers/embedding.h"

#include "base/dtype.h"
#include "ops/cross_entropy.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/gather.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {

namespace {

double rounded_to(DType dtype, double value) {
  alignas(8) unsigned char element[8];
  store_element(dtype, element, 0, value);
  return load_element(dtype, element, 0);
}

}  // namespace

Tensor embed_tokens(Tensor table, Tensor ids, double multiplier) {
  const Scope scope(*ids.builder, "embedding");
  const Tensor rows = gather_rows(table, ids, "vocab");
  return multiplier == 1 ? rows : rows * rounded_to(table.dtype(), multiplier);
}

Tensor embed_positions(Tensor table, Tensor positions) {
  const Scope scope(*positions.builder, "position_embedding");
  return gather_rows(table, positions, "positions");
}

Tensor vocabulary_logits(Tensor x, Tensor head, double softcap) {
  const Scope scope(*x.builder, "head");
  const Tensor logits = dot(x, head, {"embed"}, DType::kF32);
  return softcap > 0 ? unary("tanh", logits * (1 / softcap)) * softcap : logits;
}

Tensor select_tokens(Tensor x, Tensor rows) {
  const Scope scope(*x.builder, "head");
  return gather_rows(merge(x, {"batch", "seq"}, "tokens"), rows, "tokens");
}

Tensor next_token_loss(Tensor x, Tensor head, Tensor targets, Tensor loss_weights, Tensor loss_scale, double softcap) {
  const Scope scope(*x.builder, "loss");
  const Tensor nll = cross_entropy(x, head, targets, softcap);
  return reduce_sum(nll * loss_weights, {"batch", "seq"}) * loss_scale;
}

}  // namespace mw
