// cross_entropy, cross_entropy_with_gradients, cross_entropy_gradient. x is [tokens.., embed] and w [vocab, embed] with embed innermost in
// both; other orders pass through the workspace.
#include <algorithm>
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/cross_entropy.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

// Rows of embed, in their order or copied to it.
struct RowsOfEmbed {
  Reordered array;

  RowsOfEmbed(const Type& found, const std::string& embed, WorkspaceParts& parts) : array(found, innermost(found, embed), parts) {}
  DType dtype() const { return array.type.dtype; }
  int64_t row() const { return array.type.dims.back().size; }
  RowsIn read(const KernelRun& r, Isa isa, const std::byte* operand) const { return {array.read(r, isa, operand), dtype(), row()}; }
  RowsOut target(const KernelRun& r, std::byte* result) const { return {array.target(r, result), dtype(), row()}; }
};

std::string embed_of(const Signature& s) {
  const Type &x = s.operand(0), &w = s.operand(1);
  return w.dims.at(x.has(w.dims.at(1).name) ? 1 : 0).name;
}

// What the three ops share: sizes, operands 0 to 2, and the vocabulary's offset behind the last.
struct Projection {
  Isa isa;
  RowsOfEmbed x, w;
  CrossEntropy call{};
  int offset_operand = -1;

  Projection(const Signature& s, const KernelEnvironment& environment, WorkspaceParts& parts)
      : isa(environment.isa), x(s.operand(0), embed_of(s), parts), w(s.operand(1), embed_of(s), parts) {
    expect_kernel_dtype("cross_entropy", x.dtype());
    call.tokens = s.operand(2).elements();
    call.vocab = w.array.type.dims[0].size;
    call.embed = x.row();
    call.x = {nullptr, x.dtype(), x.row()};
    call.w = {nullptr, w.dtype(), w.row()};
    call.targets = nullptr;
    call.softcap = static_cast<float>(s.attributes->number_or("softcap", 0));
    if (!s.attributes->names_or_empty("offsets").empty()) offset_operand = static_cast<int>(s.operands.size()) - 1;
  }
  CrossEntropy bind(const KernelRun& r) const {
    CrossEntropy bound = call;
    bound.x = x.read(r, isa, r.operands[0]);
    bound.w = w.read(r, isa, r.operands[1]);
    bound.targets = reinterpret_cast<const int32_t*>(r.operands[2]);
    if (offset_operand >= 0) {
      int32_t offset;
      std::memcpy(&offset, r.operands[offset_operand], sizeof offset);
      bound.vocab_offset = offset;
    }
    return bound;
  }
};

float* floats(std::byte* data) { return reinterpret_cast<float*>(data); }
const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }

Kernel make_forward(const Signature& s, const KernelEnvironment& environment) {
  WorkspaceParts parts;
  const Projection projection(s, environment, parts);
  const int64_t scratch = parts.take(cross_entropy_workspace_bytes(projection.call, CrossEntropyPass::kForward, environment.isa));
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=](const KernelRun& r) {
                cross_entropy_forward(projection.bind(r), {.lse = floats(r.results[0]), .target_logit = floats(r.results[1])},
                                      projection.isa, r.workspace + scratch, r.pool);
              },
          .choice = "cross entropy in chunks"};
}

// The kernel forms dw in f32; another dtype is converted at the end.
struct WeightGradient {
  RowsOfEmbed dw;
  DType dtype;
  int64_t count, wide_at;

  WeightGradient(const Type& type, const std::string& embed, WorkspaceParts& parts)
      : dw(type.with_dtype(DType::kF32), embed, parts),
        dtype(type.dtype),
        count(type.elements()),
        wide_at(parts.take(dtype == DType::kF32 ? 0 : count * 4)) {}
  float* target(const KernelRun& r, std::byte* result) const { return static_cast<float*>(dw.target(r, wide(r, result)).data); }
  void write(const KernelRun& r, Isa isa, std::byte* result) const {
    dw.array.write(r, isa, wide(r, result));
    if (dtype != DType::kF32) strided_copy(r.pool, isa, {wide(r, result), DType::kF32, result, dtype, {count}, {1}, {1}, 1});
  }

 private:
  std::byte* wide(const KernelRun& r, std::byte* result) const { return dtype == DType::kF32 ? result : r.workspace + wide_at; }
};

struct Gradients {
  RowsOfEmbed dx;
  WeightGradient dw;

  Gradients(const Signature& s, size_t first_result, WorkspaceParts& parts)
      : dx(s.result(first_result), embed_of(s), parts), dw(s.result(first_result + 1), embed_of(s), parts) {}
};

Kernel make_with_gradients(const Signature& s, const KernelEnvironment& environment) {
  WorkspaceParts parts;
  const Projection projection(s, environment, parts);
  const Gradients gradients(s, 2, parts);
  const int64_t scratch = parts.take(cross_entropy_workspace_bytes(projection.call, CrossEntropyPass::kWithGradients, environment.isa));
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=](const KernelRun& r) {
                const CrossEntropy call = projection.bind(r);
                cross_entropy_with_gradients(call,
                                             {.scale = floats(r.operands[3]),
                                              .lse = floats(r.results[0]),
                                              .target_logit = floats(r.results[1]),
                                              .dx = gradients.dx.target(r, r.results[2]),
                                              .dw = gradients.dw.target(r, r.results[3]),
                                              .dw_row = call.embed},
                                             projection.isa, r.workspace + scratch, r.pool);
                gradients.dx.array.write(r, projection.isa, r.results[2]);
                gradients.dw.write(r, projection.isa, r.results[3]);
              },
          .choice = "cross entropy with gradients, in chunks"};
}

Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  WorkspaceParts parts;
  const Projection projection(s, environment, parts);
  const Gradients gradients(s, 0, parts);
  const int64_t scratch = parts.take(cross_entropy_workspace_bytes(projection.call, CrossEntropyPass::kGradients, environment.isa));
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=](const KernelRun& r) {
                const CrossEntropy call = projection.bind(r);
                cross_entropy_gradients(call,
                                        {.scale = floats(r.operands[4]),
                                         .lse_in = floats(r.operands[3]),
                                         .dx = gradients.dx.target(r, r.results[0]),
                                         .dw = gradients.dw.target(r, r.results[1]),
                                         .dw_row = call.embed},
                                        projection.isa, r.workspace + scratch, r.pool);
                gradients.dx.array.write(r, projection.isa, r.results[0]);
                gradients.dw.write(r, projection.isa, r.results[1]);
              },
          .choice = "cross entropy gradient in chunks"};
}

}  // namespace

void cross_entropy_kernels(KernelTable& table) {
  table.emplace("cross_entropy", make_forward);
  table.emplace("cross_entropy_with_gradients", make_with_gradients);
  table.emplace("cross_entropy_gradient", make_gradient);
}

}  // namespace mw::cpu
