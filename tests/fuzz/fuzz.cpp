// The fuzzer as a program, for runs of a million cases and more:
//
//   meshwright_fuzz safetensors|gguf|config CASES [SEED]      // from the repository's root: it reads configs/models
//   meshwright_fuzz show TARGET NUMBER [SEED]                 // the bytes of one case, to look at
//
// Beside what targets.h says, each case may hold no more memory at once than a fixed share of its own size, and take no longer than a
// fixed time. Cases are made from the seed and their number alone.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "fuzz/targets.h"

namespace {

// Bytes held by operator new and their peak, of this thread.
thread_local int64_t num_held = 0, most_held = 0;

void* counted_new_or_null(std::size_t size) noexcept {
  void* memory = std::malloc(size ? size : 1);
  if (!memory) return nullptr;
  num_held += static_cast<int64_t>(malloc_usable_size(memory));
  most_held = std::max(most_held, num_held);
  return memory;
}

void* counted_new(std::size_t size) {
  void* memory = counted_new_or_null(size);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void counted_delete(void* memory) noexcept {
  if (memory) num_held -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

constexpr int64_t kFreeBytes = 1 << 20, kBytesPerByte = 64;
constexpr double kMostSeconds = 2;  // under sanitizers, on a machine that does other things

}  // namespace

void* operator new(std::size_t size) { return counted_new(size); }
void* operator new[](std::size_t size) { return counted_new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted_new_or_null(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted_new_or_null(size); }
void operator delete(void* memory) noexcept { counted_delete(memory); }
void operator delete[](void* memory) noexcept { counted_delete(memory); }
void operator delete(void* memory, std::size_t) noexcept { counted_delete(memory); }
void operator delete[](void* memory, std::size_t) noexcept { counted_delete(memory); }

int main(int argc, char** argv) try {
  const std::string usage =
      "usage: meshwright_fuzz safetensors|gguf|config CASES [SEED]\n       meshwright_fuzz show TARGET NUMBER [SEED]\n";
  const bool show = argc > 1 && std::string(argv[1]) == "show";
  if (argc < (show ? 4 : 3)) {
    std::fputs(usage.c_str(), stderr);
    return 2;
  }
  const std::string target = argv[show ? 2 : 1];
  const int64_t number = std::atoll(argv[show ? 3 : 2]);
  const uint64_t seed = argc > (show ? 4 : 3) ? std::strtoull(argv[show ? 4 : 3], nullptr, 10) : 1;
  if (show) {
    const std::string bytes = mw::fuzz_case(target, seed, number);
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    return 0;
  }
  int64_t before = 0, worst = 0, worst_case = 0;
  mw::FuzzOptions options{.cases = number, .seed = seed};
  options.before = [&] { before = most_held = num_held; };
  options.after = [&](int64_t at, const std::string& bytes) {
    const int64_t used = most_held - before, allowed = kFreeBytes + kBytesPerByte * static_cast<int64_t>(bytes.size());
    if (used > worst) {
      worst = used;
      worst_case = at;
    }
    if (used > allowed) {
      throw std::runtime_error(target + " seed " + std::to_string(seed) + " case " + std::to_string(at) + ": holds " +
                               std::to_string(used) + " bytes for an input of " + std::to_string(bytes.size()));
    }
  };
  const auto start = std::chrono::steady_clock::now();
  const mw::FuzzReport report = mw::run_fuzz(target, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s: %lld cases in %.1f s, %.0f cases/s (%.1f s in reading): %lld read, %lld refused\n", target.c_str(),
              static_cast<long long>(number), seconds, static_cast<double>(number) / seconds, report.seconds,
              static_cast<long long>(report.num_read), static_cast<long long>(report.num_refused));
  std::printf("slowest: case %lld, %.4f s; most memory: case %lld, %lld bytes\n", static_cast<long long>(report.slowest_case),
              report.slowest_seconds, static_cast<long long>(worst_case), static_cast<long long>(worst));
  if (report.slowest_seconds > kMostSeconds) throw std::runtime_error("the slowest case takes too long");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
