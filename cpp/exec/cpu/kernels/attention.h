// Scaled dot-product attention without a seq x seq tensor; q heads share kv heads in groups (GQA, MQA).
//   out[b, i, h, g] = sum_j softmax_j(scale * q[b, i, h, g] . k[b, j, h]) v[b, j, h]       over the j that i may see
// Query i has the index x = queries(i), key j the index y = keys(j). It sees the key if, where asked for, y <= x (causal), y > x - window
// (window > 0; it works without causal too) and their segment ids are equal. A query that sees nothing has out 0
// and lse -1e30. softcap c > 0: a score s becomes c tanh(s / c), before the mask. sinks: one more logit per query head, without a value;
// lse holds it.
//
//   Attention a{.batch = 8, .seq = 256, .kv_seq = 256, .kv_heads = 4, .q_per_kv = 3, .head_dim = 64, .value_dim = 64, .type = kF32,
//               .q = q, .k = k, .v = v, .scale = 0.125f, .causal = true};
//   attention_forward(a, out, lse, isa, workspace, pool);                 // out dense, lse[batch, seq, kv_heads, q_per_kv]
//   attention_backward(a, {out, lse, dout, dq, dk, dv}, isa, workspace, pool);
//
// Scores are formed transposed, queries on the lanes: maxima and sums run down the keys, and nothing is reduced across a vector. The
// backward forms the probabilities again from lse. Results do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// The index of row i in the whole, where the rows are one stretch of it, or two of which the second begins behind the first.
struct RowIndex {
  int64_t offset = 0;
  int64_t second_run = 0, second_offset = 0;  // from row `second_run` on; 0: there is one run
  int64_t operator()(int64_t i) const { return i + (second_run > 0 && i >= second_run ? second_offset : offset); }
  // The last row whose index is at most x; below 0 when there is none, and perhaps beyond the rows.
  int64_t last_up_to(int64_t x) const {
    if (second_run == 0) return x - offset;
    return x >= second_run + second_offset ? x - second_offset : std::min(x - offset, second_run - 1);
  }
};

struct Attention {
  int64_t batch, seq, kv_seq, kv_heads, q_per_kv, head_dim, value_dim;
  DType type;                                     // of q, k, v, out and the gradients: kF32 or kBF16
  const void* q;                                  // [batch, seq, kv_heads, q_per_kv, head_dim]
  const void* k;                                  // [batch, kv_seq, kv_heads, head_dim]
  const void* v;                                  // [batch, kv_seq, kv_heads, value_dim]
  int64_t q_token = 0, k_token = 0, v_token = 0;  // elements from token to token; 0: dense
  float scale = 1.0f;
  bool causal = false;
  RowIndex queries{}, keys{};
  int64_t window = 0;
  const int32_t* q_segments = nullptr;   // [batch, seq]; both or none
  const int32_t* kv_segments = nullptr;  // [batch, kv_seq]
  float softcap = 0.0f;
  bool has_sinks = false;
  const void* sinks = nullptr;  // [kv_heads, q_per_kv]
  DType sinks_type = DType::kF32;
};

struct AttentionBackward {
  const void* out;  // all dense, as the forward wrote them
  const float* lse;
  const void* dout;
  void *dq, *dk, *dv;
  const float* dlse = nullptr;  // null: nothing depends on lse
  void* dsinks = nullptr;       // with sinks
  DType dsinks_type = DType::kF32;
};

// Attention of single tokens to a cache in which their own keys already stand. Token t belongs to slot[t] and sees the cached keys
// 0..position[t] (the last `window` of them, where window > 0; those of its own chunk, where chunk > 0). A token's result does not depend
// on the other tokens; neighbours that follow each other in one slot (a prefill) are worked on together. A token whose slot is negative is
// padding: its row is 0. In a ring the key of position p stands in row p % cache_seq, and cache_seq is a multiple of kKeyBlock that holds
// all that any token of the call sees; the bits are those of a cache without end.
struct CachedAttention {
  int64_t tokens, kv_heads, q_per_kv, head_dim, value_dim;
  int64_t slots, cache_seq;
  DType type;
  const void* q;        // [tokens, kv_heads, q_per_kv, head_dim]
  const void* k_cache;  // [slots, cache_seq, kv_heads, head_dim]
  const void* v_cache;  // [slots, cache_seq, kv_heads, value_dim]; null: the first value_dim elements of each key
  const int32_t* slot;
  const int32_t* position;
  float scale = 1.0f;
  int64_t window = 0, chunk = 0;
  float softcap = 0.0f;
  bool ring = false;
  const void* sinks = nullptr;  // [kv_heads, q_per_kv] or null
  DType sinks_type = DType::kF32;
};

int64_t attention_forward_workspace_bytes(const Attention& a, Isa isa, int threads);
void attention_forward(const Attention& a, void* out, float* lse, Isa isa, void* workspace, ThreadPool& pool);  // lse may be null

int64_t attention_backward_workspace_bytes(const Attention& a, Isa isa, int threads);
void attention_backward(const Attention& a, const AttentionBackward& b, Isa isa, void* workspace, ThreadPool& pool);

int64_t cached_attention_workspace_bytes(const CachedAttention& a, Isa isa, int threads);
// out [tokens, kv_heads, q_per_kv, value_dim]. UserError names the token whose slot or position lies outside the cache.
void cached_attention(const CachedAttention& a, void* out, Isa isa, void* workspace, ThreadPool& pool);

}  // namespace mw
