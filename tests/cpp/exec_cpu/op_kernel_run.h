// Runs the kernel of one op on given arrays, for tests.
//
//   OpRun run{.op = "dot", .attributes = {{"contract", names({"embed"})}}, .operands = {...}};
//   const std::vector<HostArray> y = run.results(isa, pool);
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "exec/cpu/kernel.h"
#include "ops/harness.h"

namespace mw::testing {

struct OpRun {
  std::string op;
  Attributes attributes;
  std::vector<HostArray> operands;  // already rounded to their dtypes
  // Result i is written over the memory of operand over[i]; -1 or absent: memory of its own.
  std::vector<int> over = {};

  struct Result {
    HostArray array;
    std::vector<char> bytes;
  };
  // Memory is exactly as long as it must be, and what nobody wrote is NaN, so that sanitizers and comparisons see a kernel that strays.
  std::vector<Result> run(Isa isa, ThreadPool& pool, std::string* choice = nullptr) const;
  std::vector<HostArray> reference() const;
};

// Runs at every ISA with one and two threads: results against the reference, and the same bits for both. `tolerance` is of the largest
// element; integers must be equal.
void check_kernel(const OpRun& run, double tolerance);

}  // namespace mw::testing
