#include "exec/cpu/kernels/reordered.h"

#include <utility>

namespace mw::cpu {

CopyCall copy_between(const std::vector<Dim>& dims, const Type& from, const Type& to) {
  const NamedLoops loops = joined(named_loops(dims, {&from, &to}));
  return {.source = nullptr,
          .source_dtype = from.dtype,
          .destination = nullptr,
          .destination_dtype = to.dtype,
          .sizes = padded_to<kMaxCopyDims>(loops.sizes, "a copy"),
          .source_strides = padded_to<kMaxCopyDims>(loops.strides[0], "a copy"),
          .destination_strides = padded_to<kMaxCopyDims>(loops.strides[1], "a copy"),
          .rank = static_cast<int>(loops.rank())};
}

void run_copy(const KernelRun& r, Isa isa, CopyCall call, const void* from, void* to) {
  call.source = from;
  call.destination = to;
  strided_copy(r.pool, isa, call);
}

Reordered::Reordered(const Type& found, std::vector<Dim> wanted, WorkspaceParts& parts)
    : type{found.dtype, std::move(wanted)},
      moves(type.dims != found.dims),
      place_(parts.take(moves ? type.bytes() : 0)),
      in_(copy_between(type.dims, found, type)),
      out_(in_) {
  std::swap(out_.source_strides, out_.destination_strides);
}

const std::byte* Reordered::read(const KernelRun& r, Isa isa, const std::byte* operand) const {
  if (!moves) return operand;
  run_copy(r, isa, in_, operand, r.workspace + place_);
  return r.workspace + place_;
}

void Reordered::write(const KernelRun& r, Isa isa, std::byte* result) const {
  if (moves) run_copy(r, isa, out_, r.workspace + place_, result);
}

std::vector<Dim> innermost(const Type& x, const std::string& dim) {
  std::vector<Dim> dims = without(x, {dim});
  dims.push_back({dim, x.size_of(dim)});
  return dims;
}

}  // namespace mw::cpu
