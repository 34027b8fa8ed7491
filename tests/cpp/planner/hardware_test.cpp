#include "planner/hardware.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "runner.h"

namespace mw {
namespace {

const std::string kGood = R"({"name": "x", "note": "", "peak_flops": {"float32": 1e12, "bfloat16": 2e12}, "memory_bytes": 8e9,
  "memory_bandwidth": 1e11, "network": [{"name": "a", "chips": 4, "bandwidth": 1e10, "latency": 1e-6}, {"name": "b", "chips": 0,
  "bandwidth": 1e9, "latency": 0}], "flops_efficiency": 0.5, "bandwidth_efficiency": 0.5})";

std::string with(const std::string& old, const std::string& other) {
  std::string text = kGood;
  return text.replace(text.find(old), old.size(), other);
}

TEST(planner, reads_a_chip_and_its_network) {
  const Hardware x = parse_hardware(kGood, "x.json");
  EXPECT_EQ(x.peak("bfloat16"), 2e12);
  EXPECT_EQ(x.network.size(), size_t{2});
  EXPECT_EQ(x.network[1].bandwidth, 1e9);
  EXPECT_EQ(x.kernels, std::string("accelerator"));
  EXPECT_ERROR(UserError, { x.peak("float8"); }, "hardware x has no peak for float8", "it has bfloat16, float32");
}

TEST(planner, hardware_that_says_too_little_or_too_much) {
  const auto parse = [](const std::string& text) { return parse_hardware(text, "x.json"); };
  EXPECT_ERROR(UserError, { parse(with("\"bfloat16\": 2e12", "\"int8\": 2e12")); }, "x.json: peak_flops: expected a peak for bfloat16");
  EXPECT_ERROR(
      UserError, { parse(with("memory_bandwidth", "memory_bandwith")); }, "unknown key 'memory_bandwith'",
      "did you mean 'memory_bandwidth'");
  EXPECT_ERROR(UserError, { parse(with("\"flops_efficiency\": 0.5", "\"flops_efficiency\": 1.5")); }, "expected a number from 0.01 to 1");
  EXPECT_ERROR(UserError, { parse(with(", \"bandwidth_efficiency\": 0.5", "")); }, "x.json: the key 'bandwidth_efficiency' is missing");
  EXPECT_ERROR(UserError, { parse(with("\"chips\": 0", "\"chips\": 6")); }, "chips: 0 (all of them) in the last level and only there");
  EXPECT_ERROR(UserError, { parse(with("\"bandwidth\": 1e9", "\"bandwidth\": 0")); }, "x.json: network.1.bandwidth: expected a number");
}

TEST(planner, every_file_of_configs_hardware_is_whole) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs/hardware")) {
    if (entry.path().stem() == "cpu") continue;  // this machine's figures are measured
    const Hardware hardware = parse_hardware(read_file(entry.path().string(), kMostHardwareBytes), entry.path().string());
    EXPECT_EQ(hardware.name, entry.path().stem().string());
    EXPECT(hardware.peak("bfloat16") > hardware.peak("float32"));
    EXPECT(hardware.network.front().bandwidth > hardware.network.back().bandwidth);
    ++files;
  }
  EXPECT_EQ(files, 10);
}

}  // namespace
}  // namespace mw
