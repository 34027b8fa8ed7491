// The closed list of conversions between layouts: all-gather, reduce-scatter, all-reduce, all-to-all, slice.
#pragma once
#include <map>
#include <string>

#include "ir/builder.h"
#include "ir/layout.h"

namespace mw {

// A value of the global Program as one rank holds it.
struct Sharded {
  Tensor local;
  Type global;
  Layout layout;
};

// `value` in the layout `to`. Partial results are reduced (those that `to` keeps partial excepted): reduce-scatter where `to` shards a
// dim by that part, else all-reduce.
Sharded convert(Sharded value, const Layout& to);

}  // namespace mw
