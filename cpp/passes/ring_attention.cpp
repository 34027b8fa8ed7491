#include "passes/ring_attention.h"

#include "ops/attention.h"
#include "ops/ops.h"

namespace mw {
namespace {

class Ring {
 public:
  Ring(Builder& builder, const Op& op, const std::vector<Tensor>& operands, const AxisPart& part)
      : builder_(builder),
        op_(op),
        operands_(operands),
        optional_(optional_operands(op.attributes, is_gradient() ? 6 : 3, operands.size())),
        settings_(AttentionAttributes::from(op.attributes)),
        axes_(part_names({part})),
        parts_(part.size) {
    traveling_ = {1, 2};
    if (optional_.segments > 0) traveling_.push_back(optional_.segments + 1);
  }

  std::vector<Tensor> forward() {
    const DType dtype = operands_[0].dtype();
    std::optional<Tensor> out, lse;
    for (int64_t step = 0; step < parts_; ++step) {
      const std::vector<Tensor> now = visit(step);
      const Tensor part = cast(now[0], DType::kF32);
      if (!out) {
        out = part, lse = now[1];
        continue;
      }
      // Two softmaxes as one: their outputs weighted by exp(lse - lse of both).
      const Tensor top = maximum(*lse, now[1]), both = top + log(exp(*lse - top) + exp(now[1] - top));
      out = *out * exp(*lse - both) + part * exp(now[1] - both);
      lse = both;
    }
    return {cast(*out, dtype), *lse};
  }

  // dk and dv of a rank's keys, as far as they are known, go on with those keys; one more step brings them home.
  std::vector<Tensor> gradient() {
    std::vector<std::optional<Tensor>> sums(3);
    std::vector<Tensor> results;
    for (int64_t step = 0; step < parts_; ++step) {
      const std::vector<Tensor> now = visit(step);
      for (size_t i = 0; i < 3; ++i) {
        const Tensor part = cast(now[i], DType::kF32);
        if (!sums[i]) {
          sums[i] = part;
        } else {
          sums[i] = (i == 0 ? *sums[i] : shifted(*sums[i])) + part;
        }
      }
      if (step == 0) results = now;  // the sinks' gradient is there
    }
    for (size_t i = 0; i < 3; ++i) results[i] = cast(i == 0 ? *sums[i] : shifted(*sums[i]), results[i].dtype());
    return results;
  }

  bool is_gradient() const { return op_.def->name == "attention_gradient"; }

 private:
  Tensor shifted(Tensor x) { return ring_shift(x, axes_, parts_); }

  // The op on the keys of the rank `step` before this one.
  std::vector<Tensor> visit(int64_t step) {
    if (step == 0) here_ = operands_;
    const std::vector<Tensor> met = here_;
    if (step + 1 < parts_) {  // before the op, so that it may run behind it
      for (const size_t i : traveling_) here_[i] = shifted(met[i]);
    }
    std::vector<Tensor> given = met;
    Attributes attributes = op_.attributes;
    // A sink is one term of the whole softmax.
    if (step > 0 && optional_.sinks > 0) {
      given.erase(given.begin() + static_cast<std::ptrdiff_t>(optional_.sinks));
      attributes.erase("sinks");
      attributes.erase("sinks_dtype");
    }
    attributes.set(kRingParts, parts_);
    if (settings_.causal || settings_.window > 0 || settings_.chunk > 0) {
      for (const Tensor& start : zigzag_offsets(builder_, axes_, parts_, operands_[0].size("seq"))) given.push_back(start);
      for (const Tensor& start : zigzag_offsets(builder_, axes_, parts_, operands_[1].size("kv_seq"), step)) given.push_back(start);
      attributes.set("offsets", std::vector<std::string>{"seq", "seq", "kv_seq", "kv_seq"});
    }
    return builder_.append(*op_.def, given, std::move(attributes), Source());
  }

  Builder& builder_;
  const Op& op_;
  const std::vector<Tensor>& operands_;
  const OptionalOperands optional_;
  const AttentionAttributes settings_;
  const std::vector<std::string> axes_;
  const int64_t parts_;
  std::vector<size_t> traveling_;
  std::vector<Tensor> here_;  // operands as they are here at the next step
};

}  // namespace

bool is_attention(const Op& op) { return op.def->name == "attention" || op.def->name == "attention_gradient"; }

std::vector<Tensor> ring_attention(Builder& builder, const Op& op, const std::vector<Tensor>& operands, const AxisPart& part) {
  Ring ring(builder, op, operands, part);
  return ring.is_gradient() ? ring.gradient() : ring.forward();
}

}  // namespace mw
