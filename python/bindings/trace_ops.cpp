// The op functions that Python code may call: those of cpp/ops/ops.h but for collectives and fused chains, which passes make. Each takes
// the Trace and value ids; python/meshwright/ops.py is their typed, documented face.
#include <pybind11/stl.h>

#include "ops/ops.h"
#include "trace.h"

namespace mw {
namespace {

using Face = py::class_<TraceOps>;
using Id = ValueId;
using Ids = std::vector<ValueId>;
using Names = std::vector<std::string>;

std::vector<Tensor> tensors(Trace& t, const Ids& ids) {
  std::vector<Tensor> list;
  for (const Id id : ids) list.push_back(t.tensor(id));
  return list;
}

std::optional<Tensor> optional_tensor(Trace& t, std::optional<Id> id) { return id ? std::optional(t.tensor(*id)) : std::nullopt; }

std::vector<Dim> make_dims(const TypeDims& pairs) {
  std::vector<Dim> dims;
  for (const auto& [name, size] : pairs) dims.push_back({name, size});
  return dims;
}

void bind_elementwise(Face& m) {
  m.def_static("unary", [](Trace& t, const std::string& op, Id x) { return unary(op, t.tensor(x)).id; });
  m.def_static("binary", [](Trace& t, const std::string& op, Id a, Id b) { return binary(op, t.tensor(a), t.tensor(b)).id; });
  m.def_static("constant", [](Trace& t, double value, const std::string& dtype, const TypeDims& dims) {
    return constant(t.builder, value, make_type(dtype, dims)).id;
  });
  m.def_static("select", [](Trace& t, Id condition, Id a, Id b) { return select(t.tensor(condition), t.tensor(a), t.tensor(b)).id; });
  m.def_static("cast", [](Trace& t, Id x, const std::string& dtype) { return cast(t.tensor(x), parse_dtype(dtype)).id; });
  m.def_static("gated_activation",
               [](Trace& t, Id gate, Id up, const std::string& kind) { return gated_activation(t.tensor(gate), t.tensor(up), kind).id; });
  m.def_static("clamped_swiglu", [](Trace& t, Id gate, Id up, double limit, double alpha) {
    return gated_activation(t.tensor(gate), t.tensor(up), ClampedSwiglu{.limit = limit, .alpha = alpha}).id;
  });
}

void bind_contractions(Face& m) {
  m.def_static("dot", [](Trace& t, Id a, Id b, const Names& contract, const std::optional<std::string>& dtype) {
    return dot(t.tensor(a), t.tensor(b), contract, dtype ? std::optional(parse_dtype(*dtype)) : std::nullopt).id;
  });
  m.def_static("reduce_sum", [](Trace& t, Id x, const Names& dims) { return reduce_sum(t.tensor(x), dims).id; });
  m.def_static("reduce_mean", [](Trace& t, Id x, const Names& dims) { return reduce_mean(t.tensor(x), dims).id; });
  m.def_static("reduce_max", [](Trace& t, Id x, const Names& dims) { return reduce_max(t.tensor(x), dims).id; });
  m.def_static("reduce_min", [](Trace& t, Id x, const Names& dims) { return reduce_min(t.tensor(x), dims).id; });
  m.def_static("argmax", [](Trace& t, Id x, const std::string& dim) { return argmax(t.tensor(x), dim).id; });
  m.def_static("top_k", [](Trace& t, Id x, const std::string& dim, const std::string& into, int64_t k) {
    const auto [values, indices] = top_k(t.tensor(x), dim, {into, k});
    return std::make_pair(values.id, indices.id);
  });
  m.def_static("sum_of_squares", [](Trace& t, const Ids& values) { return sum_of_squares(tensors(t, values)).id; });
}

void bind_shapes(Face& m) {
  m.def_static("rename", [](Trace& t, Id x, const std::string& from, const std::string& to) { return rename(t.tensor(x), from, to).id; });
  m.def_static("split",
               [](Trace& t, Id x, const std::string& dim, const TypeDims& into) { return split(t.tensor(x), dim, make_dims(into)).id; });
  m.def_static("merge", [](Trace& t, Id x, const Names& dims, const std::string& into) { return merge(t.tensor(x), dims, into).id; });
  m.def_static("reorder", [](Trace& t, Id x, const Names& order) { return reorder(t.tensor(x), order).id; });
  m.def_static("copy", [](Trace& t, Id x) { return copy(t.tensor(x)).id; });
  m.def_static("broadcast_to", [](Trace& t, Id x, const TypeDims& dims) {
    return broadcast_to(t.tensor(x), Type{t.tensor(x).dtype(), make_dims(dims)}).id;
  });
  m.def_static("slice",
               [](Trace& t, Id x, const std::string& dim, int64_t start, int64_t size) { return slice(t.tensor(x), dim, start, size).id; });
  m.def_static("concat", [](Trace& t, const Ids& parts, const std::string& dim) { return concat(tensors(t, parts), dim).id; });
  m.def_static(
      "pad", [](Trace& t, Id x, const std::string& dim, int64_t before, int64_t after) { return pad(t.tensor(x), dim, before, after).id; });
  m.def_static("iota", [](Trace& t, const std::string& dim, int64_t size) { return iota(t.builder, {dim, size}).id; });
  m.def_static("gather_rows",
               [](Trace& t, Id table, Id ids, const std::string& dim) { return gather_rows(t.tensor(table), t.tensor(ids), dim).id; });
  m.def_static("scatter_rows", [](Trace& t, Id x, Id ids, const std::string& dim, int64_t rows) {
    return scatter_rows(t.tensor(x), t.tensor(ids), Dim{dim, rows}, t.tensor(x).dtype()).id;
  });
}

void bind_layers(Face& m) {
  m.def_static("rms_norm", [](Trace& t, Id x, Id weight, double eps, bool offset_one) {
    return rms_norm(t.tensor(x), t.tensor(weight), eps, offset_one).id;
  });
  m.def_static("rms_norm_of_dim", [](Trace& t, Id x, const std::string& dim, double eps) { return rms_norm(t.tensor(x), dim, eps).id; });
  m.def_static("layer_norm", [](Trace& t, Id x, Id weight, std::optional<Id> bias, double eps) {
    return layer_norm(t.tensor(x), t.tensor(weight), optional_tensor(t, bias), eps).id;
  });
  m.def_static("rope", [](Trace& t, Id x, Id positions, const py::dict& settings) {
    RopeAttributes rope_settings;
    rope_settings.theta = py::cast<double>(settings["theta"]);
    rope_settings.pairing = py::cast<std::string>(settings["pairing"]);
    rope_settings.scaling = py::cast<std::string>(settings["scaling"]);
    rope_settings.factor = py::cast<double>(settings["factor"]);
    rope_settings.low_freq_factor = py::cast<double>(settings["low_freq_factor"]);
    rope_settings.high_freq_factor = py::cast<double>(settings["high_freq_factor"]);
    rope_settings.original_positions = py::cast<int64_t>(settings["original_positions"]);
    rope_settings.beta_fast = py::cast<double>(settings["beta_fast"]);
    rope_settings.beta_slow = py::cast<double>(settings["beta_slow"]);
    rope_settings.truncate = py::cast<bool>(settings["truncate"]);
    rope_settings.attention_factor = py::cast<double>(settings["attention_factor"]);
    return rope(t.tensor(x), t.tensor(positions), rope_settings).id;
  });
  m.def_static("attention", [](Trace& t, Id q, Id k, Id v, std::optional<Id> segments, std::optional<Id> kv_segments, double scale,
                               bool causal, int64_t window, double softcap, std::optional<Id> sinks, int64_t chunk) {
    return attention(t.tensor(q), t.tensor(k), t.tensor(v), optional_tensor(t, segments), optional_tensor(t, kv_segments),
                     {.scale = scale, .causal = causal, .window = window, .softcap = softcap, .chunk = chunk}, optional_tensor(t, sinks))
        .id;
  });
  m.def_static("chunk_segments", [](Trace& t, Id segments, Id positions, int64_t chunk) {
    return chunk_segments(t.tensor(segments), t.tensor(positions), chunk).id;
  });
  m.def_static("cache_write", [](Trace& t, Id cache, Id x, Id slots, Id positions, bool ring) {
    return cache_write(t.tensor(cache), t.tensor(x), t.tensor(slots), t.tensor(positions), ring).id;
  });
  m.def_static("cached_attention", [](Trace& t, Id q, Id k, std::optional<Id> v, Id slots, Id positions, double scale, int64_t window,
                                      double softcap, std::optional<Id> sinks, int64_t chunk, bool ring, int64_t value_prefix) {
    const AttentionAttributes attributes{
        .scale = scale, .window = window, .softcap = softcap, .chunk = chunk, .ring = ring, .value_prefix = value_prefix};
    return cached_attention(t.tensor(q), t.tensor(k), optional_tensor(t, v), t.tensor(slots), t.tensor(positions), attributes,
                            optional_tensor(t, sinks))
        .id;
  });
  m.def_static("cross_entropy", [](Trace& t, Id x, Id w, Id targets, double softcap) {
    return cross_entropy(t.tensor(x), t.tensor(w), t.tensor(targets), softcap).id;
  });
}

void bind_experts(Face& m) {
  m.def_static("route", [](Trace& t, Id logits, std::optional<Id> bias, const std::string& score, int64_t k, int64_t groups,
                           int64_t groups_selected, const std::string& group_score, bool normalize, double scaling) {
    const Routing r = route(t.tensor(logits), optional_tensor(t, bias),
                            {.score = score,
                             .k = k,
                             .groups = groups,
                             .groups_selected = groups_selected,
                             .group_score = group_score,
                             .normalize = normalize,
                             .scaling = scaling});
    return std::make_pair(r.weights.id, r.indices.id);
  });
  m.def_static("within_capacity", [](Trace& t, Id indices, int64_t experts, int64_t capacity) {
    return within_capacity(t.tensor(indices), experts, capacity).id;
  });
  m.def_static("to_expert_rows", [](Trace& t, Id x, Id indices, int64_t experts, std::optional<Id> weights) {
    return to_expert_rows(t.tensor(x), t.tensor(indices), experts, optional_tensor(t, weights)).id;
  });
  m.def_static("from_expert_rows", [](Trace& t, Id rows, Id indices, int64_t experts) {
    return from_expert_rows(t.tensor(rows), t.tensor(indices), experts).id;
  });
  m.def_static("expert_of_rows", [](Trace& t, Id indices, int64_t experts) { return expert_of_rows(t.tensor(indices), experts).id; });
  m.def_static("combine", [](Trace& t, Id rows, Id indices, int64_t experts, std::optional<Id> weights) {
    return combine(t.tensor(rows), optional_tensor(t, weights), t.tensor(indices), experts).id;
  });
  m.def_static("expert_row_products", [](Trace& t, Id rows, Id x, Id indices, int64_t experts) {
    return expert_row_products(t.tensor(rows), t.tensor(x), t.tensor(indices), experts).id;
  });
  m.def_static("grouped_dot", [](Trace& t, Id x, Id w, Id row_experts, const Names& contract) {
    return grouped_dot(t.tensor(x), t.tensor(w), t.tensor(row_experts), contract).id;
  });
  m.def_static("grouped_dot_weights", [](Trace& t, Id x, Id dy, Id row_experts, const std::string& dtype, const TypeDims& dims) {
    return grouped_dot_weights(t.tensor(x), t.tensor(dy), t.tensor(row_experts), make_type(dtype, dims)).id;
  });
}

void bind_random_and_updates(Face& m) {
  m.def_static("random_uniform", [](Trace& t, const TypeDims& dims, Id seed, Id step, const std::string& name) {
    return random_uniform(Type{DType::kF32, make_dims(dims)}, t.tensor(seed), t.tensor(step), name).id;
  });
  m.def_static("random_normal", [](Trace& t, const TypeDims& dims, Id seed, Id step, const std::string& name) {
    return random_normal(Type{DType::kF32, make_dims(dims)}, t.tensor(seed), t.tensor(step), name).id;
  });
  m.def_static("adamw",
               [](Trace& t, Id w, Id g, Id m1, Id m2, Id lr, Id scale, Id c1, Id c2, double beta1, double beta2, double eps, double decay) {
                 const AdamWResult r = adamw(t.tensor(w), t.tensor(g), t.tensor(m1), t.tensor(m2), t.tensor(lr), t.tensor(scale),
                                             t.tensor(c1), t.tensor(c2), beta1, beta2, eps, decay);
                 return std::make_tuple(r.weight.id, r.first_moment.id, r.second_moment.id);
               });
  m.def_static("sgd", [](Trace& t, Id w, Id g, Id momentum_buffer, Id lr, Id scale, double momentum, double decay) {
    const SgdResult r = sgd(t.tensor(w), t.tensor(g), t.tensor(momentum_buffer), t.tensor(lr), t.tensor(scale), momentum, decay);
    return std::make_pair(r.weight.id, r.momentum.id);
  });
}

}  // namespace

void bind_trace_ops(py::module_& module) {
  Face m(module, "TraceOps", "Op functions over value ids of a Trace.");
  bind_elementwise(m);
  bind_contractions(m);
  bind_shapes(m);
  bind_layers(m);
  bind_experts(m);
  bind_random_and_updates(m);
}

}  // namespace mw
