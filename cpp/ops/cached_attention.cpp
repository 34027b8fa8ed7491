// Attention for decoding: keys and values stand in caches, one slot per request; every token reads the slot it belongs to.
//   cache_write:       cache[slots[t], positions[t]] = x[t]
//   cached_attention:  o_t = sum_j softmax_j(scale q_t . K[slots[t], j]) V[slots[t], j],  j <= positions[t]
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
  result.data = cache.data;
  const int64_t num_slots = cache.type.dims[0].size, length = cache.type.dims[1].size,
                row = cache.type.dims[2].size * cache.type.dims[3].size;
  for (size_t t = 0; t < slots.data.size(); ++t) {
    const int64_t slot = static_cast<int64_t>(slots.data[t]), position = static_cast<int64_t>(positions.data[t]);
    if (slot < 0) continue;
    if (slot >= num_slots || position < 0 || position >= length) {
      throw UserError("token " + std::to_string(t) + " is written at slot " + std::to_string(slot) + ", position " +
                      std::to_string(position) + " of a cache " + to_string(cache.type));
    }
    std::copy_n(x.data.begin() + static_cast<int64_t>(t) * row, row, result.data.begin() + (slot * length + position) * row);
  }
}

// ---- cached_attention: q, k_cache, v_cache, slots, positions ----

std::vector<Type> infer(const Signature& signature) {
  const Type &q = signature.operand(0), &k = signature.operand(1), &v = signature.operand(2);
  expect_float("q", q);
  expect_dtype("the key cache", k, q.dtype);
  expect_dtype("the value cache", v, q.dtype);
  expect_dims("q", q, {"batch", "seq", "kv_heads", "q_per_kv", "head_dim"});
  expect_dims("the key cache", k, {"slot", "kv_seq", "kv_heads", "head_dim"});
  expect_dims("the value cache", v, cache_dims(v));
  for (const char* dim : {"kv_heads", "head_dim"}) expect_same_size(dim, "q", q, "the key cache", k);
  for (const char* dim : {"slot", "kv_seq", "kv_heads"}) expect_same_size(dim, "the key cache", k, "the value cache", v);
  if (v.has("head_dim")) expect_same_size("head_dim", "q", q, "the value cache", v);
  expect_token_ids("slots", signature.operand(3), q);
  expect_token_ids("positions", signature.operand(4), q);
  Type result{q.dtype, {q.dims.begin(), q.dims.end() - 1}};
  result.dims.push_back(v.dims.back());
  return {result};
}

DimRole role(const Signature&, std::string_view dim) {
  return {.use = dim == "batch" || dim == "seq" || dim == "kv_heads" || dim == "q_per_kv" ? DimUse::kMapped : DimUse::kWhole};
}

// Lengths are known at run time only; counted for full slots.
Cost cost(const Signature& signature) {
  const Type &q = signature.operand(0), &v = signature.operand(2);
  const int64_t window = signature.attributes->integer_or("window", 0);
  const int64_t keys = window > 0 ? std::min(window, v.size_of("kv_seq")) : v.size_of("kv_seq");
  Cost cost = default_cost(signature);
  cost.flops = 2.0 * static_cast<double>(q.elements() / q.dims[4].size * keys * (q.dims[4].size + v.dims[3].size));
  return cost;
}

bool sees(const AttentionAttributes& attributes, double position, int64_t j) {
  return static_cast<double>(j) <= position &&
         (attributes.window == 0 || static_cast<double>(j) > position - static_cast<double>(attributes.window));
}

void reference(const ReferenceContext& context) {
  const HostArray &q = context.operand(0), &k = context.operand(1), &v = context.operand(2), &slots = context.operand(3),
                  &positions = context.operand(4);
  HostArray& out = context.result(0);
  const AttentionAttributes attributes = AttentionAttributes::from(*context.attributes);
  const int64_t heads = q.type.dims[2].size, queries = q.type.dims[3].size, head_dim = q.type.dims[4].size, length = k.type.dims[1].size,
                value_dim = v.type.dims[3].size;
  const auto row = [&](size_t t, int64_t j, int64_t h) { return (static_cast<int64_t>(slots.data[t]) * length + j) * heads + h; };
  std::vector<double> weights(static_cast<size_t>(length));
  for (int64_t r = 0; r < q.type.elements() / head_dim; ++r) {  // one query: token t, key head h
    const size_t t = static_cast<size_t>(r / (heads * queries));
    const int64_t h = r / queries % heads;
    if (slots.data[t] < 0) continue;
    double largest = kNothingVisible, sum = 0;
    for (int64_t j = 0; j < length; ++j) {
      double& s = weights[static_cast<size_t>(j)] = kNothingVisible;
      if (!sees(attributes, positions.data[t], j)) continue;
      s = 0;
      for (int64_t d = 0; d < head_dim; ++d)
        s += attributes.scale * q.data[static_cast<size_t>(r * head_dim + d)] * k.data[static_cast<size_t>(row(t, j, h) * head_dim + d)];
      largest = std::max(largest, s);
    }
    for (double& s : weights) sum += s = s > kNothingVisible ? std::exp(s - largest) : 0.0;
    for (int64_t j = 0; j < length && sum > 0; ++j) {
      const double p = weights[static_cast<size_t>(j)] / sum;
      for (int64_t d = 0; d < value_dim; ++d)
        out.data[static_cast<size_t>(r * value_dim + d)] += p * v.data[static_cast<size_t>(row(t, j, h) * value_dim + d)];
    }
  }
}

// Each token's slot is gathered, so this holds tokens x kv_seq rows.
std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const Tensor q = operands[0], k = operands[1], v = operands[2], slots = operands[3], positions = operands[4];
  Builder& builder = *q.builder;
  const AttentionAttributes settings = AttentionAttributes::from(attributes);
  const Type token_keys{DType::kI32, {q.type().dims[0], q.type().dims[1], k.type().dims[1]}};
  const auto integer = [&](int64_t value) { return constant(builder, static_cast<double>(value), Type{DType::kI32, {}}); };
  const Tensor scores = dot(q, gather_rows(k, slots, "slot"), {"head_dim"}, DType::kF32) * settings.scale;
  const Tensor distance = broadcast_to(positions, token_keys) - iota(builder, k.type().dims[1]);
  Tensor visible = binary("logical_and", binary("ge", distance, integer(0)), binary("ge", slots, integer(0)));
  if (settings.window > 0) visible = binary("logical_and", visible, binary("lt", distance, integer(settings.window)));
  return {attend(masked_by(scores, visible), q.dtype(), gather_rows(v, slots, "slot")).at(0)};
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "cache_write",
          .doc = "The cache with cache[slots, positions] = x for every token; a negative slot writes nothing. In place when the cache is a "
                 "state.",
          .num_operands = 4,
          .infer = infer_write,
          .role = role_write,
          .cost = cost_write,
          .reference = reference_write,
          .in_place = {0, -1, -1, -1}},
    OpDef{.name = "cached_attention",
          .doc = "Attention of each token to the keys j <= positions (window: j > positions - window) of its own slot of the caches; 0 for "
                 "a negative slot.",
          .num_operands = 5,
          .infer = infer,
          .role = role,
          .cost = cost,
          .reference = reference,
          .decompose = decompose},
};

}  // namespace

std::span<const OpDef> cached_attention_ops() { return kDefs; }

Tensor cache_write(Tensor cache, Tensor x, Tensor slots, Tensor positions, Source source) {
  return cache.builder->append1(kDefs[0], {cache, x, slots, positions}, {}, source);
}

Tensor cached_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor slots, Tensor positions, const AttentionAttributes& attributes,
                        Source source) {
  return q.builder->append1(kDefs[1], {q, k_cache, v_cache, slots, positions}, attributes.to_attributes(), source);
}

}  // namespace mw
