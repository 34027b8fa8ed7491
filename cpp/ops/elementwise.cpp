// Elementwise ops: y[i] = f(a[i], b[i], ...) for every named index i. One table row each: name, operands, value, gradient.
#include "ops/elementwise.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

constexpr double kGeluCubic = 0.044715;
const double kGeluScale = std::sqrt(2.0 / std::numbers::pi);

double sigmoid_of(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Gradient of one operand from the operands a, b, the result y and the upstream gradient g.
struct GradientTerms {
  Tensor a, b, y, g;
  Builder& builder;
  Tensor number(double x) const { return constant(builder, x); }
};
using GradientRule = Tensor (*)(const GradientTerms&);

enum class ResultKind : uint8_t { kSame, kBool };

struct Row {
  std::string_view name;
  int arity;
  double (*value)(double a, double b);
  GradientRule gradient_a;  // null: not differentiable
  GradientRule gradient_b;
  ResultKind result;
  std::string_view doc;
};

const std::vector<Row>& rows() {
  using T = const GradientTerms&;
  constexpr ResultKind same = ResultKind::kSame, boolean = ResultKind::kBool;
  static const std::vector<Row> table{
      {"neg", 1, [](double a, double) { return -a; }, [](T t) { return -t.g; }, nullptr, same, "y = -a"},
      {"exp", 1, [](double a, double) { return std::exp(a); }, [](T t) { return t.g * t.y; }, nullptr, same, "y = exp(a)"},
      {"log", 1, [](double a, double) { return std::log(a); }, [](T t) { return t.g / t.a; }, nullptr, same, "y = ln(a)"},
      {"sqrt", 1, [](double a, double) { return std::sqrt(a); }, [](T t) { return t.g * 0.5 / t.y; }, nullptr, same, "y = sqrt(a)"},
      {"rsqrt", 1, [](double a, double) { return 1.0 / std::sqrt(a); }, [](T t) { return t.g * -0.5 * (t.y * t.y * t.y); }, nullptr, same,
       "y = 1 / sqrt(a)"},
      {"reciprocal", 1, [](double a, double) { return 1.0 / a; }, [](T t) { return -(t.g * (t.y * t.y)); }, nullptr, same, "y = 1 / a"},
      {"square", 1, [](double a, double) { return a * a; }, [](T t) { return t.g * 2.0 * t.a; }, nullptr, same, "y = a * a"},
      {"abs", 1, [](double a, double) { return std::abs(a); }, [](T t) { return select(binary("lt", t.a, t.number(0)), -t.g, t.g); },
       nullptr, same, "y = |a|"},
      {"floor", 1, [](double a, double) { return std::floor(a); }, [](T t) { return t.g * 0.0; }, nullptr, same,
       "y = the largest whole number that is at most a; its gradient is 0"},
      {"sin", 1, [](double a, double) { return std::sin(a); }, [](T t) { return t.g * unary("cos", t.a); }, nullptr, same, "y = sin(a)"},
      {"cos", 1, [](double a, double) { return std::cos(a); }, [](T t) { return -(t.g * unary("sin", t.a)); }, nullptr, same, "y = cos(a)"},
      {"tanh", 1, [](double a, double) { return std::tanh(a); }, [](T t) { return t.g * (-(t.y * t.y) + 1.0); }, nullptr, same,
       "y = tanh(a)"},
      {"sigmoid", 1, [](double a, double) { return sigmoid_of(a); }, [](T t) { return t.g * (t.y * (-t.y + 1.0)); }, nullptr, same,
       "y = 1 / (1 + exp(-a))"},
      {"silu", 1, [](double a, double) { return a * sigmoid_of(a); },
       [](T t) {
         const Tensor s = unary("sigmoid", t.a);
         return t.g * (s * (t.a * (-s + 1.0) + 1.0));
       },
       nullptr, same, "y = a * sigmoid(a)  (SiLU, Elfwing et al. 2017)"},
      {"relu", 1, [](double a, double) { return a > 0 ? a : 0.0; },
       [](T t) { return select(binary("gt", t.a, t.number(0)), t.g, t.g * 0.0); }, nullptr, same, "y = max(a, 0)"},
      {"gelu_tanh", 1, [](double a, double) { return 0.5 * a * (1 + std::tanh(kGeluScale * (a + kGeluCubic * a * a * a))); },
       [](T t) {
         const Tensor a2 = t.a * t.a;
         const Tensor u = unary("tanh", t.a * (a2 * kGeluCubic + 1.0) * kGeluScale);
         const Tensor slope = (-(u * u) + 1.0) * (a2 * (3 * kGeluCubic) + 1.0) * kGeluScale;
         return t.g * ((u + 1.0) * 0.5 + t.a * slope * 0.5);
       },
       nullptr, same, "y = a/2 (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3)))  (GELU, tanh form, Hendrycks and Gimpel 2016)"},
      {"gelu_erf", 1, [](double a, double) { return 0.5 * a * (1 + std::erf(a * std::numbers::sqrt2 / 2)); },
       [](T t) {
         const Tensor cdf = (unary("erf", t.a * (std::numbers::sqrt2 / 2)) + 1.0) * 0.5;
         const Tensor pdf = exp(t.a * t.a * -0.5) * (0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2);
         return t.g * (cdf + t.a * pdf);
       },
       nullptr, same, "y = a Phi(a)  (GELU, exact form)"},
      {"erf", 1, [](double a, double) { return std::erf(a); }, [](T t) { return t.g * exp(-(t.a * t.a)) * (2 * std::numbers::inv_sqrtpi); },
       nullptr, same, "y = erf(a)"},
      {"is_finite", 1, [](double a, double) { return std::isfinite(a) ? 1.0 : 0.0; }, nullptr, nullptr, boolean,
       "1 where a is neither infinite nor NaN"},
      {"logical_not", 1, [](double a, double) { return a == 0 ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "1 where a is 0"},
      {"add", 2, [](double a, double b) { return a + b; }, [](T t) { return t.g; }, [](T t) { return t.g; }, same, "y = a + b"},
      {"sub", 2, [](double a, double b) { return a - b; }, [](T t) { return t.g; }, [](T t) { return -t.g; }, same, "y = a - b"},
      {"mul", 2, [](double a, double b) { return a * b; }, [](T t) { return t.g * t.b; }, [](T t) { return t.g * t.a; }, same, "y = a * b"},
      {"div", 2, [](double a, double b) { return a / b; }, [](T t) { return t.g / t.b; }, [](T t) { return -(t.g * t.y / t.b); }, same,
       "y = a / b"},
      {"max", 2, [](double a, double b) { return a < b ? b : a; }, [](T t) { return select(binary("lt", t.a, t.b), t.g * 0.0, t.g); },
       [](T t) { return select(binary("lt", t.a, t.b), t.g, t.g * 0.0); }, same, "y = max(a, b); at a tie the gradient goes to a"},
      {"min", 2, [](double a, double b) { return b < a ? b : a; }, [](T t) { return select(binary("gt", t.a, t.b), t.g * 0.0, t.g); },
       [](T t) { return select(binary("gt", t.a, t.b), t.g, t.g * 0.0); }, same, "y = min(a, b); at a tie the gradient goes to a"},
      {"pow", 2, [](double a, double b) { return std::pow(a, b); }, [](T t) { return t.g * t.b * binary("pow", t.a, t.b + -1.0); },
       [](T t) { return t.g * t.y * log(t.a); }, same, "y = a^b for a > 0"},
      {"eq", 2, [](double a, double b) { return a == b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a == b"},
      {"ne", 2, [](double a, double b) { return a != b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a != b"},
      {"lt", 2, [](double a, double b) { return a < b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a < b"},
      {"le", 2, [](double a, double b) { return a <= b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a <= b"},
      {"gt", 2, [](double a, double b) { return a > b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a > b"},
      {"ge", 2, [](double a, double b) { return a >= b ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "a >= b"},
      {"logical_and", 2, [](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; }, nullptr, nullptr, boolean,
       "1 where neither is 0"},
      {"logical_or", 2, [](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; }, nullptr, nullptr, boolean, "1 where one is not 0"},
  };
  return table;
}

const Row* find_row(std::string_view name) {
  for (const Row& row : rows()) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

// The dims of the result: those of the largest operand, which must hold the dims of all others.
std::vector<Dim> joined_dims(const Signature& signature) {
  const Type* largest = &signature.operand(0);
  for (const Type* type : signature.operands) {
    if (type->rank() > largest->rank()) largest = type;
  }
  for (const Type* type : signature.operands) {
    for (const Dim& dim : type->dims) {
      const int index = largest->index_of(dim.name);
      if (index < 0) {
        throw UserError("operands " + to_string(*largest) + " and " + to_string(*type) + ": neither holds all dims of the other ('" +
                        dim.name + "' is missing in the first); dims are matched by name, rename one side or reduce the dim away");
      }
      if (largest->dims[static_cast<size_t>(index)].size != dim.size) {
        throw UserError("operands " + to_string(*largest) + " and " + to_string(*type) + ": dim '" + dim.name + "' has two sizes");
      }
    }
  }
  return largest->dims;
}

// All operands share one dtype; an f32 scalar goes with any float.
DType joined_dtype(const Signature& signature, size_t first = 0) {
  const Type* leader = nullptr;
  for (size_t i = first; i < signature.operands.size(); ++i) {
    const Type& type = signature.operand(i);
    const bool free_scalar = type.dims.empty() && type.dtype == DType::kF32;
    if (!leader || (leader->dims.empty() && leader->dtype == DType::kF32 && !free_scalar)) leader = &type;
  }
  for (size_t i = first; i < signature.operands.size(); ++i) {
    const Type& type = signature.operand(i);
    const bool free_scalar = type.dims.empty() && type.dtype == DType::kF32 && is_float(leader->dtype);
    if (type.dtype != leader->dtype && !free_scalar) {
      throw UserError("operands " + to_string(*leader) + " and " + to_string(type) + " have different dtypes; cast one of them");
    }
  }
  return leader->dtype;
}

template <ResultKind kind>
std::vector<Type> infer_elementwise(const Signature& signature) {
  const DType dtype = joined_dtype(signature);
  return {{kind == ResultKind::kBool ? DType::kU8 : dtype, joined_dims(signature)}};
}

template <size_t index>
void reference_row(const ReferenceContext& context) {
  const Row& row = rows()[index];
  HostArray& result = context.result(0);
  const HostArray& a = context.operand(0);
  const HostArray& b = context.operand(row.arity > 1 ? 1 : 0);
  LoopNest(result.type.dims, {&a.type, &b.type}).run([&](int64_t i, const int64_t* at) {
    result.data[static_cast<size_t>(i)] = row.value(a.data[static_cast<size_t>(at[0])], b.data[static_cast<size_t>(at[1])]);
  });
}

template <size_t index>
void gradient_row(GradientContext& context) {
  const Row& row = rows()[index];
  const Tensor a = context.operands[0], b = context.operands.back();
  const GradientTerms terms{a, b, context.results[0], *context.upstream[0], context.builder};
  if (context.needed[0]) context.gradients[0] = sum_to(row.gradient_a(terms), a.type(), context.gradient_dtype(0));
  if (row.arity > 1 && context.needed[1]) context.gradients[1] = sum_to(row.gradient_b(terms), b.type(), context.gradient_dtype(1));
}

bool always_linear(const Signature&) { return true; }
bool linear_with_scalar(const Signature& signature, size_t operand) { return signature.operand(1 - operand).dims.empty(); }
bool linear_numerator(const Signature& signature, size_t operand) { return operand == 0 && signature.operand(1).dims.empty(); }

template <size_t index>
OpDef row_def() {
  const Row& row = rows()[index];
  OpDef def{.name = row.name, .doc = row.doc, .num_operands = row.arity};
  def.infer = row.result == ResultKind::kBool ? infer_elementwise<ResultKind::kBool> : infer_elementwise<ResultKind::kSame>;
  def.gradient = row.gradient_a ? gradient_row<index> : nullptr;
  def.reference = reference_row<index>;
  def.elementwise = true;
  if (row.name == "add" || row.name == "sub" || row.name == "neg") def.jointly_linear = always_linear;
  if (row.name == "mul") def.linear_in = linear_with_scalar;
  if (row.name == "div") def.linear_in = linear_numerator;
  return def;
}

// ---- select, cast, constant ----

std::vector<Type> infer_select(const Signature& signature) {
  if (signature.operand(0).dtype != DType::kU8)
    throw UserError("select: the condition is " + to_string(signature.operand(0)) + "; expected u8");
  return {{joined_dtype(signature, 1), joined_dims(signature)}};
}

void reference_select(const ReferenceContext& context) {
  HostArray& result = context.result(0);
  const HostArray &c = context.operand(0), &a = context.operand(1), &b = context.operand(2);
  LoopNest(result.type.dims, {&c.type, &a.type, &b.type}).run([&](int64_t i, const int64_t* at) {
    result.data[static_cast<size_t>(i)] =
        c.data[static_cast<size_t>(at[0])] != 0 ? a.data[static_cast<size_t>(at[1])] : b.data[static_cast<size_t>(at[2])];
  });
}

void gradient_select(GradientContext& context) {
  const Tensor g = *context.upstream[0];
  const Tensor zero = g * 0.0;
  if (context.needed[1])
    context.gradients[1] = sum_to(select(context.operands[0], g, zero), context.operands[1].type(), context.gradient_dtype(1));
  if (context.needed[2])
    context.gradients[2] = sum_to(select(context.operands[0], zero, g), context.operands[2].type(), context.gradient_dtype(2));
}

std::vector<Type> infer_cast(const Signature& signature) {
  return {signature.operand(0).with_dtype(parse_dtype(signature.attributes->text("dtype")))};
}

void reference_cast(const ReferenceContext& context) {
  const bool to_integer = !is_float(context.result(0).type.dtype);
  const std::vector<double>& from = context.operand(0).data;
  for (size_t i = 0; i < from.size(); ++i) context.result(0).data[i] = to_integer ? std::trunc(from[i]) : from[i];
}

void gradient_cast(GradientContext& context) {
  if (is_float(context.operands[0].dtype())) context.gradients[0] = cast(*context.upstream[0], context.gradient_dtype(0));
}

bool widens(const Signature& signature) {
  return is_float(signature.operand(0).dtype) && dtype_bytes(signature.result(0).dtype) >= dtype_bytes(signature.operand(0).dtype);
}

std::vector<Type> infer_constant(const Signature& signature) { return {parse_type(signature.attributes->text("type"))}; }

void reference_constant(const ReferenceContext& context) {
  for (double& x : context.result(0).data) x = context.attributes->number("value");
}

template <size_t... indices>
std::vector<OpDef> row_defs(std::index_sequence<indices...>) {
  return {row_def<indices>()...};
}

constexpr size_t kRows = 35;

}  // namespace

std::span<const OpDef> elementwise_ops() {
  static const std::vector<OpDef> defs = [] {
    MW_CHECK(rows().size() == kRows, "kRows counts the rows of the elementwise table: ", rows().size());
    std::vector<OpDef> all = row_defs(std::make_index_sequence<kRows>());
    all.push_back({.name = "select",
                   .doc = "y = a where the condition is not 0, else b",
                   .num_operands = 3,
                   .infer = infer_select,
                   .gradient = gradient_select,
                   .reference = reference_select,
                   .elementwise = true});
    all.push_back({.name = "cast",
                   .doc = "y = a in another dtype; floats round to nearest even, to an integer towards zero",
                   .num_operands = 1,
                   .infer = infer_cast,
                   .gradient = gradient_cast,
                   .reference = reference_cast,
                   .elementwise = true,
                   .jointly_linear = widens});
    all.push_back({.name = "constant",
                   .doc = "One number, the same at every index",
                   .num_operands = 0,
                   .infer = infer_constant,
                   .reference = reference_constant,
                   .elementwise = true,
                   .localize = localize_type});
    return all;
  }();
  return defs;
}

namespace {
const OpDef& def_of(std::string_view name) {
  for (const OpDef& def : elementwise_ops()) {
    if (def.name == name) return def;
  }
  std::vector<std::string> known;
  for (const OpDef& def : elementwise_ops()) known.emplace_back(def.name);
  throw UserError("there is no elementwise op '" + std::string(name) + "'" + did_you_mean(std::string(name), known));
}
}  // namespace

Tensor unary(std::string_view op, Tensor x, Source source) { return x.builder->append1(def_of(op), {x}, {}, source); }
Tensor binary(std::string_view op, Tensor a, Tensor b, Source source) { return a.builder->append1(def_of(op), {a, b}, {}, source); }

Tensor constant(Builder& builder, double value, Source source) { return constant(builder, value, Type{DType::kF32, {}}, source); }
Tensor constant(Builder& builder, double value, Type type, Source source) {
  return builder.append1(def_of("constant"), {}, {{"type", to_string(type)}, {"value", value}}, source);
}

Tensor select(Tensor condition, Tensor if_true, Tensor if_false, Source source) {
  return condition.builder->append1(def_of("select"), {condition, if_true, if_false}, {}, source);
}

Tensor cast(Tensor x, DType dtype, Source source) {
  if (x.dtype() == dtype) return x;
  return x.builder->append1(def_of("cast"), {x}, {{"dtype", std::string(dtype_name(dtype))}}, source);
}

size_t elementwise_arity(std::string_view op) {
  const Row* row = find_row(op);
  MW_CHECK(row, "no unary or binary op ", op);
  return static_cast<size_t>(row->arity);
}

Tensor unary_gradient(std::string_view op, Tensor x, Tensor y, Tensor g) {
  const Row* row = find_row(op);
  MW_CHECK(row && row->arity == 1 && row->gradient_a, op, " is no differentiable unary op");
  return row->gradient_a({x, x, y, g, *x.builder});
}

double elementwise_value(std::string_view op, std::span<const double> operands) {
  if (op == "select") return operands[0] != 0 ? operands[1] : operands[2];
  const Row* row = find_row(op);
  MW_CHECK(row, "no elementwise op ", op);
  return row->value(operands[0], operands.back());
}

Tensor sum_to(Tensor gradient, const Type& like, DType dtype, Source source) {
  std::vector<std::string> away;
  for (const Dim& dim : gradient.type().dims) {
    if (!like.has(dim.name)) away.push_back(dim.name);
  }
  if (!away.empty()) gradient = reduce_sum(cast(gradient, dtype, source), away, source);
  return reorder(cast(gradient, dtype, source), like.dim_names(), source);
}

}  // namespace mw
