// Arrays of named dims in the memory order that a raw kernel wants: the array itself where it has it, else a copy in the workspace.
//
//   const Reordered x(s.operand(0), {rows.., dim}, parts);           // when the kernel is made
//   raw(x.read(r, isa, r.operands[0]), y.target(r, r.results[0]));   // when it runs
//   y.write(r, isa, r.results[0]);
#pragma once
#include "exec/cpu/kernels/copy.h"
#include "exec/cpu/kernels/named_loops.h"

namespace mw::cpu {

// Copies the elements of `dims` by name; a dim that `from` lacks repeats it.
CopyCall copy_between(const std::vector<Dim>& dims, const Type& from, const Type& to);
void run_copy(const KernelRun& r, Isa isa, CopyCall call, const void* from, void* to);

struct Reordered {
  Type type;   // in the wanted order
  bool moves;  // it is not the order that was found

  Reordered(const Type& found, std::vector<Dim> wanted, WorkspaceParts& parts);
  const std::byte* read(const KernelRun& r, Isa isa, const std::byte* operand) const;
  std::byte* target(const KernelRun& r, std::byte* result) const { return moves ? r.workspace + place_ : result; }
  void write(const KernelRun& r, Isa isa, std::byte* result) const;  // after the raw kernel has filled target()

 private:
  int64_t place_;
  CopyCall in_, out_;
};

// The dims of x with `dim` innermost.
std::vector<Dim> innermost(const Type& x, const std::string& dim);

}  // namespace mw::cpu
