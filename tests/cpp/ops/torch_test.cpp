// References against torch 2.13 in float64 (rope: transformers 5.23): operand element i is sin(1.3 i + k), and the figure is the sum over
// the result's elements y_i cos(0.7 i).
#include <cmath>

#include "exec/reference/evaluate.h"
#include "ops/ops.h"
#include "runner.h"

namespace mw::testing {
namespace {

class Digest {
 public:
  Tensor wave(const std::string& type, double k, double scale = 1) {
    HostArray array{parse_type(type), {}};
    for (int64_t i = 0; i < array.type.elements(); ++i) array.data.push_back(std::sin(1.3 * static_cast<double>(i) + k) * scale);
    return add(std::move(array));
  }
  Tensor integers(const std::string& type, std::vector<double> values) { return add({parse_type(type), std::move(values)}); }

  double of(Tensor result) {
    builder_.output("y", result);
    const HostArray y = evaluate_reference(builder_.program(), inputs_, {.round_results = false}).at("y");
    double sum = 0;
    for (size_t i = 0; i < y.data.size(); ++i) sum += y.data[i] * std::cos(0.7 * static_cast<double>(i));
    return sum;
  }

 private:
  Tensor add(HostArray array) {
    const std::string name = "x" + std::to_string(inputs_.size());
    const Tensor tensor = builder_.input(name, array.type);
    inputs_[name] = std::move(array);
    return tensor;
  }
  Builder builder_;
  std::map<std::string, HostArray> inputs_;
};

}  // namespace

TEST(ops, norms_follow_torch) {
  Digest rms, layer;
  EXPECT_NEAR(rms.of(rms_norm(rms.wave("f32[batch=2, seq=3, embed=6]", 1), rms.wave("f32[embed=6]", 2), 1e-6)), 1.2449239169385302, 1e-10);
  const Tensor x = layer.wave("f32[batch=2, seq=3, embed=6]", 1), w = layer.wave("f32[embed=6]", 2), b = layer.wave("f32[embed=6]", 3);
  EXPECT_NEAR(layer.of(layer_norm(x, w, b, 1e-5)), 1.7179993234809967, 1e-10);
  Digest bare;
  EXPECT_NEAR(bare.of(rms_norm(bare.wave("f32[batch=2, seq=3, embed=6]", 1), "embed", 1e-6)), 2.9214221343503377, 1e-10);
}

TEST(ops, gated_activations_follow_torch) {
  const std::pair<const char*, double> expected[] = {
      {"silu", 0.36334893089005815}, {"gelu_tanh", 0.36754925283792395}, {"gelu_erf", 0.36760776886379376}};
  for (const auto& [kind, value] : expected) {
    Digest d;
    EXPECT_NEAR(d.of(gated_activation(d.wave("f32[seq=2, mlp=5]", 1, 2), d.wave("f32[seq=2, mlp=5]", 2), kind)), value, 1e-10);
  }
}

TEST(ops, clamped_swiglu_follows_gpt_oss) {
  Digest d;
  const Tensor gate = d.wave("f32[seq=2, mlp=5]", 1, 4), up = d.wave("f32[seq=2, mlp=5]", 2, 4);
  EXPECT_NEAR(d.of(gated_activation(gate, up, ClampedSwiglu{.limit = 2.5})), 3.522094297389564, 1e-10);
}

TEST(ops, attention_follows_torch) {
  Digest d;
  const Tensor q = d.wave("f32[batch=2, seq=5, kv_heads=2, q_per_kv=2, head_dim=4]", 1);
  const Tensor k = d.wave("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]", 2),
               v = d.wave("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]", 3);
  const std::vector<double> segments{1, 1, 1, 2, 2, 1, 2, 2, 2, 2};
  const Tensor rows = d.integers("i32[batch=2, seq=5]", segments), keys = d.integers("i32[batch=2, kv_seq=5]", segments);
  EXPECT_NEAR(d.of(attention(q, k, v, rows, keys, {.scale = 0.5, .causal = true, .window = 3})), -0.7211276751347716, 1e-10);
}

TEST(ops, rope_follows_transformers) {
  Digest d;
  const Tensor x = d.wave("f32[batch=2, seq=3, kv_heads=2, head_dim=8]", 1);
  EXPECT_NEAR(d.of(rope(x, d.integers("i32[batch=2, seq=3]", {0, 7, 1000, 3, 4, 5}), {})), 2.746359137726894,
              1e-6);  // its cos and sin are f32
}

TEST(ops, cross_entropy_follows_torch) {
  Digest d;
  const Tensor x = d.wave("f32[batch=2, seq=3, embed=4]", 1), w = d.wave("f32[vocab=7, embed=4]", 2);
  EXPECT_NEAR(d.of(cross_entropy(x, w, d.integers("i32[batch=2, seq=3]", {0, 6, -100, 3, -100, 2}))), -0.39571406777258067, 1e-10);
  Digest c;
  const Tensor z = c.wave("f32[batch=2, seq=3, embed=4]", 1), v = c.wave("f32[vocab=7, embed=4]", 2);
  EXPECT_NEAR(c.of(cross_entropy(z, v, c.integers("i32[batch=2, seq=3]", {0, 6, -100, 3, -100, 2}), 1.5)), -0.16891756230240706, 1e-10);
}

}  // namespace mw::testing
