// What is fuzzed: for each format, how valid files are damaged and what is then asked of them. Nothing is written to disk.
//
//   const FuzzReport report = run_fuzz("gguf", {.cases = 20000, .seed = 1});
//
// Each case is read or refused with a UserError. Anything else is a finding, and so is a message that is not valid UTF-8 or too long.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mw {

inline constexpr size_t kMostMessageBytes = 8000;

struct FuzzOptions {
  int64_t cases = 1;
  uint64_t seed = 1;
  std::function<void()> before = nullptr;  // each case
  std::function<void(int64_t number, const std::string& bytes)> after = nullptr;
};

struct FuzzReport {
  int64_t num_read = 0, num_refused = 0;
  double seconds = 0, slowest_seconds = 0;  // of CPU time of this thread, in reading alone
  int64_t slowest_case = 0;
};

std::vector<std::string> fuzz_targets();  // "safetensors", "gguf", "config"

// Case `number` of a target: the same bytes always.
std::string fuzz_case(const std::string& target, uint64_t seed, int64_t number);

// Throws std::runtime_error, naming the case, when anything but UserError is thrown.
FuzzReport run_fuzz(const std::string& target, const FuzzOptions& options);

}  // namespace mw
