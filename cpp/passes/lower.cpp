#include "passes/lower.h"

#include "base/error.h"
#include "passes/edit.h"

namespace mw {
namespace {

void lower_op(Copier& copier, const Op& op, const BackendFacts& backend, const Program& from) {
  if (backend.has_kernel(*op.def)) return copier.copy(op);
  MW_CHECK(op.def->decompose, "the backend has neither a kernel nor a decomposition for ", from.describe(op));
  copier.follow(op);
  const std::vector<Tensor> results = op.def->decompose(copier.operands(op), op.attributes);
  for (size_t i = 0; i < results.size(); ++i) copier.map(op.results[i], results[i]);
}

// One round; true when something was decomposed (whose parts may need another round).
bool lower_once(Program& program, const BackendFacts& backend) {
  bool missing = false;
  for (const Op& op : program.ops) missing |= !backend.has_kernel(*op.def);
  if (!missing) return false;
  Builder builder(program.name);
  Copier copier(program, builder);
  copier.copy_inputs();
  for (const Op& op : program.ops) lower_op(copier, op, backend, program);
  copier.copy_outputs();
  program = builder.take();
  return true;
}

}  // namespace

Plan lower(Plan plan, const BackendFacts& backend) {
  if (!backend.has_kernel) return plan;
  for (Piece& piece : plan.pieces) {
    while (lower_once(piece.program, backend)) {
    }
    remove_dead_ops(piece.program);
  }
  return plan;
}

}  // namespace mw
