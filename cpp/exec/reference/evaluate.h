// Evaluates Programs op by op with the ops' own references: the oracle of every test, and immediate mode.
//
//   std::map<std::string, HostArray> results = evaluate_reference(program, {{"x", x}, {"w", w}});
//
// References compute in double; each result is then rounded to its dtype, as a kernel would store it.
#pragma once
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "ir/program.h"

namespace mw {

struct ReferenceOptions {
  bool round_results = true;  // false: keep doubles, for finite differences
  bool check_finite = false;  // UserError naming the first op that makes a NaN or an infinity
};

// Rounds every element to what the array's dtype can hold (integers towards zero; f64 stays).
void round_to_dtype(HostArray& array);

// One step at a time, values kept by id until released.
class ReferenceEvaluator {
 public:
  explicit ReferenceEvaluator(ReferenceOptions options = {}) : options_(options) {}

  // UserError when the array is not of the input's type.
  void set_input(const Program& program, const ProgramInput& input, HostArray array);
  void evaluate_op(const Program& program, size_t op_index);
  const HostArray& value(ValueId id) const;
  bool holds(ValueId id) const { return values_.contains(id); }
  void release(ValueId id) { values_.erase(id); }

 private:
  void check(const Program& program, const Op& op) const;

  ReferenceOptions options_;
  std::unordered_map<ValueId, HostArray> values_;
};

// Runs the whole Program, freeing each value after its last use. Gives the outputs by name, and the values of `capture` as
// "%12". UserError when an input is missing or of the wrong type; extra inputs are an error too.
std::map<std::string, HostArray> evaluate_reference(const Program& program, std::map<std::string, HostArray> inputs,
                                                    ReferenceOptions options = {}, const std::vector<ValueId>& capture = {});

}  // namespace mw
