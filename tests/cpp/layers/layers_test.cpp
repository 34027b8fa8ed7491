// Layers against their formulas in plain loops, and what ops they emit.
#include <cmath>

#include "exec/reference/evaluate.h"
#include "layers/embedding.h"
#include "layers/mlp.h"
#include "layers/norm.h"
#include "runner.h"

namespace mw::testing {
namespace {

const Dim kBatch{"batch", 1}, kSeq{"seq", 2}, kEmbed{"embed", 3}, kMlp{"mlp", 2}, kVocab{"vocab", 4}, kPosition{"positions", 5};
const Type kX{DType::kF32, {kBatch, kSeq, kEmbed}}, kIds{DType::kI32, {kBatch, kSeq}};

// Traces with inputs made of their values, and evaluates the one result.
class Traced {
 public:
  Tensor input(Type type, std::vector<double> values) {
    const std::string name = "input" + std::to_string(inputs_.size());
    inputs_[name] = {type, std::move(values)};
    return builder_.input(name, type);
  }
  std::vector<double> values(Tensor result) {
    builder_.output("y", result);
    return evaluate_reference(builder_.program(), inputs_, {.round_results = false}).at("y").data;
  }
  std::vector<std::string> ops() const {
    std::vector<std::string> list;
    for (const Op& op : builder_.program().ops)
      list.push_back(std::string(op.def->name) + " @ " + builder_.program().scopes[static_cast<size_t>(op.scope)]);
    return list;
  }

 private:
  Builder builder_;
  std::map<std::string, HostArray> inputs_;
};

const std::vector<double> kValues{0.5, -1, 2, 0.25, -0.75, 1};
const std::vector<double> kUp{1, 0, -0.5, 2, 0.25, 0.75}, kDown{0.5, -1, 1, 2, -0.25, 0.125};

double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

std::vector<double> transposed(const std::vector<double>& x, size_t rows, size_t columns) {
  std::vector<double> y(x.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) y[c * rows + r] = x[r * columns + c];
  }
  return y;
}

}  // namespace

TEST(layers, mlp_is_two_matrices_with_biases_in_either_memory_order) {
  const std::vector<double> up_bias{0.1, -0.2}, down_bias{1, 2, 3};
  std::vector<double> expected;
  for (size_t token = 0; token < 2; ++token) {
    double hidden[2];
    for (size_t m = 0; m < 2; ++m) {
      double sum = up_bias[m];
      for (size_t e = 0; e < 3; ++e) sum += kValues[token * 3 + e] * kUp[m * 3 + e];
      hidden[m] = gelu(sum);
    }
    for (size_t e = 0; e < 3; ++e) expected.push_back(down_bias[e] + hidden[0] * kDown[e * 2] + hidden[1] * kDown[e * 2 + 1]);
  }
  for (const bool in_first : {false, true}) {
    Traced t;
    const Tensor x = t.input(kX, kValues);
    const Tensor up =
        in_first ? t.input({DType::kF32, {kEmbed, kMlp}}, transposed(kUp, 2, 3)) : t.input({DType::kF32, {kMlp, kEmbed}}, kUp);
    const Tensor down =
        in_first ? t.input({DType::kF32, {kMlp, kEmbed}}, transposed(kDown, 3, 2)) : t.input({DType::kF32, {kEmbed, kMlp}}, kDown);
    const MlpWeights weights{.up = up,
                             .down = down,
                             .up_bias = t.input({DType::kF32, {kMlp}}, up_bias),
                             .down_bias = t.input({DType::kF32, {kEmbed}}, down_bias)};
    const Tensor y = mlp(x, weights, "gelu_erf");
    EXPECT_EQ(to_string(y.type()), "f32[batch=1, seq=2, embed=3]");
    const std::vector<std::string> ops{"dot @ mlp.up", "add @ mlp.up", "gelu_erf @ mlp.activation", "dot @ mlp.down", "add @ mlp.down"};
    EXPECT(t.ops() == ops);
    const std::vector<double> found = t.values(y);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-12);
  }
}

TEST(layers, mlp_without_biases_emits_none) {
  Traced t;
  const Tensor x = t.input(kX, kValues);
  mlp(x, {.up = t.input({DType::kF32, {kMlp, kEmbed}}, kUp), .down = t.input({DType::kF32, {kEmbed, kMlp}}, kDown)}, "relu");
  EXPECT_EQ(t.ops().size(), size_t{3});
}

TEST(layers, norms_stand_under_their_scopes) {
  Traced t;
  const Tensor x = t.input(kX, kValues), w = t.input({DType::kF32, {kEmbed}}, {1, 2, 3});
  const Tensor rms = scaled_rms_norm("a", x, w, 1e-6, true), layer = scaled_layer_norm("b", x, w, w, 1e-5);
  const std::vector<std::string> ops{"rms_norm @ a", "layer_norm @ b"};
  EXPECT(t.ops() == ops);
  const double mean = (kValues[0] + kValues[1] + kValues[2]) / 3;
  double square = 0, variance = 0;
  for (int i = 0; i < 3; ++i) square += kValues[i] * kValues[i] / 3, variance += (kValues[i] - mean) * (kValues[i] - mean) / 3;
  EXPECT_NEAR(t.values(rms + layer)[1],
              kValues[1] / std::sqrt(square + 1e-6) * 3 + (kValues[1] - mean) / std::sqrt(variance + 1e-5) * 2 + 2, 1e-9);
}

TEST(layers, embeddings_take_a_multiplier_rounded_to_their_dtype) {
  for (const auto& [dtype, factor] : {std::pair{DType::kBF16, 55.5}, std::pair{DType::kF32, 55.42562484741211}}) {
    Traced t;
    const Tensor table = t.input({dtype, {kVocab, kEmbed}}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}), ids = t.input(kIds, {2, 0});
    const std::vector<double> expected{7 * factor, 8 * factor, 9 * factor, factor, 2 * factor, 3 * factor};
    EXPECT(t.values(embed_tokens(table, ids, std::sqrt(3072.0))) == expected);
  }
}

TEST(layers, a_multiplier_of_one_costs_nothing) {
  Traced t;
  embed_tokens(t.input({DType::kF32, {kVocab, kEmbed}}, std::vector<double>(12, 1)), t.input(kIds, {2, 0}));
  EXPECT(t.ops() == std::vector<std::string>{"gather_rows @ embedding"});
}

TEST(layers, learned_positions_are_rows_of_a_table) {
  Traced t;
  const Tensor table = t.input({DType::kF32, {kPosition, kEmbed}}, {0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Tensor y = t.input(kX, kValues) + embed_positions(table, t.input(kIds, {4, 1}));
  const std::vector<double> expected{10.5, 10, 14, 1.25, 1.25, 4};
  EXPECT_EQ(t.ops()[0], "gather_rows @ position_embedding");
  EXPECT(t.values(y) == expected);
}

TEST(layers, logits_and_loss_take_a_softcap) {
  Traced t, plain;
  const std::vector<double> head{1, 0, -0.5, 2, 0.25, 0.75, 3, 1, 1, -2, 0, 1};
  const Tensor x = t.input(kX, kValues), w = t.input({DType::kF32, {kVocab, kEmbed}}, head);
  const Tensor targets = t.input(kIds, {1, 3}), weights = t.input({DType::kF32, {kBatch, kSeq}}, {1, 0.5});
  const Tensor logits = vocabulary_logits(x, w, 1.5), loss = next_token_loss(x, w, targets, weights, t.input({DType::kF32, {}}, {2}), 1.5);
  double logit[2][4], expected = 0;
  for (size_t token = 0; token < 2; ++token) {
    double sum = 0;
    for (size_t v = 0; v < 4; ++v) {
      double z = 0;
      for (size_t e = 0; e < 3; ++e) z += kValues[token * 3 + e] * head[v * 3 + e];
      logit[token][v] = 1.5 * std::tanh(z / 1.5);
      sum += std::exp(logit[token][v]);
    }
    expected += 2 * (token == 0 ? 1 : 0.5) * (std::log(sum) - logit[token][token == 0 ? 1 : 3]);
  }
  const std::vector<double> found = t.values(logits + loss);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(found[i], logit[i / 4][i % 4] + expected, 1e-9);

  vocabulary_logits(plain.input(kX, kValues), plain.input({DType::kF32, {kVocab, kEmbed}}, head));
  EXPECT(plain.ops() == std::vector<std::string>{"dot @ head"});
}

}  // namespace mw::testing
