#include "ops/checks.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "exec/reference/evaluate.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr uint64_t kSeed = 20240229;
constexpr double kDecompositionTolerance = 1e-9;

const OpDef& def_of(const std::string& op) {
  const OpDef* def = find_op(op);
  if (!def) throw Failure("there is no op '" + op + "' in the registry");
  return *def;
}

std::string operand_name(size_t i) { return "operand" + std::to_string(i); }
std::string upstream_name(size_t i) { return "upstream" + std::to_string(i); }
std::string result_name(size_t i) { return "result" + std::to_string(i); }
std::string gradient_name(size_t i) { return "gradient" + std::to_string(i); }

std::vector<Tensor> add_operands(Builder& builder, const OpCase& op_case, InputKind kind) {
  std::vector<Tensor> operands;
  for (size_t i = 0; i < op_case.operands.size(); ++i) {
    const Type type = parse_type(op_case.operands[i].type);
    operands.push_back(kind == InputKind::kParameter && is_float(type.dtype) ? builder.parameter(operand_name(i), type)
                                                                             : builder.input(operand_name(i), type));
  }
  return operands;
}

std::vector<Tensor> append(Builder& builder, const OpCase& op_case, const std::vector<Tensor>& operands) {
  return builder.append(def_of(op_case.op), operands, op_case.attributes, Source("case"));
}

bool wants_gradient(const OperandSpec& operand) { return operand.differentiable && is_float(parse_type(operand.type).dtype); }

bool has_upstream(const OpCase& op_case, size_t result, const Type& type) {
  if (!is_float(type.dtype)) return false;
  return op_case.upstream.empty() || std::find(op_case.upstream.begin(), op_case.upstream.end(), result) != op_case.upstream.end();
}

std::vector<OpCase> variants(const OpCase& op_case) {
  std::vector<OpCase> list{op_case};
  if (op_case.other_dtypes) list.push_back(in_dtype(op_case, DType::kBF16));
  return list;
}

// The op, its gradient rule applied to upstream inputs, and one output for each gradient.
Program trace_gradient(const OpCase& op_case, InputKind kind) {
  const OpDef& def = def_of(op_case.op);
  Builder builder("gradient");
  const std::vector<Tensor> operands = add_operands(builder, op_case, kind);
  const std::vector<Tensor> results = append(builder, op_case, operands);
  const Op op = builder.program().ops.back();
  GradientContext context{.builder = builder,
                          .op = op,
                          .operands = operands,
                          .results = results,
                          .upstream = {},
                          .needed = {},
                          .gradients = {},
                          .depends_on_parameters = {}};
  context.depends_on_parameters = [&](Tensor) { return !op_case.upstream_from_batch; };
  for (size_t i = 0; i < results.size(); ++i) {
    const bool given = has_upstream(op_case, i, results[i].type());
    context.upstream.push_back(given ? std::optional<Tensor>(builder.input(upstream_name(i), results[i].type())) : std::nullopt);
  }
  for (const OperandSpec& operand : op_case.operands) context.needed.push_back(wants_gradient(operand));
  context.gradients.resize(operands.size());
  def.gradient(context);
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!context.needed[i]) continue;
    if (!context.gradients[i]) throw Failure("the gradient rule gives nothing for operand " + std::to_string(i));
    const Type expected = operands[i].type().with_dtype(context.gradient_dtype(i));
    if (context.gradients[i]->type() != expected) {
      throw Failure("the gradient of operand " + std::to_string(i) + " is " + to_string(context.gradients[i]->type()) + "; expected " +
                    to_string(expected));
    }
    builder.output(gradient_name(i), *context.gradients[i]);
  }
  Program program = builder.take();
  verify(program, "gradient rule");
  return program;
}

// sum of upstream * result, and its derivative by every element of one operand: central differences of fourth order.
double objective(const OpCase& op_case, const std::vector<HostArray>& operands, const std::map<std::string, HostArray>& upstream) {
  double sum = 0;
  const std::vector<HostArray> results = evaluate_op_reference(def_of(op_case.op), op_case.attributes, operands);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto at = upstream.find(upstream_name(i));
    if (at == upstream.end()) continue;
    for (size_t k = 0; k < results[i].data.size(); ++k) sum += results[i].data[k] * at->second.data[k];
  }
  return sum;
}

std::vector<double> finite_differences(const OpCase& op_case, std::vector<HostArray> operands, size_t operand,
                                       const std::map<std::string, HostArray>& upstream) {
  constexpr double step = 1e-3;
  std::vector<double> derivatives;
  for (double& x : operands[operand].data) {
    const double center = x;
    const auto at = [&](double shift) {
      x = center + shift;
      return objective(op_case, operands, upstream);
    };
    derivatives.push_back((8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step));
    x = center;
  }
  return derivatives;
}

void compare_gradients(const OpCase& op_case) {
  const std::vector<HostArray> operands = make_operands(op_case, kSeed);
  const Program program = trace_gradient(op_case, InputKind::kInput);
  std::map<std::string, HostArray> upstream, inputs;
  for (const ProgramInput& input : program.inputs) {
    if (!input.name.starts_with("upstream")) continue;
    const OpCase cotangent{.name = "upstream", .operands = {normal(to_string(program.type(input.value)))}};
    upstream[input.name] = make_operands(cotangent, kSeed + 1 + upstream.size())[0];
  }
  inputs = upstream;
  for (size_t i = 0; i < operands.size(); ++i) inputs[operand_name(i)] = operands[i];
  const std::map<std::string, HostArray> gradients = evaluate_reference(program, inputs, {.round_results = false});

  double largest = 1e-6, difference = 0;
  std::string worst;
  for (size_t i = 0; i < operands.size(); ++i) {
    const auto at = gradients.find(gradient_name(i));
    if (at == gradients.end()) continue;
    const std::vector<double> expected = finite_differences(op_case, operands, i, upstream);
    for (size_t k = 0; k < expected.size(); ++k) {
      largest = std::max(largest, std::abs(expected[k]));
      const double gap = std::abs(at->second.data[k] - expected[k]);
      if (gap <= difference) continue;
      difference = gap;
      worst = "operand " + std::to_string(i) + ", element " + std::to_string(k) + ": rule " + show(at->second.data[k]) +
              ", finite differences " + show(expected[k]);
      if (std::isnan(gap)) throw Failure(worst);
    }
  }
  if (!(difference <= op_case.gradient_tolerance * largest)) throw Failure(worst + "; largest gradient " + show(largest));
}

// ---- shards ----

HostArray half_of(const HostArray& x, const std::string& dim, int half) {
  const size_t at = static_cast<size_t>(x.type.index_of(dim));
  HostArray part{x.type, {}};
  part.type.dims[at].size /= 2;
  const int64_t inner = x.type.strides()[at], rows = part.type.dims[at].size;
  int64_t outer = 1;
  for (size_t d = 0; d < at; ++d) outer *= x.type.dims[d].size;
  for (int64_t o = 0; o < outer; ++o) {
    const auto begin = x.data.begin() + (2 * o + half) * rows * inner;
    part.data.insert(part.data.end(), begin, begin + rows * inner);
  }
  return part;
}

double combined(PartialKind kind, double a, double b) {
  switch (kind) {
    case PartialKind::kSum:
      return a + b;
    case PartialKind::kMax:
      return std::max(a, b);
    case PartialKind::kLogSumExp:
      return std::max(a, b) + std::log1p(std::exp(std::min(a, b) - std::max(a, b)));
  }
  return 0;
}

// The operands and attributes that a rank holding one half of `dim` (and of the dim tied to it) would see.
struct Shard {
  std::vector<HostArray> operands;
  Attributes attributes;
};

Shard shard_of(const OpCase& op_case, const std::vector<HostArray>& operands, const ShardedDim& dim, int half) {
  Shard shard{{}, op_case.attributes};
  for (const HostArray& operand : operands) {
    HostArray part = operand;
    for (const std::string& name : dim.names) {
      if (part.type.has(name)) part = half_of(part, name, half);
    }
    shard.operands.push_back(std::move(part));
  }
  if (const OpDef& def = def_of(op_case.op); def.localize) {
    def.localize(shard.attributes,
                 [&](std::string_view name) { return std::find(dim.names.begin(), dim.names.end(), name) != dim.names.end() ? 2 : 1; });
  }
  if (dim.role.needs_offset) {
    shard.attributes.set("offsets", names({dim.names[0]}));
    shard.operands.push_back({Type{DType::kI32, {}}, {static_cast<double>(half * dim.size / 2)}});
  }
  return shard;
}

void compare_shards(const OpCase& op_case, const std::vector<HostArray>& operands, const std::vector<HostArray>& whole,
                    const ShardedDim& dim) {
  const OpDef& def = def_of(op_case.op);
  const Shard shards[2] = {shard_of(op_case, operands, dim, 0), shard_of(op_case, operands, dim, 1)};
  const std::vector<HostArray> parts[2] = {evaluate_op_reference(def, shards[0].attributes, shards[0].operands),
                                           evaluate_op_reference(def, shards[1].attributes, shards[1].operands)};
  Signature signature;
  signature.attributes = &op_case.attributes;
  for (const HostArray& operand : operands) signature.operands.push_back(&operand.type);
  for (const HostArray& result : whole) signature.results.push_back(&result.type);

  for (size_t r = 0; r < whole.size(); ++r) {
    const std::string what = "sharded along '" + dim.names[0] + "', result " + std::to_string(r);
    std::string along;
    for (const std::string& name : dim.names) {
      if (whole[r].type.has(name)) along = name;
    }
    if (!along.empty()) {
      for (const int half : {0, 1}) {
        const HostArray expected = half_of(whole[r], along, half);
        const double difference = relative_difference(parts[half][r], expected);
        if (parts[half][r].type != expected.type)
          throw Failure(what + " is " + to_string(parts[half][r].type) + "; expected " + to_string(expected.type));
        if (difference > op_case.shard_tolerance)
          throw Failure(what + ": half " + std::to_string(half) + " differs by " + show(difference));
      }
      continue;
    }
    if (dim.role.use != DimUse::kContracted) throw Failure(what + " lacks the dim, which is called mapped");
    const PartialKind kind = def.partial ? def.partial(signature, dim.names[0], r) : PartialKind::kSum;
    HostArray sum = parts[0][r];
    for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] = combined(kind, sum.data[i], parts[1][r].data[i]);
    const double difference = relative_difference(sum, whole[r]);
    if (difference > op_case.shard_tolerance) throw Failure(what + ": the combined partials differ by " + show(difference));
  }
}

// The outermost dims on either side of a view of the bytes that they share.
std::vector<std::vector<std::string>> dims_in_one_place(const Type& from, const Type& to) {
  std::vector<std::vector<std::string>> pairs;
  size_t a = 0, b = 0;
  while (a < from.dims.size() && b < to.dims.size()) {
    pairs.push_back({from.dims[a].name});
    if (to.dims[b].name != from.dims[a].name) pairs.back().push_back(to.dims[b].name);
    int64_t a_size = from.dims[a++].size, b_size = to.dims[b++].size;
    while (a_size != b_size) (a_size < b_size) ? a_size *= from.dims.at(a++).size : b_size *= to.dims.at(b++).size;
  }
  return pairs;
}

}  // namespace

std::vector<ShardedDim> shardable_dims(const OpCase& op_case, bool even_only) {
  const OpDef& def = def_of(op_case.op);
  std::vector<Type> types;
  for (const OperandSpec& operand : op_case.operands) types.push_back(parse_type(operand.type));
  const size_t num_operands = types.size();
  for (const std::string& result : op_case.results) types.push_back(parse_type(result));
  Signature signature;
  signature.attributes = &op_case.attributes;
  for (size_t i = 0; i < types.size(); ++i) (i < num_operands ? signature.operands : signature.results).push_back(&types[i]);

  std::vector<ShardedDim> list;
  const auto add = [&](std::vector<std::string> dims, DimRole role, int64_t size) {
    bool even = size > 0;
    for (const Type& type : types) {
      for (const std::string& name : dims) even = even && (!type.has(name) || type.size_of(name) % 2 == 0);
    }
    if (role.use != DimUse::kWhole && (even || !even_only)) list.push_back({std::move(dims), role, size});
  };
  if (def.view) {
    for (std::vector<std::string>& dims : dims_in_one_place(types.at(0), types.at(1))) add(dims, {}, types[0].size_of(dims[0]));
    return list;
  }
  // A dim that carries the shards of others holds them in each rank's own order: half of the whole is no shard. The tests of the passes
  // compare such ops.
  std::vector<std::string> seen;
  for (const Type& type : types) {
    for (const Dim& dim : type.dims) {
      const std::vector<std::string> carried = def.carries ? def.carries(signature, dim.name) : std::vector<std::string>{};
      seen.insert(seen.end(), carried.begin(), carried.end());
      if (!carried.empty()) seen.push_back(dim.name);
    }
  }
  for (const Type& type : types) {
    for (const Dim& dim : type.dims) {
      if (std::find(seen.begin(), seen.end(), dim.name) != seen.end()) continue;
      seen.push_back(dim.name);
      add({dim.name}, def.role ? def.role(signature, dim.name) : DimRole{}, dim.size);
    }
  }
  return list;
}

void check_types(const OpCase& op_case) {
  for (const OpCase& variant : variants(op_case)) {
    Builder builder("types");
    const std::vector<Tensor> results = append(builder, variant, add_operands(builder, variant, InputKind::kInput));
    if (results.size() != variant.results.size()) {
      throw Failure("the rule gives " + std::to_string(results.size()) + " results, the case names " +
                    std::to_string(variant.results.size()));
    }
    for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(to_string(results[i].type()), variant.results[i]);
    const Cost cost = cost_of(def_of(variant.op), builder.program().signature(builder.program().ops.back()));
    EXPECT(cost.flops >= 0 && cost.bytes >= 0 && std::isfinite(cost.flops + cost.bytes));
  }
}

void check_text(const OpCase& op_case) {
  for (const OpCase& variant : variants(op_case)) {
    Builder builder("one_op");
    const Scope scope(builder, "layers.0.case");
    const std::vector<Tensor> results = append(builder, variant, add_operands(builder, variant, InputKind::kInput));
    for (size_t i = 0; i < results.size(); ++i) builder.output(result_name(i), results[i]);
    verify(builder.program(), "trace");
    const std::string text = builder.program().to_text();
    const Program parsed = parse_program(text, find_op);
    EXPECT_EQ(parsed.to_text(), text);
    EXPECT(parsed.ops.at(0).attributes == variant.attributes);
  }
}

void check_gradient(const OpCase& op_case) {
  const bool any = std::any_of(op_case.operands.begin(), op_case.operands.end(), wants_gradient);
  if (!def_of(op_case.op).gradient || !any) return;
  for (const OpCase& variant : variants(op_case)) {
    for (const InputKind kind : {InputKind::kInput, InputKind::kParameter}) trace_gradient(variant, kind);
  }
  compare_gradients(op_case);
}

void check_decomposition(const OpCase& op_case) {
  const OpDef& def = def_of(op_case.op);
  if (!def.decompose) return;
  for (const OpCase& variant : variants(op_case)) {
    Builder builder("decomposition");
    const std::vector<Tensor> results = def.decompose(add_operands(builder, variant, InputKind::kInput), variant.attributes);
    EXPECT_EQ(results.size(), variant.results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_EQ(to_string(results[i].type()), variant.results[i]);
      builder.output(result_name(i), results[i]);
    }
    verify(builder.program(), "decompose");
    const std::vector<HostArray> operands = make_operands(variant, kSeed);
    std::map<std::string, HostArray> inputs;
    for (size_t i = 0; i < operands.size(); ++i) inputs[operand_name(i)] = operands[i];
    const std::vector<HostArray> expected = evaluate_op_reference(def, variant.attributes, operands);
    const std::map<std::string, HostArray> found = evaluate_reference(builder.program(), inputs, {.round_results = false});
    for (size_t i = 0; i < expected.size(); ++i) {
      const double difference = relative_difference(found.at(result_name(i)), expected[i]);
      if (difference > kDecompositionTolerance)
        throw Failure("result " + std::to_string(i) + " of the decomposition differs by " + show(difference));
    }
  }
}

void check_shards(const OpCase& op_case) {
  if (op_case.attributes.find("offsets")) return;  // the case is a shard already
  const OpDef& def = def_of(op_case.op);
  if (def.collective) return;  // it works between shards
  const std::vector<HostArray> operands = make_operands(op_case, kSeed);
  const std::vector<HostArray> whole = evaluate_op_reference(def, op_case.attributes, operands);
  for (const ShardedDim& dim : shardable_dims(op_case, true)) compare_shards(op_case, operands, whole, dim);
}

void check_error(const std::string& op, const OpErrorCase& error) {
  Builder builder("error");
  std::vector<Tensor> operands;
  for (size_t i = 0; i < error.operands.size(); ++i) operands.push_back(builder.input(operand_name(i), parse_type(error.operands[i])));
  EXPECT_ERROR(
      UserError, { builder.append(def_of(op), operands, error.attributes, Source("model.py:7")); }, op + " (model.py:7): ", error.message);
}

}  // namespace mw::testing
