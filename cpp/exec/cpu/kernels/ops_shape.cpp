// Ops that move elements: reorder, broadcast_to, slice, concat, pad, to_host, from_host, and iota. All but the last are strided copies.
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

// reorder, broadcast_to, to_host, from_host: by the names of the result's dims.
Kernel make_copy(const Signature& s, const KernelEnvironment& environment) {
  const CopyCall call = copy_between(s.result(0).dims, s.operand(0), s.result(0));
  return {.run = [call, isa = environment.isa](const KernelRun& r) { run_copy(r, isa, call, r.operands[0], r.results[0]); },
          .choice = call.rank <= 1 ? "copy" : "strided copy"};
}

// Bytes from one row of `dim` to the next.
int64_t row_bytes(const Type& type, const std::string& dim) { return AlongDim(type, dim).inner * dtype_bytes(type.dtype); }

Kernel make_slice(const Signature& s, const KernelEnvironment& environment) {
  const std::string dim = s.attributes->text("dim");
  const CopyCall call = copy_between(s.result(0).dims, s.operand(0), s.result(0));
  const int64_t skipped = s.attributes->integer("start") * row_bytes(s.operand(0), dim);
  return {.run = [=, isa = environment.isa](const KernelRun& r) { run_copy(r, isa, call, r.operands[0] + skipped, r.results[0]); },
          .choice = "copy"};
}

Kernel make_concat(const Signature& s, const KernelEnvironment& environment) {
  const std::string dim = s.attributes->text("dim");
  std::vector<CopyCall> calls;
  std::vector<int64_t> starts{0};
  for (const Type* part : s.operands) {
    calls.push_back(copy_between(part->dims, *part, s.result(0)));
    starts.push_back(starts.back() + part->size_of(dim) * row_bytes(s.result(0), dim));
  }
  return {.run =
              [=, isa = environment.isa](const KernelRun& r) {
                for (size_t i = 0; i < calls.size(); ++i) run_copy(r, isa, calls[i], r.operands[i], r.results[0] + starts[i]);
              },
          .choice = "copies"};
}

// The zeros on either side are copies of one zero, repeated.
Kernel make_pad(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &y = s.result(0);
  const std::string dim = s.attributes->text("dim");
  const int64_t before = s.attributes->integer("before"), after = s.attributes->integer("after"), row = row_bytes(y, dim),
                size = x.size_of(dim);
  const CopyCall call = copy_between(x.dims, x, y);
  const auto zeros = [&](int64_t rows) {
    Type strip = y;
    strip.dims[static_cast<size_t>(y.index_of(dim))].size = rows;
    return copy_between(strip.dims, Type{y.dtype, {}}, y);
  };
  const CopyCall zeros_before = zeros(before), zeros_after = zeros(after);
  return {.run =
              [=, isa = environment.isa](const KernelRun& r) {
                alignas(8) constexpr std::byte kZero[8]{};
                run_copy(r, isa, zeros_before, kZero, r.results[0]);
                run_copy(r, isa, call, r.operands[0], r.results[0] + before * row);
                run_copy(r, isa, zeros_after, kZero, r.results[0] + (before + size) * row);
              },
          .choice = "copies"};
}

// One dim; a shard counts from its offset.
Kernel make_iota(const Signature& s, const KernelEnvironment&) {
  const int64_t size = s.result(0).elements();
  const bool has_offset = !s.operands.empty();
  return {.run =
              [=](const KernelRun& r) {
                int32_t first = 0;
                if (has_offset) std::memcpy(&first, r.operands[0], sizeof first);
                auto* y = reinterpret_cast<int32_t*>(r.results[0]);
                for (int64_t i = 0; i < size; ++i) y[i] = first + static_cast<int32_t>(i);
              },
          .choice = "count"};
}

}  // namespace

void shape_kernels(KernelTable& table) {
  table.emplace("reorder", make_copy);
  table.emplace("broadcast_to", make_copy);
  table.emplace("to_host", make_copy);
  table.emplace("from_host", make_copy);
  table.emplace("slice", make_slice);
  table.emplace("concat", make_concat);
  table.emplace("pad", make_pad);
  table.emplace("iota", make_iota);
}

}  // namespace mw::cpu
