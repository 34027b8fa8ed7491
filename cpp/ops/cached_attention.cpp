// Attention for decoding: keys and values stand in caches, one slot per request; every token reads the slot it belongs to.
//   cache_write:       cache[slots[t], positions[t]] = x[t]
//   cached_attention:  o_t = sum_j softmax_j(scale q_t . K[slots[t], j]) V[slots[t], j],  j <= positions[t]
// A cache of layers that see a window or a chunk may be a ring: position p stands in row p % kv_seq, over what is out of sight.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/attention_terms.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/gather.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

void expect_token_ids(std::string_view name, const Type& type, const Type& tokens) {
  expect_dtype(name, type, DType::kI32);
  expect_same_dims(name, type, "the tokens", {tokens.dims[0], tokens.dims[1]});
}

std::vector<std::string> cache_dims(const Type& cache) {
  return {"slot", "kv_seq", "kv_heads", cache.has("value_dim") ? "value_dim" : "head_dim"};
}

void expect_ring(const Type& cache, int64_t reach, int64_t step_tokens) {
  const int64_t rows = cache.size_of("kv_seq"), needed = (reach + step_tokens + kRingBlock - 1) / kRingBlock * kRingBlock;
  if (rows % kRingBlock == 0 && rows >= needed) return;
  throw UserError("the cache " + to_string(cache) + " is a ring; expected kv_seq to be a multiple of " + std::to_string(kRingBlock) +
                  " that holds the " + std::to_string(reach) + " positions in sight and the " + std::to_string(step_tokens) +
                  " tokens of a step: at least " + std::to_string(needed));
}

// ---- cache_write: cache, x, slots, positions ----

std::vector<Type> infer_write(const Signature& signature) {
  const Type &cache = signature.operand(0), &x = signature.operand(1);
  expect_dims("the cache", cache, cache_dims(cache));
  expect_dims("x", x, {"batch", "seq", "kv_heads", cache_dims(cache)[3]});
  expect_dtype("x", x, cache.dtype);
  expect_same_size("kv_heads", "the cache", cache, "x", x);
  expect_same_size(cache.dims[3].name, "the cache", cache, "x", x);
  expect_token_ids("slots", signature.operand(2), x);
  expect_token_ids("positions", signature.operand(3), x);
  if (signature.attributes->flag_or("ring", false)) expect_ring(cache, 0, x.dims[0].size * x.dims[1].size);
  return {cache};
}

// Tokens of any row may go to any slot, so slots and tokens are whole.
DimRole role_write(const Signature&, std::string_view dim) {
  return {.use = dim == "kv_heads" || dim == "head_dim" || dim == "value_dim" ? DimUse::kMapped : DimUse::kWhole};
}

// In place: only the rows that are written count.
Cost cost_write(const Signature& signature) { return {.flops = 0, .bytes = 2.0 * static_cast<double>(signature.operand(1).bytes())}; }

void reference_write(const ReferenceContext& context) {
  const HostArray &cache = context.operand(0), &x = context.operand(1), &slots = context.operand(2), &positions = context.operand(3);
  HostArray& result = context.result(0);
  const bool ring = context.attributes->flag_or("ring", false);
  result.data = cache.data;
  const int64_t num_slots = cache.type.dims[0].size, length = cache.type.dims[1].size,
                row = cache.type.dims[2].size * cache.type.dims[3].size;
  for (size_t t = 0; t < slots.data.size(); ++t) {
    const int64_t slot = static_cast<int64_t>(slots.data[t]), position = static_cast<int64_t>(positions.data[t]);
    if (slot < 0) continue;
    if (slot >= num_slots || position < 0 || (!ring && position >= length)) {
      throw UserError("token " + std::to_string(t) + " is written at slot " + std::to_string(slot) + ", position " +
                      std::to_string(position) + " of a cache " + to_string(cache.type));
    }
    std::copy_n(x.data.begin() + static_cast<int64_t>(t) * row, row, result.data.begin() + (slot * length + position % length) * row);
  }
}

// ---- cached_attention: q, k_cache [, v_cache], slots, positions [, sinks] ----

// Where the operands stand.
struct Operands {
  bool own_values;  // false: values are a prefix of the keys
  size_t slots, positions, sinks;

  Operands(const AttentionAttributes& attributes, size_t count)
      : own_values(attributes.value_prefix == 0), slots(own_values ? 3 : 2), positions(slots + 1), sinks(attributes.sinks ? slots + 2 : 0) {
    const size_t expected = slots + 2 + (attributes.sinks ? 1 : 0);
    if (count != expected) throw UserError("there are " + std::to_string(count) + " operands; expected " + std::to_string(expected));
  }
};

Dim value_dim_of(const Signature& signature, const AttentionAttributes& attributes) {
  return attributes.value_prefix > 0 ? Dim{"value_dim", attributes.value_prefix} : signature.operand(2).dims.back();
}

void check_values(const Type& q, const Type& k, const Type& v) {
  expect_dtype("the value cache", v, q.dtype);
  expect_dims("the value cache", v, cache_dims(v));
  for (const char* dim : {"slot", "kv_seq", "kv_heads"}) expect_same_size(dim, "the key cache", k, "the value cache", v);
  if (v.has("head_dim")) expect_same_size("head_dim", "q", q, "the value cache", v);
}

std::vector<Type> infer(const Signature& signature) {
  const AttentionAttributes attributes = AttentionAttributes::from(*signature.attributes);
  attributes.check();
  if (!attributes.causal) throw UserError("cached_attention is causal; expected causal=true");
  const Operands at(attributes, signature.operands.size());
  const Type &q = signature.operand(0), &k = signature.operand(1);
  expect_float("q", q);
  expect_dtype("the key cache", k, q.dtype);
  expect_dims("q", q, {"batch", "seq", "kv_heads", "q_per_kv", "head_dim"});
  expect_dims("the key cache", k, {"slot", "kv_seq", "kv_heads", "head_dim"});
  for (const char* dim : {"kv_heads", "head_dim"}) expect_same_size(dim, "q", q, "the key cache", k);
  if (at.own_values) check_values(q, k, signature.operand(2));
  if (attributes.value_prefix > k.size_of("head_dim")) {
    throw UserError("value_prefix is " + std::to_string(attributes.value_prefix) + " and the key cache " + to_string(k) +
                    "; expected at most head_dim");
  }
  expect_token_ids("slots", signature.operand(at.slots), q);
  expect_token_ids("positions", signature.operand(at.positions), q);
  if (at.sinks > 0) check_sinks(signature.operand(at.sinks), q);
  if (attributes.ring) {
    const int64_t reach = std::max(attributes.window, attributes.chunk);
    if (reach == 0) throw UserError("ring needs a window or a chunk: without one every earlier position stays in sight");
    expect_ring(k, reach, q.dims[0].size * q.dims[1].size);
  }
  Type result{q.dtype, {q.dims.begin(), q.dims.end() - 1}};
  result.dims.push_back(value_dim_of(signature, attributes));
  return {result};
}

DimRole role(const Signature&, std::string_view dim) {
  return {.use = dim == "batch" || dim == "seq" || dim == "kv_heads" || dim == "q_per_kv" ? DimUse::kMapped : DimUse::kWhole};
}

// Lengths are known at run time only; counted for full slots.
Cost cost(const Signature& signature) {
  const Type &q = signature.operand(0), &k = signature.operand(1);
  const AttentionAttributes attributes = AttentionAttributes::from(*signature.attributes);
  const int64_t reach = std::max(attributes.window, attributes.chunk), length = k.size_of("kv_seq");
  const int64_t keys = reach > 0 ? std::min(reach, length) : length;
  Cost cost = default_cost(signature);
  cost.flops =
      2.0 * static_cast<double>(q.elements() / q.dims[4].size * keys * (q.dims[4].size + value_dim_of(signature, attributes).size));
  return cost;
}

// The first position that a token at `position` sees.
int64_t first_in_sight(const AttentionAttributes& attributes, int64_t position) {
  if (attributes.chunk > 0) return position - position % attributes.chunk;
  return attributes.window > 0 ? std::max<int64_t>(0, position - attributes.window + 1) : 0;
}

void reference(const ReferenceContext& context) {
  const AttentionAttributes attributes = AttentionAttributes::from(*context.attributes);
  const Operands at(attributes, context.operands.size());
  const HostArray &q = context.operand(0), &k = context.operand(1), &v = context.operand(at.own_values ? 2 : 1),
                  &slots = context.operand(at.slots), &positions = context.operand(at.positions);
  HostArray& out = context.result(0);
  const int64_t heads = q.type.dims[2].size, queries = q.type.dims[3].size, head_dim = q.type.dims[4].size, length = k.type.dims[1].size,
                value_dim = out.type.dims[4].size, v_row = v.type.dims[3].size;
  const auto row = [&](size_t t, int64_t j, int64_t h) { return (static_cast<int64_t>(slots.data[t]) * length + j % length) * heads + h; };
  std::vector<double> weights;
  for (int64_t r = 0; r < q.type.elements() / head_dim; ++r) {  // one query: token t, key head h
    const size_t t = static_cast<size_t>(r / (heads * queries));
    const int64_t h = r / queries % heads, position = static_cast<int64_t>(positions.data[t]);
    if (slots.data[t] < 0) continue;
    const int64_t first = first_in_sight(attributes, position), last = attributes.ring ? position : std::min(position, length - 1);
    double largest = kNothingVisible, sum = 0;
    if (at.sinks > 0) {
      largest = context.operand(at.sinks).data[static_cast<size_t>(r % (heads * queries))];
      sum = 1;
    }
    weights.clear();
    for (int64_t j = first; j <= last; ++j) {
      double s = 0;
      for (int64_t d = 0; d < head_dim; ++d)
        s += attributes.scale * q.data[static_cast<size_t>(r * head_dim + d)] * k.data[static_cast<size_t>(row(t, j, h) * head_dim + d)];
      weights.push_back(attributes.capped(s));
      if (weights.back() <= largest) continue;
      sum *= std::exp(largest - weights.back());
      largest = weights.back();
    }
    for (double& s : weights) sum += s = std::exp(s - largest);
    for (int64_t j = first; j <= last; ++j) {
      const double p = weights[static_cast<size_t>(j - first)] / sum;
      for (int64_t d = 0; d < value_dim; ++d)
        out.data[static_cast<size_t>(r * value_dim + d)] += p * v.data[static_cast<size_t>(row(t, j, h) * v_row + d)];
    }
  }
}

// a mod b for integers a >= 0, through FP32: exact for the positions of any sequence that fits it.
Tensor remainder(Tensor a, int64_t b) {
  const double divisor = static_cast<double>(b);
  const Tensor quotient = cast(unary("floor", cast(a, DType::kF32) / constant(*a.builder, divisor)), DType::kI32);
  return a - quotient * constant(*a.builder, divisor, Type{DType::kI32, {}});
}

// Each token's slot is gathered, so this holds tokens x kv_seq rows.
std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const AttentionAttributes settings = AttentionAttributes::from(attributes);
  const Operands at(settings, operands.size());
  const Tensor q = operands[0], k = operands[1], slots = operands[at.slots], positions = operands[at.positions];
  Builder& builder = *q.builder;
  const Type token_keys{DType::kI32, {q.type().dims[0], q.type().dims[1], k.type().dims[1]}};
  const auto integer = [&](int64_t value) { return constant(builder, static_cast<double>(value), Type{DType::kI32, {}}); };
  const Tensor keys = gather_rows(k, slots, "slot");
  // How far behind its token each row's position lies.
  Tensor distance = broadcast_to(positions, token_keys) - iota(builder, k.type().dims[1]);
  if (settings.ring) distance = remainder(distance + integer(k.size("kv_seq")), k.size("kv_seq"));
  Tensor visible = binary("logical_and", binary("ge", distance, integer(0)), binary("ge", slots, integer(0)));
  visible = binary("logical_and", visible, binary("le", distance, positions));
  if (settings.window > 0) visible = binary("logical_and", visible, binary("lt", distance, integer(settings.window)));
  if (settings.chunk > 0) visible = binary("logical_and", visible, binary("le", distance, remainder(positions, settings.chunk)));
  const Tensor values = at.own_values ? gather_rows(operands[2], slots, "slot")
                                      : rename(slice(keys, "head_dim", 0, settings.value_prefix), "head_dim", "value_dim");
  const std::optional<Tensor> sinks = at.sinks > 0 ? std::optional<Tensor>(operands[at.sinks]) : std::nullopt;
  return {attend({masked_by(attention_scores(q, keys, settings), visible), sinks}, q.dtype(), values).at(0)};
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "cache_write",
          .doc = "The cache with cache[slots, positions] = x for every token; a negative slot writes nothing. In place when the cache is a "
                 "state. ring: cache[slots, positions % kv_seq].",
          .num_operands = 4,
          .infer = infer_write,
          .role = role_write,
          .cost = cost_write,
          .reference = reference_write,
          .in_place = {0, -1, -1, -1}},
    OpDef{.name = "cached_attention",
          .doc = "q, k_cache [, v_cache], slots, positions [, sinks]. Attention of each token to the keys j <= positions (window: j > "
                 "positions - window; chunk: of the same chunk) of its own slot of the caches; 0 for a negative slot. softcap and sinks as "
                 "in attention. ring: position p stands in row p % kv_seq. value_prefix n: values are the first n elements of each key, as "
                 "in the compressed cache of multi-head latent attention (DeepSeek-AI 2024).",
          .infer = infer,
          .role = role,
          .cost = cost,
          .reference = reference,
          .decompose = decompose},
};

}  // namespace

std::span<const OpDef> cached_attention_ops() { return kDefs; }

Tensor cache_write(Tensor cache, Tensor x, Tensor slots, Tensor positions, bool ring, Source source) {
  Attributes attributes;
  if (ring) attributes.set("ring", true);
  return cache.builder->append1(kDefs[0], {cache, x, slots, positions}, std::move(attributes), source);
}

Tensor cached_attention(Tensor q, Tensor k_cache, std::optional<Tensor> v_cache, Tensor slots, Tensor positions,
                        AttentionAttributes attributes, std::optional<Tensor> sinks, Source source) {
  std::vector<Tensor> operands{q, k_cache};
  if (v_cache) operands.push_back(*v_cache);
  operands.insert(operands.end(), {slots, positions});
  if (sinks) operands.push_back(*sinks);
  attributes.sinks = sinks.has_value();
  return q.builder->append1(kDefs[1], operands, attributes.to_attributes(), source);
}

}  // namespace mw
