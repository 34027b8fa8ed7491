// Ops that move or rename but do not compute. rename, split and merge are free: the same bytes under other dims.
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

Tensor rename(Tensor x, std::string from, std::string to, Source source = Source::here());
// split(x, "embed", {{"heads", 4}, {"head_dim", 16}}): one dim into several, outermost first.
Tensor split(Tensor x, std::string dim, std::vector<Dim> into, Source source = Source::here());
// merge(x, {"heads", "head_dim"}, "embed"): neighbouring dims, outermost first, into one.
Tensor merge(Tensor x, std::vector<std::string> dims, std::string into, Source source = Source::here());
// The same values in another memory order; x itself when it has that order.
Tensor reorder(Tensor x, std::vector<std::string> order, Source source = Source::here());
// The same values in memory of their own: an output that no op makes gets one.
Tensor copy(Tensor x, Source source = Source::here());
// Repeats x along new outermost dims, or along the dims of `type` in its order.
Tensor broadcast_to(Tensor x, Type type, Source source = Source::here());
Tensor slice(Tensor x, std::string dim, int64_t start, int64_t size, Source source = Source::here());
Tensor concat(std::vector<Tensor> parts, std::string dim, Source source = Source::here());
// Zeros before and after along one dim: the gradient of slice.
Tensor pad(Tensor x, std::string dim, int64_t before, int64_t after, Source source = Source::here());
// 0, 1, 2, ... along `dim`, i32.
Tensor iota(Builder& builder, Dim dim, Source source = Source::here());

}  // namespace mw
