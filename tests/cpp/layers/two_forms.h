// An attention layer in its two forms, within the sequence and through caches, on the references.
//
//   expect_same_in_both_forms("window", {.build = [](Tensor x, const Tokens& tokens) { return self_attention(x, ...); }, .seq = 20});
#pragma once
#include <functional>
#include <map>
#include <string>

#include "layers/attention.h"
#include "ops/harness.h"

namespace mw::testing {

using Arrays = std::map<std::string, HostArray>;

struct TwoForms {
  std::function<Tensor(Tensor x, const Tokens& tokens)> build;  // declares its parameters in x's builder
  int64_t seq = 12, embed = 6;
  int64_t step = 5;          // tokens of a step
  int64_t cache_length = 0;  // 0: seq
};

// y[batch=2, seq, embed] of two sequences; their first token has position `first`.
HostArray run_in_sequence(const TwoForms& layer, int64_t first = 0);

// Feeds both sequences through caches, in steps of mixed lengths, and compares every token. Gives the types of the caches by name.
std::map<std::string, Type> expect_same_in_both_forms(const std::string& what, const TwoForms& layer);

}  // namespace mw::testing
