#include "passes/model_parts.h"

#include <algorithm>

#include "base/error.h"
#include "ir/layer_scope.h"

namespace mw {

ModelParts::ModelParts(const Program& program, int64_t parts, std::vector<int64_t> layers) : program_(program), parts_(parts) {
  int64_t count = 0;
  for (const std::string& scope : program.scopes) {
    if (const auto layer = parse_layer_scope(scope)) count = std::max(count, layer->layer + 1);
  }
  if (layers.empty() && parts > count) {
    throw UserError(
        concat_text("a model of ", count, " layers cannot be cut into ", parts, " parts (stages times chunks); expected at most ", count));
  }
  for (int64_t part = 0; layers.empty() && part < parts; ++part) ends_.push_back((part + 1) * count / parts);
  for (const int64_t n : layers) ends_.push_back((ends_.empty() ? 0 : ends_.back()) + n);
  MW_CHECK(std::ssize(ends_) == parts && ends_.back() <= count, ends_.back(), " layers in ", ends_.size(), " parts; the model has ", count,
           ", for ", parts);
  ends_.back() = count;
  for (const ProgramInput& input : program.inputs) {
    if (input.kind == InputKind::kParameter) parameters_.emplace(input.value, input.name);
    if (input.kind == InputKind::kParameter || input.kind == InputKind::kState) kept_.insert(input.value);
  }
  const auto differentiate = std::find(program.passes.begin(), program.passes.end(), "differentiate") - program.passes.begin();
  const size_t n = program.ops.size();
  free_.assign(n, true), backward_.assign(n, false), part_.assign(n, 0);
  for (size_t i = 0; i < n; ++i) classify(i, static_cast<int32_t>(differentiate));
}

void ModelParts::classify(size_t i, int32_t differentiate) {
  const Op& op = program_.ops[i];
  int64_t latest = -1, earliest = parts_;  // of what it reads of the forward, and of the backward
  for (const ValueId id : op.operands) {
    const int32_t from = producer(id);
    if (from < 0) {
      free_[i] = free_[i] && !kept_.contains(id);
      continue;
    }
    if (is_free(from)) continue;
    free_[i] = false;
    backward_[i] = backward_[i] || is_backward(from);
    if (is_backward(from)) {
      earliest = std::min(earliest, part(from));
    } else {
      latest = std::max(latest, part(from));
    }
  }
  if (free_[i]) return;
  backward_[i] = backward_[i] || op.pass == differentiate;
  const int64_t home = part_of_scope(program_.scopes[static_cast<size_t>(op.scope)]);
  part_[i] = backward_[i] ? std::min(home, earliest) : std::max(home, latest);
  MW_CHECK(!backward_[i] || latest <= part_[i], program_.describe(op), " of part ", part_[i], " reads what part ", latest, " makes");
}

int64_t ModelParts::part_of_scope(std::string_view scope) const {
  if (const auto layer = parse_layer_scope(scope)) return std::upper_bound(ends_.begin(), ends_.end(), layer->layer) - ends_.begin();
  return scope.starts_with("embedding") || scope.starts_with("position_embedding") ? 0 : parts_ - 1;
}

}  // namespace mw
