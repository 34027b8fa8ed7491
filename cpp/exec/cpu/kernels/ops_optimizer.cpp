// sum_of_squares, adamw, sgd. Updates write over their operands or elsewhere, as they are placed.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/named_loops.h"
#include "exec/cpu/kernels/optimizer.h"

namespace mw::cpu {
namespace {

const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
float* floats(std::byte* data) { return reinterpret_cast<float*>(data); }
uint16_t* halves(std::byte* data) { return reinterpret_cast<uint16_t*>(data); }

Kernel make_adamw(const Signature& s, const KernelEnvironment& environment) {
  const Attributes& a = *s.attributes;
  const auto number = [&](const char* name) { return static_cast<float>(a.number(name)); };
  const AdamWCall call{.weight = nullptr,
                       .gradient = nullptr,
                       .first_moment = nullptr,
                       .second_moment = nullptr,
                       .count = s.operand(0).elements(),
                       .lr = nullptr,
                       .correction1 = nullptr,
                       .correction2 = nullptr,
                       .beta1 = number("beta1"),
                       .beta2 = number("beta2"),
                       .eps = number("eps"),
                       .weight_decay = number("weight_decay")};
  return {.run =
              [call, copied = s.results.size() > 3, isa = environment.isa](const KernelRun& r) {
                AdamWCall run = call;
                run.weight = floats(r.operands[0]), run.gradient = r.operands[1];
                run.first_moment = floats(r.operands[2]), run.second_moment = floats(r.operands[3]);
                run.lr = floats(r.operands[4]), run.gradient_scale = floats(r.operands[5]);
                run.correction1 = floats(r.operands[6]), run.correction2 = floats(r.operands[7]);
                run.new_weight = floats(r.results[0]), run.new_first_moment = floats(r.results[1]),
                run.new_second_moment = floats(r.results[2]), run.copy = copied ? halves(r.results[3]) : nullptr;
                adamw(r.pool, isa, run);
              },
          .choice = "adamw"};
}

Kernel make_sgd(const Signature& s, const KernelEnvironment& environment) {
  const SgdCall call{.weight = nullptr,
                     .gradient = nullptr,
                     .count = s.operand(0).elements(),
                     .lr = nullptr,
                     .momentum = static_cast<float>(s.attributes->number("momentum")),
                     .weight_decay = static_cast<float>(s.attributes->number("weight_decay"))};
  return {.run =
              [call, copied = s.results.size() > 2, isa = environment.isa](const KernelRun& r) {
                SgdCall run = call;
                run.weight = floats(r.operands[0]), run.gradient = r.operands[1], run.buffer = floats(r.operands[2]);
                run.lr = floats(r.operands[3]), run.gradient_scale = floats(r.operands[4]);
                run.new_weight = floats(r.results[0]), run.new_buffer = floats(r.results[1]),
                run.copy = copied ? halves(r.results[2]) : nullptr;
                sgd(r.pool, isa, run);
              },
          .choice = "sgd"};
}

// Many operands: the list of arrays is kept in the kernel, its pointers filled in by each run (one at a time).
Kernel make_squares(const Signature& s, const KernelEnvironment& environment) {
  std::vector<SquaredArray> arrays;
  for (const Type* type : s.operands) {
    expect_kernel_dtype("sum_of_squares", type->dtype);
    arrays.push_back({nullptr, type->dtype, type->elements()});
  }
  const int64_t bytes = sum_of_squares_workspace_bytes(arrays);
  return {.workspace_bytes = bytes,
          .run =
              [arrays = std::move(arrays), isa = environment.isa](const KernelRun& r) mutable {
                for (size_t i = 0; i < arrays.size(); ++i) arrays[i].data = r.operands[i];
                sum_of_squares(r.pool, isa, arrays, r.workspace, floats(r.results[0]));
              },
          .choice = "sum of squares"};
}

}  // namespace

void optimizer_kernels(KernelTable& table) {
  table.emplace("adamw", make_adamw);
  table.emplace("sgd", make_sgd);
  table.emplace("sum_of_squares", make_squares);
}

}  // namespace mw::cpu
