// Runs one Program with the CPU kernels on one rank: programs traced in Python.
//
//   ProgramRunner runner(program, {});
//   runner.run({{"x", {type, data}}});
//   const std::byte* y = runner.result("y");
#pragma once
#include <map>
#include <memory>
#include <string>

#include "exec/engine.h"

namespace mw {

struct ProgramRunnerOptions {
  bool check_finite = false;  // runs unfused; the first op that makes a NaN or an infinity is a UserError
  int threads = 0;
};

class ProgramRunner {
 public:
  ProgramRunner(const Program& program, ProgramRunnerOptions options);
  ~ProgramRunner();

  // Arrays of the Program's inputs, row-major, in their types.
  void run(const std::map<std::string, WholeArray>& inputs);

  const std::vector<Buffer>& results() const { return loaded_->results; }
  const std::byte* result(const std::string& name) const { return engine_.result(*loaded_, name); }

 private:
  Engine engine_;
  std::unique_ptr<LoadedPlan> loaded_;
  bool check_finite_;
};

}  // namespace mw
