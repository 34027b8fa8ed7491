// gated_activation and its gradient.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/gated_activation.h"
#include "exec/cpu/kernels/named_loops.h"

namespace mw::cpu {
namespace {

Activation activation_of(const Attributes& attributes) {
  const std::string& kind = attributes.text("kind");
  if (kind == "silu") return Activation::kSilu;
  if (kind == "gelu_tanh") return Activation::kGeluTanh;
  if (kind == "gelu_erf") return Activation::kGeluErf;
  MW_CHECK(kind == "relu", "no kernel for the activation '", kind, "'");
  return Activation::kRelu;
}

bool is_clamped(const Attributes& attributes) { return attributes.text("kind") == "clamped_swiglu"; }
SwigluClamp clamp_of(const Attributes& attributes) {
  return {static_cast<float>(attributes.number_or("limit", 7.0)), static_cast<float>(attributes.number_or("alpha", 1.702))};
}

Kernel make_forward(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("gated_activation", x.dtype);
  if (is_clamped(*s.attributes)) {
    return {
        .run = [clamp = clamp_of(*s.attributes), dtype = x.dtype, count = x.elements(), isa = environment.isa](
                   const KernelRun& r) { clamped_swiglu(r.pool, isa, clamp, dtype, r.operands[0], r.operands[1], r.results[0], count); },
        .choice = "clamped swiglu"};
  }
  return {
      .run =
          [activation = activation_of(*s.attributes), dtype = x.dtype, count = x.elements(), isa = environment.isa](const KernelRun& r) {
            gated_activation(r.pool, isa, activation, dtype, r.operands[0], r.operands[1], r.results[0], count);
          },
      .choice = "gated activation"};
}

Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("gated_activation_gradient", x.dtype);
  if (is_clamped(*s.attributes)) {
    return {.run =
                [clamp = clamp_of(*s.attributes), dtype = x.dtype, count = x.elements(), isa = environment.isa](const KernelRun& r) {
                  clamped_swiglu_backward(r.pool, isa, clamp, dtype, r.operands[0], r.operands[1], r.operands[2], r.results[0],
                                          r.results[1], count);
                },
            .choice = "clamped swiglu gradient"};
  }
  return {
      .run =
          [activation = activation_of(*s.attributes), dtype = x.dtype, count = x.elements(), isa = environment.isa](const KernelRun& r) {
            gated_activation_backward(r.pool, isa, activation, dtype, r.operands[0], r.operands[1], r.operands[2], r.results[0],
                                      r.results[1], count);
          },
      .choice = "gated activation gradient"};
}

}  // namespace

void gated_activation_kernels(KernelTable& table) {
  table.emplace("gated_activation", make_forward);
  table.emplace("gated_activation_gradient", make_gradient);
}

}  // namespace mw::cpu
