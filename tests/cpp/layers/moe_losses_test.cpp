// The terms of mixtures of experts against loops written from their formulas.
#include "layers/moe_losses.h"

#include <cmath>

#include "exec/reference/evaluate.h"
#include "ops/elementwise.h"
#include "ops/harness.h"
#include "runner.h"

namespace mw {
namespace {

constexpr int64_t kBatch = 3, kSeq = 4, kExperts = 5, kTopK = 2, kTokens = kBatch * kSeq;

struct Numbers {
  HostArray logits, indices, token_weights;

  double logit(int64_t token, int64_t expert) const { return logits.data[static_cast<size_t>(token * kExperts + expert)]; }
  double counts(int64_t token) const { return token_weights.data[static_cast<size_t>(token)]; }
  double choices(int64_t token, int64_t expert) const {
    double n = 0;
    for (int64_t j = 0; j < kTopK; ++j) n += indices.data[static_cast<size_t>(token * kTopK + j)] == static_cast<double>(expert) ? 1 : 0;
    return n * counts(token);
  }
  double score(int64_t token, int64_t expert, bool sigmoid) const {
    const auto of = [&](double x) { return sigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x); };
    double sum = 0;
    for (int64_t e = 0; e < kExperts; ++e) sum += of(logit(token, e));
    return of(logit(token, expert)) / sum;
  }
};

Numbers numbers(uint64_t seed) {
  using namespace testing;
  const OpCase operands{.name = "router",
                        .operands = {normal("f32[batch=3, seq=4, experts=5]"), ids("i32[batch=3, seq=4, top_k=2]", 0, 5),
                                     exactly("f32[batch=3, seq=4]", {1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0})}};
  std::vector<HostArray> arrays = make_operands(operands, seed);
  return {arrays[0], arrays[1], arrays[2]};
}

double evaluate(const std::vector<Numbers>& layers, const std::function<Tensor(const std::vector<RouterOutput>&, Tensor)>& loss) {
  Builder b("loss");
  std::map<std::string, HostArray> inputs{{"token_weights", layers[0].token_weights}};
  std::vector<RouterOutput> routers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string n = std::to_string(i);
    routers.push_back({b.input("logits" + n, layers[i].logits.type), b.input("indices" + n, layers[i].indices.type)});
    inputs["logits" + n] = layers[i].logits;
    inputs["indices" + n] = layers[i].indices;
  }
  b.output("loss", loss(routers, b.input("token_weights", layers[0].token_weights.type)));
  return evaluate_reference(b.program(), inputs, {.round_results = false}).at("loss").data.at(0);
}

}  // namespace

TEST(moe_losses, load_balance_of_all_layers_together) {
  const std::vector<Numbers> layers{numbers(1), numbers(2)};
  double rows = 0, expected = 0;
  std::vector<double> choices(kExperts, 0), scores(kExperts, 0);
  for (const Numbers& n : layers) {
    for (int64_t t = 0; t < kTokens; ++t) {
      rows += n.counts(t);
      for (int64_t e = 0; e < kExperts; ++e) {
        choices[static_cast<size_t>(e)] += n.choices(t, e);
        scores[static_cast<size_t>(e)] += n.counts(t) * n.score(t, e, false);
      }
    }
  }
  for (size_t e = 0; e < kExperts; ++e) expected += kExperts * choices[e] / rows * (scores[e] / rows);
  EXPECT_NEAR(evaluate(layers, load_balance_loss), expected, 1e-12);
}

TEST(moe_losses, balance_of_each_sequence) {
  const Numbers n = numbers(3);
  for (const bool sigmoid : {false, true}) {
    double expected = 0;
    for (const int64_t row : {0, 2}) {  // sequence 1 is padding
      double tokens = 0;
      for (int64_t t = row * kSeq; t < (row + 1) * kSeq; ++t) tokens += n.counts(t);
      for (int64_t e = 0; e < kExperts; ++e) {
        double chosen = 0, share = 0;
        for (int64_t t = row * kSeq; t < (row + 1) * kSeq; ++t) {
          chosen += n.choices(t, e);
          share += n.counts(t) * n.score(t, e, sigmoid);
        }
        expected += kExperts * chosen / (kTopK * tokens) * (share / tokens) / 2;
      }
    }
    const double found = evaluate({n}, [&](const std::vector<RouterOutput>& layers, Tensor token_weights) {
      return sequence_balance_loss(layers[0], token_weights, sigmoid ? "sigmoid" : "softmax");
    });
    EXPECT_NEAR(found, expected, 1e-12);
  }
}

TEST(moe_losses, z_loss) {
  const Numbers n = numbers(4);
  double sum = 0, tokens = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    double exponentials = 0;
    for (int64_t e = 0; e < kExperts; ++e) exponentials += std::exp(n.logit(t, e));
    sum += n.counts(t) * std::pow(std::log(exponentials), 2);
    tokens += n.counts(t);
  }
  const auto loss = [](const std::vector<RouterOutput>& layers, Tensor token_weights) { return router_z_loss(layers[0], token_weights); };
  EXPECT_NEAR(evaluate({n}, loss), sum / tokens, 1e-12);
}

TEST(moe_losses, a_batch_of_padding_costs_nothing) {
  Numbers n = numbers(5);
  std::fill(n.token_weights.data.begin(), n.token_weights.data.end(), 0.0);
  const auto all = [](const std::vector<RouterOutput>& layers, Tensor token_weights) {
    return load_balance_loss(layers, token_weights) + router_z_loss(layers[0], token_weights) +
           sequence_balance_loss(layers[0], token_weights, "sigmoid");
  };
  EXPECT_EQ(evaluate({n}, all), 0.0);
}

}  // namespace mw
