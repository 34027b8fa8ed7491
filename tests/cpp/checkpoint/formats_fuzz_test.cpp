// A slice of what meshwright_fuzz runs by the million (`make fuzz`).
#include "fuzz/targets.h"
#include "runner.h"

namespace mw {
namespace {

void expect_survives(const std::string& target) {
  const FuzzReport report = run_fuzz(target, {.cases = 20000, .seed = 7});
  EXPECT(report.num_read > 200);  // the damage is not so great that nothing is reached
  EXPECT(report.num_refused > 5000);
  EXPECT(report.slowest_seconds < 2);
}

}  // namespace

TEST(checkpoint, fuzz_slice_safetensors) { expect_survives("safetensors"); }
TEST(checkpoint, fuzz_slice_gguf) { expect_survives("gguf"); }
TEST(config, fuzz_slice_config) { expect_survives("config"); }

}  // namespace mw
