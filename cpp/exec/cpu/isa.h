// Which vector instruction set the CPU kernels use. The library is compiled for plain x86-64; each kernel exists once per Isa (files
// *_avx2.cpp, *_avx512.cpp, *_avx512bf16.cpp, *_amx.cpp) and is looked up in a table at run time.
//
//   const Isa isa = chosen_isa();                 // the best this CPU has, or what MESHWRIGHT_ISA asks for
//   for (Isa isa : available_isas()) check(isa);  // tests run every kernel at each
#pragma once
#include <span>
#include <string_view>

namespace mw {

enum class Isa { kAvx2, kAvx512, kAvx512Bf16, kAmx };  // each includes those before it
inline constexpr int kNumIsas = 4;

std::string_view isa_name(Isa isa);    // "avx2", "avx512", "avx512bf16", "amx"
Isa parse_isa(std::string_view name);  // UserError names the nearest

// What this CPU (and its operating system) can run, ascending. UserError on a CPU without AVX2 and FMA.
std::span<const Isa> available_isas();

// The one of that name: UserError where it is unknown or beyond this CPU.
Isa available_isa(std::string_view name);

// The best one, or the one that the environment variable MESHWRIGHT_ISA names: UserError where that is unknown or beyond this CPU.
// Reads the environment at each call; callers keep the answer.
Isa chosen_isa();

}  // namespace mw
