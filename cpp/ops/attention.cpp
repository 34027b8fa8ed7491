// attention: s_ij = scale q_i . k_j over the keys j that query i sees, o_i = sum_j softmax_j(s_i) v_j, and the log-sum-exp of s_i.
// Never holds seq x kv_seq (Dao et al. 2022); the gradient recomputes p_ij = exp(s_ij - lse_i). With u_i the gradient of lse_i:
//   dv_j = sum_i p_ij do_i;  ds_ij = p_ij (do_i . v_j - d_i), d_i = do_i . o_i - u_i;  dq_i = scale sum_j ds_ij k_j;  dk_j likewise
// softcap c: s'_ij = c tanh(s_ij / c) in place of s_ij, and ds_ij times 1 - (s'_ij / c)^2 (Gemma 2).
// sinks: exp(sink) is one more term of the softmax's sum, so lse_i holds it; dsink = -sum_i exp(sink - lse_i) d_i (GPT-OSS).
#include "ops/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/attention_terms.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/op_list.h"

namespace mw {
namespace {

const std::vector<std::string> kQueryDims{"batch", "seq", "kv_heads", "q_per_kv", "head_dim"};

// The dims of a query without the innermost one.
std::vector<Dim> row_dims(const Type& q) { return {q.dims.begin(), q.dims.end() - 1}; }

Type output_type(const Type& q, const Type& v) {
  Type result{q.dtype, row_dims(q)};
  result.dims.push_back(v.dims.back());
  return result;
}

void check(const Signature& signature, const OptionalOperands& optional) {
  const Type &q = signature.operand(0), &k = signature.operand(1), &v = signature.operand(2);
  const AttentionAttributes attributes = AttentionAttributes::from(*signature.attributes);
  attributes.check();
  expect_float("q", q);
  expect_dtype("k", k, q.dtype);
  expect_dtype("v", v, q.dtype);
  expect_dims("q", q, kQueryDims);
  expect_dims("k", k, {"batch", "kv_seq", "kv_heads", "head_dim"});
  expect_dims("v", v, {"batch", "kv_seq", "kv_heads", v.has("value_dim") ? "value_dim" : "head_dim"});
  for (const char* dim : {"batch", "kv_heads", "head_dim"}) expect_same_size(dim, "q", q, "k", k);
  for (const char* dim : {"batch", "kv_seq", "kv_heads"}) expect_same_size(dim, "k", k, "v", v);
  if (v.has("head_dim") && v.size_of("head_dim") != q.size_of("head_dim")) {
    throw UserError("v is " + to_string(v) + " and q " + to_string(q) +
                    "; where v's innermost dim has another size its name must be 'value_dim'");
  }
  const auto queries = static_cast<size_t>(q.size_of("seq")), keys = static_cast<size_t>(k.size_of("kv_seq"));
  const bool cuts = optional.num_starts <= 2 && optional.num_key_starts <= 2 && queries % std::max<size_t>(1, optional.num_starts) == 0 &&
                    keys % std::max<size_t>(1, optional.num_key_starts) == 0;
  if (!cuts || (optional.num_starts > 0 && optional.num_key_starts == 0 && queries > keys)) {
    throw UserError("q is " + to_string(q) + " and k " + to_string(k) + " with " + std::to_string(optional.num_starts) + " and " +
                    std::to_string(optional.num_key_starts) + " starts; expected a shard with one start, or two halves with one each");
  }
  const bool has_order = attributes.causal || attributes.window > 0 || attributes.chunk > 0;
  if (has_order && optional.num_starts == 0 && queries != keys) {
    throw UserError("q is " + to_string(q) + " and k " + to_string(k) +
                    "; a causal mask, a window or a chunk needs seq and kv_seq of one size");
  }
  if (attributes.ring || attributes.value_prefix > 0)
    throw UserError("attention has no cache: ring and value_prefix are attributes of cached_attention");
  if (optional.sinks > 0) check_sinks(signature.operand(optional.sinks), q);
  if (optional.segments == 0) return;
  const Type &segments = signature.operand(optional.segments), &kv_segments = signature.operand(optional.segments + 1);
  expect_dtype("segment_ids", segments, DType::kI32);
  expect_dtype("kv_segment_ids", kv_segments, DType::kI32);
  expect_same_dims("segment_ids", segments, "q's rows", {q.dims[0], q.dims[1]});
  expect_same_dims("kv_segment_ids", kv_segments, "k's rows", {k.dims[0], k.dims[1]});
}

DimRole role(const Signature& signature, std::string_view dim) {
  if (dim == "seq") {
    const AttentionAttributes attributes = AttentionAttributes::from(*signature.attributes);
    const bool has_order = attributes.causal || attributes.window > 0 || attributes.chunk > 0;
    return {.use = DimUse::kMapped, .needs_offset = has_order, .takes_halves = true};
  }
  return {.use = dim == "batch" || dim == "kv_heads" || dim == "q_per_kv" ? DimUse::kMapped : DimUse::kWhole};
}

// The queries of one key head are summed into dk and dv, those of all rows into dsinks.
DimRole role_gradient(const Signature& signature, std::string_view dim) {
  DimRole of_dim = role(signature, dim);
  if (dim == "q_per_kv" || dim == "seq" || (dim == "batch" && signature.attributes->flag_or("sinks", false)))
    of_dim.use = DimUse::kContracted;
  return of_dim;
}

double row_pairs(const Signature& signature) {
  const Type &q = signature.operand(0), &k = signature.operand(1);
  const AttentionAttributes attributes = AttentionAttributes::from(*signature.attributes);
  const double rows = static_cast<double>(q.size_of("batch") * q.size_of("kv_heads") * q.size_of("q_per_kv"));
  const int64_t seq = q.size_of("seq"), kv_seq = k.size_of("kv_seq");
  if (!attributes.causal && attributes.window == 0 && attributes.chunk == 0) return rows * visible_pairs(attributes, seq, kv_seq);
  // A shard's share: exact for the halves of zigzag order under a causal mask, the mean of all shards otherwise.
  const int64_t parts = signature.attributes->integer_or(kRingParts, 1), whole = kv_seq * parts;
  return rows * visible_pairs(attributes, whole, whole) * static_cast<double>(seq) / static_cast<double>(whole * parts);
}

// Products over visible pairs only: `of_head` with head_dim and `of_value` with value_dim numbers each.
template <int of_head, int of_value>
Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  const double head = static_cast<double>(signature.operand(0).dims.back().size),
               value = static_cast<double>(signature.operand(2).dims.back().size);
  cost.flops = 2.0 * row_pairs(signature) * (of_head * head + of_value * value);
  return cost;
}

// ---- references ----

// Sizes and flat indices; every operand has its dims in the one order that the type rule allows.
struct Indices {
  int64_t batch, seq, heads, queries, head_dim, kv_seq, value_dim;
  Indices(const Type& q, const Type& v)
      : batch(q.dims[0].size),
        seq(q.dims[1].size),
        heads(q.dims[2].size),
        queries(q.dims[3].size),
        head_dim(q.dims[4].size),
        kv_seq(v.dims[1].size),
        value_dim(v.dims[3].size) {}
  // Row of a query head, and of a key head: times head_dim or value_dim it is the flat index of the row's first element.
  int64_t query(int64_t b, int64_t i, int64_t h, int64_t g) const { return ((b * seq + i) * heads + h) * queries + g; }
  int64_t key(int64_t b, int64_t j, int64_t h) const { return (b * kv_seq + j) * heads + h; }

  // body(b, i, h, g) for every query.
  template <typename Body>
  void each_query(Body&& body) const {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t i = 0; i < seq; ++i)
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t g = 0; g < queries; ++g) body(b, i, h, g);
  }
};

double inner(const HostArray& a, int64_t row_a, const HostArray& b, int64_t row_b, int64_t size) {
  double sum = 0;
  for (int64_t d = 0; d < size; ++d) sum += a.data[static_cast<size_t>(row_a * size + d)] * b.data[static_cast<size_t>(row_b * size + d)];
  return sum;
}

void add_scaled(HostArray& y, int64_t row_y, double factor, const HostArray& x, int64_t row_x, int64_t size) {
  for (int64_t d = 0; d < size; ++d)
    y.data[static_cast<size_t>(row_y * size + d)] += factor * x.data[static_cast<size_t>(row_x * size + d)];
}

struct Visibility {
  AttentionAttributes attributes;
  std::vector<int64_t> starts, key_starts;
  const HostArray* segments = nullptr;
  const HostArray* kv_segments = nullptr;
  int64_t seq, kv_seq;

  Visibility(const ReferenceContext& context, const OptionalOperands& optional, const Indices& at)
      : attributes(AttentionAttributes::from(*context.attributes)), seq(at.seq), kv_seq(at.kv_seq) {
    const auto integer = [&](size_t operand) { return static_cast<int64_t>(context.operand(operand).data[0]); };
    for (size_t n = 0; n < optional.num_starts; ++n) starts.push_back(integer(optional.starts + n));
    for (size_t n = 0; n < optional.num_key_starts; ++n) key_starts.push_back(integer(optional.key_starts + n));
    if (optional.segments == 0) return;
    segments = context.operands[optional.segments];
    kv_segments = context.operands[optional.segments + 1];
  }
  bool operator()(int64_t b, int64_t i, int64_t j) const {
    const int64_t index = index_in_whole(starts, seq, i), key = index_in_whole(key_starts, kv_seq, j);
    if (attributes.causal && key > index) return false;
    if (attributes.window > 0 && key <= index - attributes.window) return false;
    return !segments || segments->data[static_cast<size_t>(b * seq + i)] == kv_segments->data[static_cast<size_t>(b * kv_seq + j)];
  }
};

void reference(const ReferenceContext& context) {
  const HostArray &q = context.operand(0), &k = context.operand(1), &v = context.operand(2);
  const Indices at(q.type, v.type);
  const OptionalOperands optional = optional_operands(*context.attributes, 3, context.operands.size());
  const Visibility visible(context, optional, at);
  std::vector<double> scores(static_cast<size_t>(at.kv_seq));
  at.each_query([&](int64_t b, int64_t i, int64_t h, int64_t g) {
    const int64_t row = at.query(b, i, h, g);
    const double sink =
        optional.sinks > 0 ? context.operand(optional.sinks).data[static_cast<size_t>(h * at.queries + g)] : kNothingVisible;
    double largest = sink;
    for (int64_t j = 0; j < at.kv_seq; ++j) {
      if (!visible(b, i, j)) continue;
      scores[static_cast<size_t>(j)] = visible.attributes.capped(visible.attributes.scale * inner(q, row, k, at.key(b, j, h), at.head_dim));
      largest = std::max(largest, scores[static_cast<size_t>(j)]);
    }
    double sum = optional.sinks > 0 ? std::exp(sink - largest) : 0.0;
    for (int64_t j = 0; j < at.kv_seq; ++j) {
      if (visible(b, i, j)) sum += std::exp(scores[static_cast<size_t>(j)] - largest);
    }
    const double lse = sum > 0 ? largest + std::log(sum) : kNothingVisible;
    context.result(1).data[static_cast<size_t>(row)] = lse;
    for (int64_t j = 0; j < at.kv_seq; ++j) {
      if (visible(b, i, j))
        add_scaled(context.result(0), row, std::exp(scores[static_cast<size_t>(j)] - lse), v, at.key(b, j, h), at.value_dim);
    }
  });
}

void reference_gradient(const ReferenceContext& context) {
  const HostArray &q = context.operand(0), &k = context.operand(1), &v = context.operand(2), &out = context.operand(3),
                  &lse = context.operand(4), &dout = context.operand(5);
  const Indices at(q.type, v.type);
  const OptionalOperands optional = optional_operands(*context.attributes, 6, context.operands.size());
  const Visibility visible(context, optional, at);
  const double scale = visible.attributes.scale, softcap = visible.attributes.softcap;
  at.each_query([&](int64_t b, int64_t i, int64_t h, int64_t g) {
    const int64_t row = at.query(b, i, h, g);
    double delta = inner(dout, row, out, row, at.value_dim);
    if (optional.lse_gradient > 0) delta -= context.operand(optional.lse_gradient).data[static_cast<size_t>(row)];
    if (optional.sinks > 0) {
      const size_t head = static_cast<size_t>(h * at.queries + g);
      context.result(3).data[head] -= std::exp(context.operand(optional.sinks).data[head] - lse.data[static_cast<size_t>(row)]) * delta;
    }
    for (int64_t j = 0; j < at.kv_seq; ++j) {
      if (!visible(b, i, j)) continue;
      const int64_t key = at.key(b, j, h);
      const double s = visible.attributes.capped(scale * inner(q, row, k, key, at.head_dim));
      const double slope = softcap > 0 ? 1 - s / softcap * (s / softcap) : 1.0;
      const double p = std::exp(s - lse.data[static_cast<size_t>(row)]);
      const double ds = p * (inner(dout, row, v, key, at.value_dim) - delta) * slope * scale;
      add_scaled(context.result(0), row, ds, k, key, at.head_dim);
      add_scaled(context.result(1), key, ds, q, row, at.head_dim);
      add_scaled(context.result(2), key, p, dout, row, at.value_dim);
    }
  });
}

// ---- attention: q, k, v [, segments, kv_segments] [, sinks] -> out, lse ----

std::vector<Type> infer(const Signature& signature) {
  check(signature, optional_operands(*signature.attributes, 3, signature.operands.size()));
  const Type& q = signature.operand(0);
  return {output_type(q, signature.operand(2)), {DType::kF32, row_dims(q)}};
}

SoftmaxTerms softmax_terms(const std::vector<Tensor>& operands, const OptionalOperands& optional, const AttentionAttributes& settings) {
  std::vector<Tensor> segments, starts, key_starts;
  if (optional.segments > 0) segments = {operands[optional.segments], operands[optional.segments + 1]};
  for (size_t n = 0; n < optional.num_starts; ++n) starts.push_back(operands[optional.starts + n]);
  for (size_t n = 0; n < optional.num_key_starts; ++n) key_starts.push_back(operands[optional.key_starts + n]);
  return {masked_scores(operands[0], operands[1], segments, starts, key_starts, settings),
          optional.sinks > 0 ? std::optional<Tensor>(operands[optional.sinks]) : std::nullopt};
}

std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const OptionalOperands optional = optional_operands(attributes, 3, operands.size());
  return attend(softmax_terms(operands, optional, AttentionAttributes::from(attributes)), operands[0].dtype(), operands[2]);
}

void gradient(GradientContext& context);

// ---- attention_gradient: q, k, v, out, lse, dout [, segments, kv_segments] [, sinks] [, dlse] -> dq, dk, dv [, dsinks] ----

std::vector<Type> infer_gradient(const Signature& signature) {
  const OptionalOperands optional = optional_operands(*signature.attributes, 6, signature.operands.size());
  check(signature, optional);
  const Type &q = signature.operand(0), &v = signature.operand(2);
  for (const size_t i : {size_t{3}, size_t{5}}) {
    const char* name = i == 3 ? "out" : "the gradient of out";
    expect_same_dims(name, signature.operand(i), "the result", output_type(q, v).dims);
    expect_dtype(name, signature.operand(i), q.dtype);
  }
  for (const size_t i : {size_t{4}, optional.lse_gradient}) {
    if (i == 0) continue;
    const char* name = i == 4 ? "lse" : "the gradient of lse";
    expect_dtype(name, signature.operand(i), DType::kF32);
    expect_same_dims(name, signature.operand(i), "q's rows", row_dims(q));
  }
  std::vector<Type> results{q, signature.operand(1), v};
  if (optional.sinks > 0)
    results.push_back(signature.operand(optional.sinks).with_dtype(parse_dtype(signature.attributes->text("sinks_dtype"))));
  return results;
}

std::vector<Tensor> decompose_gradient(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const OptionalOperands optional = optional_operands(attributes, 6, operands.size());
  const AttentionAttributes settings = AttentionAttributes::from(attributes);
  AttentionOutputs outputs{.out = operands[3], .lse = operands[4], .dout = operands[5], .dlse = {}};
  if (optional.lse_gradient > 0) outputs.dlse = operands[optional.lse_gradient];
  const DType sinks_dtype = optional.sinks > 0 ? parse_dtype(attributes.text("sinks_dtype")) : DType::kF32;
  return attend_gradient(softmax_terms(operands, optional, settings), settings, operands[0], operands[1], operands[2], outputs,
                         sinks_dtype);
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "attention",
          .doc =
              "q, k, v [, segment ids] [, sinks] -> o, lse. o_i = sum_j softmax_j(scale q_i . k_j) v_j over the keys j that query i sees "
              "(causal: j <= i; window: j > i - window; segment ids: its own segment), without holding seq x kv_seq (Dao et al. 2022); "
              "grouped queries (Ainslie et al. 2023). A shard of the queries, or of queries and keys, has the index of its first one, or "
              "those of its two halves, as trailing operands. softcap c: scores c tanh(s / c), before the mask; sinks: one more logit per "
              "query "
              "head in the softmax's sum. Second result: the log-sum-exp of each query. chunk is for the cost alone: chunks are segments, "
              "by chunk_segments.",
          .infer = infer,
          .role = role,
          .gradient = gradient,
          .cost = cost<1, 1>,
          .reference = reference,
          .decompose = decompose},
    OpDef{.name = "attention_gradient",
          .doc = "q, k, v, out, lse, dout [, segment ids] [, sinks] [, dlse] -> dq, dk, dv [, dsinks]. p_ij = exp(s_ij - lse_i), "
                 "dv_j = sum_i p_ij dout_i, ds_ij = p_ij (dout_i . v_j - d_i) with d_i = dout_i . out_i - dlse_i, with softcap times "
                 "1 - (s_ij / softcap)^2; dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i, dsinks = -sum_i exp(sinks - lse_i) "
                 "d_i.",
          .infer = infer_gradient,
          .role = role_gradient,
          .cost = cost<3, 2>,
          .reference = reference_gradient,
          .decompose = decompose_gradient},
};

void gradient(GradientContext& context) {
  const Tensor q = context.operands[0], out = context.results[0];
  const OptionalOperands optional = optional_operands(context.attributes(), 3, context.operands.size());
  Attributes attributes = context.attributes();
  const Tensor dout = context.upstream[0] ? cast(*context.upstream[0], q.dtype()) : constant(context.builder, 0.0, out.type());
  std::vector<Tensor> operands{q, context.operands[1], context.operands[2], out, context.results[1], dout};
  const auto starts = context.operands.begin() + static_cast<std::ptrdiff_t>(optional.starts);
  operands.insert(operands.end(), context.operands.begin() + 3, starts);
  if (optional.sinks > 0) attributes.set("sinks_dtype", std::string(dtype_name(context.gradient_dtype(optional.sinks))));
  if (context.upstream[1]) {
    attributes.set("lse_gradient", true);
    operands.push_back(cast(*context.upstream[1], DType::kF32));
  }
  operands.insert(operands.end(), starts, context.operands.end());
  const std::vector<Tensor> gradients = context.builder.append(kDefs[1], operands, attributes, Source::here());
  for (size_t i = 0; i < 3; ++i) context.gradients[i] = cast(gradients[i], context.gradient_dtype(i));
  if (optional.sinks > 0) context.gradients[optional.sinks] = gradients[3];
}

}  // namespace

std::span<const OpDef> attention_ops() { return kDefs; }

Attributes AttentionAttributes::to_attributes() const {
  Attributes attributes{{"scale", scale}, {"causal", causal}};
  if (window != 0) attributes.set("window", window);
  if (softcap != 0) attributes.set("softcap", softcap);
  if (sinks) attributes.set("sinks", true);
  if (chunk != 0) attributes.set("chunk", chunk);
  if (ring) attributes.set("ring", true);
  if (value_prefix != 0) attributes.set("value_prefix", value_prefix);
  return attributes;
}

AttentionAttributes AttentionAttributes::from(const Attributes& attributes) {
  return {.scale = attributes.number("scale"),
          .causal = attributes.flag("causal"),
          .window = attributes.integer_or("window", 0),
          .softcap = attributes.number_or("softcap", 0),
          .sinks = attributes.flag_or("sinks", false),
          .chunk = attributes.integer_or("chunk", 0),
          .ring = attributes.flag_or("ring", false),
          .value_prefix = attributes.integer_or("value_prefix", 0)};
}

void AttentionAttributes::check() const {
  if (window < 0) throw UserError("window is " + std::to_string(window) + "; expected 0 (none) or a positive number of keys");
  if (chunk < 0) throw UserError("chunk is " + std::to_string(chunk) + "; expected 0 (none) or a positive number of positions");
  if (window > 0 && chunk > 0) {
    throw UserError("window is " + std::to_string(window) + " and chunk " + std::to_string(chunk) +
                    "; expected one of them: a layer is windowed or chunked");
  }
  if (!(softcap >= 0) || std::isinf(softcap))
    throw UserError("softcap is " + std::to_string(softcap) + "; expected 0 (none) or a positive number");
  if (value_prefix < 0) throw UserError("value_prefix is " + std::to_string(value_prefix) + "; expected 0 (none) or a number of elements");
}

double AttentionAttributes::capped(double score) const { return softcap > 0 ? softcap * std::tanh(score / softcap) : score; }

OptionalOperands optional_operands(const Attributes& attributes, size_t first, size_t count) {
  OptionalOperands optional;
  const std::vector<std::string> offsets = attributes.names_or_empty("offsets");
  optional.num_starts = static_cast<size_t>(std::count(offsets.begin(), offsets.end(), "seq"));
  optional.num_key_starts = offsets.size() - optional.num_starts;
  count -= std::min(count, offsets.size());
  const size_t others = (attributes.flag_or("sinks", false) ? 1 : 0) + (attributes.flag_or("lse_gradient", false) ? 1 : 0);
  if (count != first + others && count != first + others + 2) {
    throw UserError("there are " + std::to_string(count) + " operands; expected " + std::to_string(first + others) + ", or " +
                    std::to_string(first + others + 2) + " with both segment ids");
  }
  size_t next = first;
  if (count == first + others + 2) optional.segments = next, next += 2;
  if (attributes.flag_or("sinks", false)) optional.sinks = next++;
  if (attributes.flag_or("lse_gradient", false)) optional.lse_gradient = next++;
  optional.starts = next;
  optional.key_starts = next + optional.num_starts;
  return optional;
}

int64_t index_in_whole(const std::vector<int64_t>& starts, int64_t size, int64_t i) {
  if (starts.empty()) return i;
  const int64_t half = size / static_cast<int64_t>(starts.size());
  return starts[static_cast<size_t>(i / half)] + i % half;
}

void check_sinks(const Type& sinks, const Type& q) {
  expect_float("sinks", sinks);
  expect_same_dims("sinks", sinks, "q's heads", {q.dims[2], q.dims[3]});
}

double visible_pairs(const AttentionAttributes& attributes, int64_t seq, int64_t kv_seq) {
  const double n = static_cast<double>(seq), all = n * static_cast<double>(kv_seq);
  if (attributes.chunk > 0) {
    const double chunk = static_cast<double>(attributes.chunk), rest = static_cast<double>(seq % attributes.chunk),
                 chunks = static_cast<double>(seq / attributes.chunk);
    return attributes.causal ? (chunks * chunk * (chunk + 1) + rest * (rest + 1)) / 2 : chunks * chunk * chunk + rest * rest;
  }
  const double hidden = static_cast<double>(attributes.window > 0 ? std::max<int64_t>(seq - attributes.window, 0)
                                                                  : 0);  // queries before which keys fall out of the window
  return (attributes.causal ? n * (n + 1) / 2 : all) - hidden * (hidden + 1) / 2;
}

Tensor attention(Tensor q, Tensor k, Tensor v, std::optional<Tensor> segment_ids, std::optional<Tensor> kv_segment_ids,
                 AttentionAttributes attributes, std::optional<Tensor> sinks, Source source) {
  MW_CHECK(segment_ids.has_value() == kv_segment_ids.has_value(), "attention takes both segment ids or neither");
  std::vector<Tensor> operands{q, k, v};
  if (segment_ids) operands.insert(operands.end(), {*segment_ids, *kv_segment_ids});
  if (sinks) operands.push_back(*sinks);
  attributes.sinks = sinks.has_value();
  return q.builder->append(kDefs[0], operands, attributes.to_attributes(), source).at(0);
}

}  // namespace mw
