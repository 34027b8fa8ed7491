// The few edits of a Program that several passes make.
#pragma once
#include <vector>

#include "ir/builder.h"
#include "ir/program.h"

namespace mw {

// Every operand and output that reads `from` reads `to`.
void replace_uses(Program& program, ValueId from, ValueId to);

// The ops in an order in which each stands after what it reads, otherwise as they stood.
void order_by_dependencies(Program& program);

// Drops the ops that no output needs, and the values that no op makes.
void remove_dead_ops(Program& program);

// Drops inputs that no op and no output reads.
void remove_unused_inputs(Program& program);

// Copies ops of one Program into another, op by op, with values renamed: passes that rewrite a whole Program walk it with this.
class Copier {
 public:
  Copier(const Program& from, Builder& to) : from_(from), to_(to), map_(from.values.size(), kNoValue) { to.declare_dims_of(from); }

  void map(ValueId from, Tensor to) { map_.at(static_cast<size_t>(from)) = to.id; }
  bool has(ValueId from) const { return map_.at(static_cast<size_t>(from)) != kNoValue; }
  Tensor operator[](ValueId from) const;
  std::vector<Tensor> operands(const Op& op) const;
  // Appends a copy of `op` (scope, source and pass kept) with its results mapped.
  void copy(const Op& op);
  // Declares all inputs of the other Program here; at the end, its outputs.
  void copy_inputs();
  void copy_outputs();
  // Gives the ops that follow the scope, source and pass of `op`, whose place they take.
  void follow(const Op& op);

 private:
  const Program& from_;
  Builder& to_;
  std::vector<ValueId> map_;
};

}  // namespace mw
