#include "exec/cpu/isa.h"

#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"

namespace mw {
namespace {

constexpr std::array<std::string_view, kNumIsas> kNames = {"avx2", "avx512", "avx512bf16"};
constexpr std::array<Isa, kNumIsas> kAll = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// How many of kAll run here. The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
int count_available() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (!avx512) return 1;
  return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
#else
  return 0;
#endif
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

Isa parse_isa(std::string_view name) {
  for (Isa isa : kAll) {
    if (isa_name(isa) == name) return isa;
  }
  const std::vector<std::string> candidates(kNames.begin(), kNames.end());
  throw UserError(concat_text("expected an instruction set (avx2, avx512 or avx512bf16), found '", name, "'",
                              did_you_mean(std::string(name), candidates)));
}

std::span<const Isa> available_isas() {
  static const int count = count_available();
  if (count == 0) throw UserError("the CPU kernels need a processor with AVX2 and FMA; this one has not: use kernels=reference");
  return {kAll.data(), static_cast<size_t>(count)};
}

Isa chosen_isa() {
  const Isa best = available_isas().back();
  const char* wanted = std::getenv("MESHWRIGHT_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  Isa isa;
  try {
    isa = parse_isa(wanted);
  } catch (const UserError& e) {
    throw UserError(concat_text("environment variable MESHWRIGHT_ISA: ", e.what()));
  }
  if (isa > best) {
    throw UserError(concat_text("environment variable MESHWRIGHT_ISA asks for ", wanted, ", but this CPU has at most ", isa_name(best)));
  }
  return isa;
}

}  // namespace mw
