// Elementwise ops. Operands are matched by dim name: the dims of every operand are among those of the largest, whose memory order
// the result takes; an operand that lacks a dim is the same all along it. All float operands share one dtype, but an f32 without
// dims (a scalar) goes with any. Comparisons and logic give u8.
#pragma once
#include <span>
#include <string_view>

#include "ir/builder.h"

namespace mw {

// An operand of an operator expression; remembers the line it stands on.
struct Operand {
  Tensor tensor;
  Source source;
  Operand(Tensor tensor, std::source_location location = std::source_location::current())
      : tensor(tensor), source(Source::here(location)) {}  // NOLINT
};

Tensor unary(std::string_view op, Tensor x, Source source = Source::here());
Tensor binary(std::string_view op, Tensor a, Tensor b, Source source = Source::here());

// A value known at trace time. Without dims it is a scalar that goes with any float dtype.
Tensor constant(Builder& builder, double value, Source source = Source::here());
Tensor constant(Builder& builder, double value, Type type, Source source = Source::here());

inline Tensor operator+(Operand a, Tensor b) { return binary("add", a.tensor, b, a.source); }
inline Tensor operator-(Operand a, Tensor b) { return binary("sub", a.tensor, b, a.source); }
inline Tensor operator*(Operand a, Tensor b) { return binary("mul", a.tensor, b, a.source); }
inline Tensor operator/(Operand a, Tensor b) { return binary("div", a.tensor, b, a.source); }
inline Tensor operator-(Operand a) { return unary("neg", a.tensor, a.source); }
inline Tensor operator*(Operand a, double b) { return binary("mul", a.tensor, constant(*a.tensor.builder, b, a.source), a.source); }
inline Tensor operator+(Operand a, double b) { return binary("add", a.tensor, constant(*a.tensor.builder, b, a.source), a.source); }

inline Tensor exp(Tensor x, Source s = Source::here()) { return unary("exp", x, s); }
inline Tensor log(Tensor x, Source s = Source::here()) { return unary("log", x, s); }
inline Tensor sqrt(Tensor x, Source s = Source::here()) { return unary("sqrt", x, s); }
inline Tensor rsqrt(Tensor x, Source s = Source::here()) { return unary("rsqrt", x, s); }
inline Tensor square(Tensor x, Source s = Source::here()) { return unary("square", x, s); }
inline Tensor reciprocal(Tensor x, Source s = Source::here()) { return unary("reciprocal", x, s); }
inline Tensor maximum(Tensor a, Tensor b, Source s = Source::here()) { return binary("max", a, b, s); }
inline Tensor minimum(Tensor a, Tensor b, Source s = Source::here()) { return binary("min", a, b, s); }

Tensor select(Tensor condition, Tensor if_true, Tensor if_false, Source source = Source::here());
Tensor cast(Tensor x, DType dtype, Source source = Source::here());  // x itself when it has that dtype

// Operands of a unary or binary op of the table.
size_t elementwise_arity(std::string_view op);

// The gradient of x from the upstream gradient g of y = op(x), by the table's own rule.
Tensor unary_gradient(std::string_view op, Tensor x, Tensor y, Tensor g);

// The value of one elementwise op for scalars: references and the compile-time folding of constants use it.
double elementwise_value(std::string_view op, std::span<const double> operands);

// Sums `gradient` over the dims that `like` lacks and casts it to `dtype`: the gradient of an operand that was broadcast.
Tensor sum_to(Tensor gradient, const Type& like, DType dtype, Source source = Source::here());

}  // namespace mw
