#include "config/rules_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"
#include "config/json_fields.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostRulesBytes = int64_t{1} << 20;
constexpr const char* kDefault = "default";
constexpr const char* kContextAttention = "context_attention";

struct NamedTable {
  const char* name;
  RuleTable Rules::* table;
};

constexpr NamedTable kTables[] = {
    {"compute", &Rules::compute}, {"parameters", &Rules::parameters}, {"gradients", &Rules::gradients}, {"optimizer", &Rules::optimizer}};

RuleTable read_rows(const nlohmann::json& value, const JsonPlace& place) {
  if (!value.is_array()) refuse_json(place, "a list of rows such as \"batch:data\"", value);
  RuleTable table;
  for (const nlohmann::json& row : value) {
    try {
      table.push_back(parse_rule(json_text(row, place)));
    } catch (const UserError& error) {
      throw UserError(place.text() + ": " + error.what());
    }
  }
  return table;
}

std::string file_of(const std::string& name, const std::string& folder) { return (fs::path(folder) / (name + ".json")).string(); }

Rules load_rules(const std::string& path) { return parse_rules(read_file(path, kMostRulesBytes), path); }

}  // namespace

std::vector<std::string> rules_names(const std::string& folder) {
  std::vector<std::string> names{kDefault};
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  if (error) throw UserError(folder + ": cannot list the rules: " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

Rules parse_rules(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json_strict(text, source);
  const JsonPlace place{source, ""};
  Rules rules;
  std::vector<std::string> known{"about", kContextAttention};
  for (const NamedTable& t : kTables) {
    known.emplace_back(t.name);
    if (!json_object(json, place).contains(t.name)) {
      throw UserError(source + ": the table '" + t.name + "' is missing; expected compute, parameters, gradients and optimizer");
    }
    rules.*t.table = read_rows(json[t.name], place.at(t.name));
  }
  if (json.contains(kContextAttention)) {
    const JsonPlace at = place.at(kContextAttention);
    try {
      rules.context_attention = parse_context_attention(json_text(json[kContextAttention], at));
    } catch (const UserError& error) {
      throw UserError(source + ": " + error.what());
    }
  }
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) refuse_key(place, key, known);
  }
  return rules;
}

Rules find_rules(const std::string& name_or_path, const std::string& folder) {
  if (name_or_path == kDefault) return default_rules();
  const std::vector<std::string> names = rules_names(folder);
  if (std::find(names.begin(), names.end(), name_or_path) != names.end()) return load_rules(file_of(name_or_path, folder));
  std::error_code error;
  if (fs::is_regular_file(name_or_path, error)) return load_rules(name_or_path);
  std::string listed;
  for (const std::string& name : names) listed += (listed.empty() ? "" : ", ") + name;
  throw UserError("there are no rules " + in_quotes(name_or_path) + did_you_mean(name_or_path, names) + "; known: " + listed +
                  ", or the path of a JSON file");
}

}  // namespace mw
