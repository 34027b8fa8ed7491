// attention and its gradient, cached_attention, cache_write. The type rules fix the memory order of all operands.
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/attention.h"
#include "exec/cpu/kernels/copy.h"
#include "exec/cpu/kernels/named_loops.h"
#include "ops/attention.h"

namespace mw::cpu {
namespace {

const int32_t* integers(const std::byte* data) { return reinterpret_cast<const int32_t*>(data); }

// q, k, v are operands 0 to 2.
Attention attention_of(const Signature& s) {
  const Type &q = s.operand(0), &v = s.operand(2);
  expect_kernel_dtype("attention", q.dtype);
  const AttentionAttributes attributes = AttentionAttributes::from(*s.attributes);
  return {.batch = q.dims[0].size,
          .seq = q.dims[1].size,
          .kv_seq = v.dims[1].size,
          .kv_heads = q.dims[2].size,
          .q_per_kv = q.dims[3].size,
          .head_dim = q.dims[4].size,
          .value_dim = v.dims[3].size,
          .type = q.dtype,
          .q = nullptr,
          .k = nullptr,
          .v = nullptr,
          .scale = static_cast<float>(attributes.scale),
          .causal = attributes.causal,
          .window = attributes.window};
}

// `segments`: the operand at which segment ids begin, 0 without them.
Attention bound(Attention a, const KernelRun& r, size_t segments) {
  a.q = r.operands[0], a.k = r.operands[1], a.v = r.operands[2];
  if (segments > 0) a.q_segments = integers(r.operands[segments]), a.kv_segments = integers(r.operands[segments + 1]);
  return a;
}

Kernel make_forward(const Signature& s, const KernelEnvironment& environment) {
  const Attention a = attention_of(s);
  const size_t segments = s.operands.size() > 3 ? 3 : 0;
  return {.workspace_bytes = attention_forward_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                attention_forward(bound(a, r, segments), r.results[0], reinterpret_cast<float*>(r.results[1]), isa, r.workspace, r.pool);
              },
          .choice = "attention"};
}

Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  const Attention a = attention_of(s);
  const size_t segments = s.operands.size() > 6 ? 6 : 0;
  return {.workspace_bytes = attention_backward_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                attention_backward(bound(a, r, segments),
                                   {.out = r.operands[3],
                                    .lse = reinterpret_cast<const float*>(r.operands[4]),
                                    .dout = r.operands[5],
                                    .dq = r.results[0],
                                    .dk = r.results[1],
                                    .dv = r.results[2]},
                                   isa, r.workspace, r.pool);
              },
          .choice = "attention gradient"};
}

// q, k_cache, v_cache, slots, positions
Kernel make_cached(const Signature& s, const KernelEnvironment& environment) {
  const Type &q = s.operand(0), &k = s.operand(1), &v = s.operand(2);
  expect_kernel_dtype("cached_attention", q.dtype);
  const AttentionAttributes attributes = AttentionAttributes::from(*s.attributes);
  const CachedAttention a{.tokens = q.dims[0].size * q.dims[1].size,
                          .kv_heads = q.dims[2].size,
                          .q_per_kv = q.dims[3].size,
                          .head_dim = q.dims[4].size,
                          .value_dim = v.dims[3].size,
                          .slots = k.dims[0].size,
                          .cache_seq = k.dims[1].size,
                          .type = q.dtype,
                          .q = nullptr,
                          .k_cache = nullptr,
                          .v_cache = nullptr,
                          .slot = nullptr,
                          .position = nullptr,
                          .scale = static_cast<float>(attributes.scale),
                          .window = attributes.window};
  return {.workspace_bytes = cached_attention_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [a, isa = environment.isa](const KernelRun& r) {
                CachedAttention run = a;
                run.q = r.operands[0], run.k_cache = r.operands[1], run.v_cache = r.operands[2];
                run.slot = integers(r.operands[3]), run.position = integers(r.operands[4]);
                cached_attention(run, r.results[0], isa, r.workspace, r.pool);
              },
          .choice = "cached attention"};
}

// cache, x, slots, positions: one row per token. Writes into the cache itself where the result is placed there.
Kernel make_cache_write(const Signature& s, const KernelEnvironment& environment) {
  const Type &cache = s.operand(0), &x = s.operand(1);
  const int64_t slots = cache.dims[0].size, length = cache.dims[1].size, tokens = x.dims[0].size * x.dims[1].size, bytes = cache.bytes(),
                row = elements_from(cache, 2) * dtype_bytes(cache.dtype);
  return {.run =
              [=, isa = environment.isa](const KernelRun& r) {
                if (r.results[0] != r.operands[0]) copy_bytes(r.pool, isa, r.operands[0], r.results[0], bytes);
                const int32_t *slot = integers(r.operands[2]), *position = integers(r.operands[3]);
                for (int64_t t = 0; t < tokens; ++t) {
                  if (slot[t] < 0) continue;
                  if (slot[t] >= slots || position[t] < 0 || position[t] >= length) {
                    throw UserError("cache_write: token " + std::to_string(t) + " has slot " + std::to_string(slot[t]) + " and position " +
                                    std::to_string(position[t]) + "; the cache has " + std::to_string(slots) + " slots of " +
                                    std::to_string(length) + " positions");
                  }
                  std::memcpy(r.results[0] + (slot[t] * length + position[t]) * row, r.operands[1] + t * row, static_cast<size_t>(row));
                }
              },
          .choice = "rows"};
}

}  // namespace

void attention_kernels(KernelTable& table) {
  table.emplace("attention", make_forward);
  table.emplace("attention_gradient", make_gradient);
  table.emplace("cached_attention", make_cached);
  table.emplace("cache_write", make_cache_write);
}

}  // namespace mw::cpu
