// attention and its gradient, chunk_segments, cached_attention, cache_write. The type rules fix the memory order of all operands.
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/attention.h"
#include "exec/cpu/kernels/attention_kernels.h"
#include "exec/cpu/kernels/copy.h"
#include "exec/cpu/kernels/named_loops.h"
#include "ops/attention.h"

namespace mw::cpu {
namespace {

static_assert(kRingBlock % kKeyBlock == 0, "a block of keys would wrap in a ring");

const int32_t* integers(const std::byte* data) { return reinterpret_cast<const int32_t*>(data); }

// q, k, v are operands 0 to 2.
Attention attention_of(const Signature& s, const OptionalOperands& optional) {
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
          .window = attributes.window,
          .softcap = static_cast<float>(attributes.softcap),
          .has_sinks = optional.sinks > 0,
          .sinks_type = optional.sinks > 0 ? s.operand(optional.sinks).dtype : DType::kF32};
}

RowIndex row_index(const KernelRun& r, size_t first, size_t count, int64_t rows) {
  RowIndex index;
  if (count > 0) index.offset = *integers(r.operands[first]);
  if (count > 1) {
    index.second_run = rows / 2;
    index.second_offset = *integers(r.operands[first + 1]) - index.second_run;
  }
  return index;
}

Attention bound(Attention a, const KernelRun& r, const OptionalOperands& optional) {
  a.q = r.operands[0], a.k = r.operands[1], a.v = r.operands[2];
  if (optional.segments > 0)
    a.q_segments = integers(r.operands[optional.segments]), a.kv_segments = integers(r.operands[optional.segments + 1]);
  if (optional.sinks > 0) a.sinks = r.operands[optional.sinks];
  a.queries = row_index(r, optional.starts, optional.num_starts, a.seq);
  a.keys = row_index(r, optional.key_starts, optional.num_key_starts, a.kv_seq);
  return a;
}

Kernel make_forward(const Signature& s, const KernelEnvironment& environment) {
  const OptionalOperands optional = optional_operands(*s.attributes, 3, s.operands.size());
  const Attention a = attention_of(s, optional);
  return {.workspace_bytes = attention_forward_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                attention_forward(bound(a, r, optional), r.results[0], reinterpret_cast<float*>(r.results[1]), isa, r.workspace, r.pool);
              },
          .choice = "attention"};
}

Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  const OptionalOperands optional = optional_operands(*s.attributes, 6, s.operands.size());
  const Attention a = attention_of(s, optional);
  const DType dsinks_type = optional.sinks > 0 ? s.result(3).dtype : DType::kF32;
  return {.workspace_bytes = attention_backward_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                AttentionBackward b{.out = r.operands[3],
                                    .lse = reinterpret_cast<const float*>(r.operands[4]),
                                    .dout = r.operands[5],
                                    .dq = r.results[0],
                                    .dk = r.results[1],
                                    .dv = r.results[2],
                                    .dsinks_type = dsinks_type};
                if (optional.lse_gradient > 0) b.dlse = reinterpret_cast<const float*>(r.operands[optional.lse_gradient]);
                if (optional.sinks > 0) b.dsinks = r.results[3];
                attention_backward(bound(a, r, optional), b, isa, r.workspace, r.pool);
              },
          .choice = "attention gradient"};
}

// q, k_cache [, v_cache], slots, positions [, sinks]
Kernel make_cached(const Signature& s, const KernelEnvironment& environment) {
  const Type &q = s.operand(0), &k = s.operand(1);
  expect_kernel_dtype("cached_attention", q.dtype);
  const AttentionAttributes attributes = AttentionAttributes::from(*s.attributes);
  const bool own_values = attributes.value_prefix == 0;
  const size_t slots = own_values ? 3 : 2, sinks = attributes.sinks ? slots + 2 : 0;
  const CachedAttention a{.tokens = q.dims[0].size * q.dims[1].size,
                          .kv_heads = q.dims[2].size,
                          .q_per_kv = q.dims[3].size,
                          .head_dim = q.dims[4].size,
                          .value_dim = s.result(0).dims[4].size,
                          .slots = k.dims[0].size,
                          .cache_seq = k.dims[1].size,
                          .type = q.dtype,
                          .q = nullptr,
                          .k_cache = nullptr,
                          .v_cache = nullptr,
                          .slot = nullptr,
                          .position = nullptr,
                          .scale = static_cast<float>(attributes.scale),
                          .window = attributes.window,
                          .chunk = attributes.chunk,
                          .softcap = static_cast<float>(attributes.softcap),
                          .ring = attributes.ring,
                          .sinks_type = sinks > 0 ? s.operand(sinks).dtype : DType::kF32};
  return {.workspace_bytes = cached_attention_workspace_bytes(a, environment.isa, environment.threads),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                CachedAttention run = a;
                run.q = r.operands[0], run.k_cache = r.operands[1];
                if (own_values) run.v_cache = r.operands[2];
                run.slot = integers(r.operands[slots]), run.position = integers(r.operands[slots + 1]);
                if (sinks > 0) run.sinks = r.operands[sinks];
                cached_attention(run, r.results[0], isa, r.workspace, r.pool);
              },
          .choice = "cached attention"};
}

// cache, x, slots, positions: one row per token. Writes into the cache itself where the result is placed there.
Kernel make_cache_write(const Signature& s, const KernelEnvironment& environment) {
  const Type &cache = s.operand(0), &x = s.operand(1);
  const int64_t slots = cache.dims[0].size, length = cache.dims[1].size, tokens = x.dims[0].size * x.dims[1].size, bytes = cache.bytes(),
                row = elements_from(cache, 2) * dtype_bytes(cache.dtype);
  const bool ring = s.attributes->flag_or("ring", false);
  return {.run =
              [=, isa = environment.isa](const KernelRun& r) {
                if (r.results[0] != r.operands[0]) copy_bytes(r.pool, isa, r.operands[0], r.results[0], bytes);
                const int32_t *slot = integers(r.operands[2]), *position = integers(r.operands[3]);
                for (int64_t t = 0; t < tokens; ++t) {
                  if (slot[t] < 0) continue;
                  if (slot[t] >= slots || position[t] < 0 || (!ring && position[t] >= length)) {
                    throw UserError("cache_write: token " + std::to_string(t) + " has slot " + std::to_string(slot[t]) + " and position " +
                                    std::to_string(position[t]) + "; the cache has " + std::to_string(slots) + " slots of " +
                                    std::to_string(length) + " positions");
                  }
                  std::memcpy(r.results[0] + (slot[t] * length + position[t] % length) * row, r.operands[1] + t * row,
                              static_cast<size_t>(row));
                }
              },
          .choice = "rows"};
}

// segment_ids, positions, one row after the other: a token looks for its chunk's first token among the firsts before it, unless the
// token before it belongs to the same chunk.
Kernel make_chunk_segments(const Signature& s, const KernelEnvironment&) {
  const int64_t batch = s.operand(0).dims[0].size, seq = s.operand(0).dims[1].size, chunk = s.attributes->integer("chunk");
  return {.run =
              [=](const KernelRun& r) {
                r.pool.run(batch, [&](int64_t b, int) {
                  const int32_t *segments = integers(r.operands[0]) + b * seq, *positions = integers(r.operands[1]) + b * seq;
                  int32_t* const first = reinterpret_cast<int32_t*>(r.results[0]) + b * seq;
                  const auto same = [&](int64_t i, int64_t j) {
                    return segments[i] == segments[j] && chunk_of(positions[i], chunk) == chunk_of(positions[j], chunk);
                  };
                  for (int64_t i = 0; i < seq; ++i) {
                    int64_t j = i > 0 && same(i - 1, i) ? first[i - 1] : 0;
                    while (!same(j, i)) ++j;
                    first[i] = static_cast<int32_t>(j);
                  }
                });
              },
          .choice = "rows"};
}

}  // namespace

void attention_kernels(KernelTable& table) {
  table.emplace("attention", make_forward);
  table.emplace("attention_gradient", make_gradient);
  table.emplace("chunk_segments", make_chunk_segments);
  table.emplace("cached_attention", make_cached);
  table.emplace("cache_write", make_cache_write);
}

}  // namespace mw::cpu
