// What the cases of attention do not say: how pairs are counted, and that FLOPs count visible pairs only.
#include "ops/attention.h"

#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {

TEST(ops, attention_counts_the_pairs_that_see_each_other) {
  for (const bool causal : {false, true}) {
    for (const int64_t seq : {1, 5, 8}) {
      for (const int64_t window : {0, 1, 3, 8, 20}) {
        double counted = 0;
        for (int64_t i = 0; i < seq; ++i) {
          for (int64_t j = 0; j < seq; ++j) counted += (!causal || j <= i) && (window == 0 || j > i - window);
        }
        EXPECT_EQ(visible_pairs({.causal = causal, .window = window}, seq, seq), counted);
      }
    }
  }
  EXPECT_EQ(visible_pairs({.causal = false}, 3, 7), 21.0);
  for (const bool causal : {false, true}) {
    for (const int64_t chunk : {1, 3, 8, 20}) {
      double counted = 0;
      for (int64_t i = 0; i < 8; ++i) {
        for (int64_t j = 0; j < 8; ++j) counted += (!causal || j <= i) && i / chunk == j / chunk;
      }
      EXPECT_EQ(visible_pairs({.causal = causal, .chunk = chunk}, 8, 8), counted);
    }
  }
}

TEST(ops, attention_flops_are_two_products_and_five_for_the_gradient) {
  const Type q{DType::kF32, {{"batch", 2}, {"seq", 16}, {"kv_heads", 2}, {"q_per_kv", 3}, {"head_dim", 4}}};
  const Type k{DType::kF32, {{"batch", 2}, {"kv_seq", 16}, {"kv_heads", 2}, {"head_dim", 4}}};
  const Type lse{DType::kF32, {{"batch", 2}, {"seq", 16}, {"kv_heads", 2}, {"q_per_kv", 3}}};
  const Attributes attributes = AttentionAttributes{}.to_attributes();
  const double pairs = 16 * 17 / 2, heads = 2 * 2 * 3;
  const Signature forward{.operands = {&q, &k, &k}, .results = {&q, &lse}, .attributes = &attributes};
  const Signature backward{.operands = {&q, &k, &k, &q, &lse, &q}, .results = {&q, &k, &k}, .attributes = &attributes};
  EXPECT_EQ(cost_of(*find_op("attention"), forward).flops, 4 * pairs * heads * 4);
  EXPECT_EQ(cost_of(*find_op("attention_gradient"), backward).flops, 10 * pairs * heads * 4);
}

}  // namespace mw::testing
