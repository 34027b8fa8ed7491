#include "exec/cpu/isa.h"

#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mw {
namespace {

constexpr std::array<std::string_view, kNumIsas> kNames = {"avx2", "avx512", "avx512bf16", "amx"};
constexpr std::array<Isa, kNumIsas> kAll = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

// Linux gives a process the matrix unit's registers when it asks for them; threads and children have them too.
bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// How many of kAll run here. The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
int count_available() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (!avx512) return 1;
  if (!__builtin_cpu_supports("avx512bf16")) return 2;
  return may_use_tiles() ? 4 : 3;
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
  throw UserError(concat_text("expected an instruction set (avx2, avx512, avx512bf16 or amx), found '", name, "'",
                              did_you_mean(std::string(name), candidates)));
}

std::span<const Isa> available_isas() {
  static const int count = count_available();
  if (count == 0) throw UserError("the CPU kernels need a processor with AVX2 and FMA; this one has not: use kernels=reference");
  return {kAll.data(), static_cast<size_t>(count)};
}

Isa available_isa(std::string_view name) {
  const Isa isa = parse_isa(name), best = available_isas().back();
  if (isa > best) throw UserError(concat_text("asked for ", name, ", but this CPU has at most ", isa_name(best)));
  return isa;
}

Isa chosen_isa() {
  const char* wanted = std::getenv("MESHWRIGHT_ISA");
  if (wanted == nullptr || *wanted == '\0') return available_isas().back();
  try {
    return available_isa(wanted);
  } catch (const UserError& e) {
    throw UserError(concat_text("environment variable MESHWRIGHT_ISA: ", e.what()));
  }
}

}  // namespace mw
