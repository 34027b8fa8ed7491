#include "planner/hardware.h"

#include "base/error.h"
#include "base/json.h"
#include "config/json_fields.h"

namespace mw {
namespace {

constexpr double kMost = 1e21;

Field<NetworkLevel> level_name() { return member_field("name", &NetworkLevel::name, json_text); }

const FieldTable<NetworkLevel>& level_fields() {
  static const FieldTable<NetworkLevel> table{
      level_name(),
      integer_field("chips", &NetworkLevel::chips, 0, int64_t{1} << 32),
      number_field("bandwidth", &NetworkLevel::bandwidth, 1, kMost),
      number_field("latency", &NetworkLevel::latency, 0, 10),
  };
  return table;
}

std::map<std::string, double> read_peaks(const nlohmann::json& value, const JsonPlace& place) {
  std::map<std::string, double> peaks;
  for (const auto& [dtype, peak] : json_object(value, place).items()) peaks[dtype] = json_number(peak, place.at(dtype), 1, kMost);
  for (const char* needed : {"float32", "bfloat16"}) {
    if (!peaks.contains(needed)) refuse_json(place, concat_text("a peak for ", needed, " (FLOP per second)"), value);
  }
  return peaks;
}

std::vector<NetworkLevel> read_network(const nlohmann::json& value, const JsonPlace& place) {
  if (!value.is_array() || value.empty()) refuse_json(place, "a list of levels, innermost first", value);
  std::vector<NetworkLevel> levels;
  for (const nlohmann::json& entry : value) {
    const JsonPlace here = place.at(std::to_string(levels.size()));
    NetworkLevel level;
    read_object(level, entry, level_fields(), here);
    if (level.bandwidth == 0) refuse_json(here, "a bandwidth (bytes per second of one chip)", entry);
    const bool last = levels.size() + 1 == value.size();
    if (last != (level.chips == 0)) refuse_json(here, "chips: 0 (all of them) in the last level and only there", entry);
    if (!last && !levels.empty() && (level.chips <= levels.back().chips || level.chips % levels.back().chips != 0))
      refuse_json(here, concat_text("chips: a multiple of the ", levels.back().chips, " of the level inside it"), entry);
    levels.push_back(level);
  }
  return levels;
}

const FieldTable<Hardware>& fields() {
  static const FieldTable<Hardware> table{
      member_field("name", &Hardware::name, json_text),
      member_field("note", &Hardware::note, json_text),
      choice_field("kernels", &Hardware::kernels, {"accelerator", "cpu"}),
      member_field("peak_flops", &Hardware::peak_flops, read_peaks),
      number_field("memory_bytes", &Hardware::memory_bytes, 1, kMost),
      number_field("memory_bandwidth", &Hardware::memory_bandwidth, 1, kMost),
      {.name = "network",
       .read = [](Hardware& h, const nlohmann::json& value, const JsonPlace& place) { h.network = read_network(value, place); },
       .write = nullptr},
      number_field("flops_efficiency", &Hardware::flops_efficiency, 0.01, 1),
      number_field("bandwidth_efficiency", &Hardware::bandwidth_efficiency, 0.01, 1),
  };
  return table;
}

}  // namespace

double Hardware::peak(std::string_view dtype) const {
  if (const auto at = peak_flops.find(std::string(dtype)); at != peak_flops.end()) return at->second;
  std::vector<std::string> known;
  std::string listed;
  for (const auto& [name_of, rate] : peak_flops) {
    known.push_back(name_of);
    listed += (listed.empty() ? "" : ", ") + name_of;
  }
  throw UserError(concat_text("hardware ", name, " has no peak for ", dtype, did_you_mean(std::string(dtype), known), "; it has ", listed));
}

Hardware parse_hardware(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json_strict(text, source);
  Hardware hardware;
  const JsonPlace place{source, ""};
  read_object(hardware, json, fields(), place);
  for (const char* key :
       {"name", "peak_flops", "memory_bytes", "memory_bandwidth", "network", "flops_efficiency", "bandwidth_efficiency"}) {
    if (!json.contains(key)) throw UserError(concat_text(source, ": the key '", key, "' is missing"));
  }
  return hardware;
}

}  // namespace mw
