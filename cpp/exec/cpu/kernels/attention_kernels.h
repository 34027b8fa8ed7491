// The innermost kernels of attention for one instruction set: one block of up to 48 queries against the keys of one head.
#pragma once
#include <cstdint>

#include "exec/cpu/isa.h"

namespace mw {

inline constexpr float kNothingSeen = -1e30f;  // lse of a query that sees no key: finite, so that it can be merged and checked

inline constexpr int kQueryLanes = 32;      // of a block, as a rule
inline constexpr int kMostQueryLanes = 48;  // of any block
inline constexpr int64_t kKeyBlock = 128;   // keys that the forward takes at once, from multiples of it

// Keys or values of one head as floats, dense where those of a tensor are far apart: [kv_seq][row] and [dim][column]. Null: none.
struct FloatCopy {
  const float* rows = nullptr;
  int64_t row = 0;
  const float* columns = nullptr;
  int64_t column = 0;
};

// The keys and values of one head. `rows` are read along the head, `columns` (for products over keys) down the keys: the same memory for
// f32, pairs of keys for bf16 where the CPU multiplies pairs. Null columns: the kernel packs each block of keys itself.
struct KeyValueHead {
  const void* k;  // first key
  const void* v;
  int64_t k_token, v_token;  // elements from key to key
  const void* k_pairs;       // [ceil(kv_seq / 2)][k_pairs_row] words; for GemmKernels::rows_of_pairs [head_dim][k_pairs_row]
  const void* v_pairs;
  int64_t k_pairs_row, v_pairs_row;
  int64_t kv_seq;
  const int32_t* segments;  // [kv_seq] or null
  int64_t head_dim, value_dim;
  float scale;
  float softcap;                       // 0: none
  int64_t ring;                        // 0: key j is row j; else it is row j % ring, a multiple of kKeyBlock (forward only)
  FloatCopy k_copy = {}, v_copy = {};  // what the products of floats read instead, if they are there
};

// Lane n is one query: it sees the keys in (lower[n], limit[n]] whose segment is segment[n]. The lanes from `count` on see none.
struct QueryBlock {
  int count;
  const void* q[kMostQueryLanes];
  int32_t limit[kMostQueryLanes], lower[kMostQueryLanes], segment[kMostQueryLanes];
  float sink[kMostQueryLanes];        // -infinity: none
  void* out[kMostQueryLanes];         // forward: written; backward: read
  float* lse[kMostQueryLanes];        // forward: written unless null; backward: read
  const void* dout[kMostQueryLanes];  // backward only
  float dlse[kMostQueryLanes];
  void* dq[kMostQueryLanes];
  float* dsink;  // written: the lanes' sum; null without sinks
};

struct AttentionKernels {
  bool has_bf16_pairs;
  // [0]: f32; [1]: bf16. Scratch as the functions beside them say.
  void (*forward[2])(const KeyValueHead&, const QueryBlock&, void* scratch);
  // Adds to dk[kv_seq][head_dim rounded up to 16] and dv[kv_seq][value_dim rounded up to 16]; writes dq.
  void (*backward[2])(const KeyValueHead&, const QueryBlock&, float* dk, float* dv, void* scratch);
  // y (f32 or bf16) = the sum of `count` rows of n floats, `stride` floats apart.
  void (*sum_rows[2])(void* y, const float* x, int64_t n, int count, int64_t stride);
};

int64_t attention_forward_scratch_bytes(int64_t head_dim, int64_t value_dim);  // of one worker, for every instruction set
int64_t attention_backward_scratch_bytes(int64_t head_dim, int64_t value_dim);
const AttentionKernels& attention_kernels(Isa isa);

namespace avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512bf16 {
extern const AttentionKernels kAttentionKernels;
}

namespace amx {
AttentionKernels with_tiles(AttentionKernels kernels);  // those of avx512bf16, but for bf16
}

}  // namespace mw
