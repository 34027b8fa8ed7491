// A chip and the network between chips, as planning sees them: a file of configs/hardware.
//
//   const Hardware h100 = parse_hardware(read_file(path, kMostHardwareBytes), path);
//   h100.peak_flops.at("bfloat16")
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mw {

inline constexpr int64_t kMostHardwareBytes = int64_t{1} << 20;

// Links that join groups of `chips` neighbouring ranks; the outermost level joins everything.
struct NetworkLevel {
  std::string name;      // "nvlink", "ici", "infiniband"
  int64_t chips = 0;     // 0: all of them
  double bandwidth = 0;  // bytes per second that one chip sends, one direction
  double latency = 0;    // seconds per message
  bool operator==(const NetworkLevel&) const = default;
};

struct Hardware {
  std::string name;
  std::string note;
  std::string kernels = "accelerator";       // "cpu": ours, whose workspaces are known; else every op has a kernel without workspace
  std::map<std::string, double> peak_flops;  // dense, per second: "float32", "bfloat16", "float8", ...
  double memory_bytes = 0;
  double memory_bandwidth = 0;        // bytes per second
  std::vector<NetworkLevel> network;  // innermost first
  // The two constants that are measured: what matrix products reach of the peak, and what memory and links reach of their bandwidth.
  double flops_efficiency = 1;
  double bandwidth_efficiency = 1;
  bool operator==(const Hardware&) const = default;

  // UserError naming the dtypes there are.
  double peak(std::string_view dtype) const;
};

// UserError naming the key, what was expected and what was found.
Hardware parse_hardware(std::string_view text, const std::string& source);

}  // namespace mw
