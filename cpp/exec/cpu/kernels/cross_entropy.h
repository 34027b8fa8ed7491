// Cross-entropy over a vocabulary projection, without ever holding tokens x vocabulary:
//   logits = x w^T,   nll[t] = log(sum_v exp(logits[t, v])) - logits[t, target[t]]
// or, with a softcap c > 0 (Gemma 2), logits = c tanh(x w^T / c).
//
//   CrossEntropy c{.tokens = 2048, .vocab = 32000, .embed = 768, .x = {x, kF32, 768}, .w = {w, kF32, 768}, .targets = targets};
//   cross_entropy_forward(c, {.lse = lse, .target_logit = logit}, isa, workspace, pool);
//   cross_entropy_with_gradients(c, {.scale = g, .nll = nll, .dx = {dx, kF32, 768}, .dw = dw, .dw_row = 768}, isa, workspace, pool);
//
// Tokens are taken in chunks. In a chunk the transposed logits pass through the first-level cache; e = exp(logit - reference) is what is
// kept (vocab x chunk). The reference is the target's logit, so the sum of e is at least 1; a chunk in which an exponent passes +60 is
// done again with the maxima of those rows. Row factors scale / sum(e) go to dX's rows and to the copy of x that dW is multiplied from.
// Where dX is faster as its transpose (Intel), a worker takes a group of tokens through some rows of the vocabulary, logits, e and dX, so
// that e comes from its own cache; e is then written twice, for dX in panels and for dW in rows.
// With a softcap, what is kept for the gradients is e (1 - (logit / c)^2).
// A negative target is none: nll 0, and of the gradient only the log-sum-exp's part stays (scale 0 leaves the token out). With the
// vocabulary in shards (offset), a target outside [offset, offset + vocab) is some other shard's: target logit 0 and no one-hot term here.
// Results do not depend on the number of threads; a token's lse does not depend on the chunk.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

struct RowsIn {
  const void* data;
  DType type;   // kF32 or kBF16
  int64_t row;  // elements from row to row
};
struct RowsOut {
  void* data;
  DType type;
  int64_t row;
};

struct CrossEntropy {
  int64_t tokens, vocab, embed;
  RowsIn x;  // [tokens, embed]
  RowsIn w;  // [vocab, embed]
  const int32_t* targets;
  int64_t vocab_offset = 0;
  float softcap = 0;     // 0: none
  int64_t chunk = 1024;  // tokens; scratch with gradients is about vocab x chunk x (4 bytes f32, 2 bytes bf16)
};

struct CrossEntropyForward {
  float* lse;            // of this shard's logits, for every token
  float* target_logit;   // nullable; 0 where there is none or it is another shard's
  float* nll = nullptr;  // nullable; lse - target logit, 0 without a target (for a vocabulary in one shard)
};

struct CrossEntropyGradients {
  const float* scale;             // [tokens]: d loss / d nll
  const float* lse_in = nullptr;  // cross_entropy_gradients only: over the whole vocabulary
  float* lse = nullptr;           // with_gradients only, nullable
  float* target_logit = nullptr;  // with_gradients only, nullable
  float* nll = nullptr;           // with_gradients only, nullable
  RowsOut dx;                     // [tokens, embed]
  float* dw;                      // [vocab, embed]
  int64_t dw_row;
  bool accumulate_dw = false;
};

enum class CrossEntropyPass { kForward, kWithGradients, kGradients };
int64_t cross_entropy_workspace_bytes(const CrossEntropy& c, CrossEntropyPass pass, Isa isa);

void cross_entropy_forward(const CrossEntropy& c, const CrossEntropyForward& out, Isa isa, void* workspace, ThreadPool& pool);
// Loss and both gradients in three products.
void cross_entropy_with_gradients(const CrossEntropy& c, const CrossEntropyGradients& g, Isa isa, void* workspace, ThreadPool& pool);
// Gradients alone, from a known lse: forms the logits again (four products with the forward).
void cross_entropy_gradients(const CrossEntropy& c, const CrossEntropyGradients& g, Isa isa, void* workspace, ThreadPool& pool);

}  // namespace mw
