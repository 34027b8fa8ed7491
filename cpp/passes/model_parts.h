// Which part of a model each op of its Program belongs to, and in which direction of the step it works: parts are runs of layers.
//
//   const ModelParts parts(program, 4);
//   parts.part(op)   0 to 3: the embedding with the first, all that follows the layers with the last
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/program.h"

namespace mw {

class ModelParts {
 public:
  // `layers`: of each part, the last one having those that are left too (modules of multi-token prediction); none: as even as they go.
  // UserError where there are fewer layers than parts.
  ModelParts(const Program& program, int64_t parts, std::vector<int64_t> layers = {});

  int64_t count() const { return parts_; }
  int32_t producer(ValueId id) const { return program_.values[static_cast<size_t>(id)].producer; }
  // Known from the batch alone: made wherever it is read.
  bool is_free(int32_t op) const { return free_[static_cast<size_t>(op)]; }
  bool is_backward(int32_t op) const { return backward_[static_cast<size_t>(op)]; }
  int64_t part(int32_t op) const { return part_[static_cast<size_t>(op)]; }
  const std::unordered_map<ValueId, std::string>& parameters() const { return parameters_; }  // names of inputs

 private:
  void classify(size_t i, int32_t differentiate);
  int64_t part_of_scope(std::string_view scope) const;

  const Program& program_;
  int64_t parts_;
  std::vector<int64_t> ends_;  // of each part: the first layer behind it
  std::unordered_map<ValueId, std::string> parameters_;
  std::unordered_set<ValueId> kept_;  // these, and states
  std::vector<bool> free_, backward_;
  std::vector<int64_t> part_;
};

}  // namespace mw
