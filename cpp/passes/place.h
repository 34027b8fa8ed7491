// place: gives every value its memory. Kept, carried and result buffers are named and shared by the pieces; everything else lies in one
// scratch arena, where a value's bytes are free again after its last use.
//
//   a = f(x); b = g(a); c = h(b)    ->   a at 0, b at 4096, c at 0
//
// What a collective in flight reads, makes and works in stays reserved until it is finished (Piece::finish).
// An elementwise op writes over an operand that dies there. What a state's new version is made by writes straight into the state.
#pragma once
#include <functional>

#include "ir/plan.h"

namespace mw {

inline constexpr int64_t kPlacementAlignment = 64;
// What a buffer of so many bytes takes.
constexpr int64_t padded(int64_t bytes) { return (bytes + kPlacementAlignment - 1) / kPlacementAlignment * kPlacementAlignment; }

// What a backend tells passes about its kernels.
struct BackendFacts {
  // Bytes of workspace that the kernel of `op` needs; null: none.
  std::function<int64_t(const Program&, const Op&)> workspace_bytes;
  // Whether it can run the op as it is; null: everything.
  std::function<bool(const OpDef&)> has_kernel;
};

Plan place(Plan plan, const BackendFacts& backend);

}  // namespace mw
