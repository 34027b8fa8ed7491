#include "config/model_lookup.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "config/model_config_json.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

std::vector<std::string> model_names(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  if (error) throw UserError(folder + ": cannot list the model configurations: " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

ModelConfig load_model_config(const std::string& path) {
  std::error_code error;
  const std::string file = fs::is_directory(path, error) ? (fs::path(path) / "config.json").lexically_normal().string() : path;
  return parse_model_config(read_file(file, kMostConfigBytes), file);
}

ModelConfig find_model_config(const std::string& name_or_path, const std::string& folder) {
  const std::vector<std::string> names = model_names(folder);
  const auto file_of = [&](const std::string& name) { return (fs::path(folder) / (name + ".json")).string(); };
  if (std::find(names.begin(), names.end(), name_or_path) != names.end()) return load_model_config(file_of(name_or_path));
  std::error_code error;
  if (fs::exists(name_or_path, error)) return load_model_config(name_or_path);
  std::vector<std::string> known = names;
  for (const std::string& name : names) {
    ModelConfig config = load_model_config(file_of(name));
    if (config.hf_repo.empty()) continue;
    if (lower(config.hf_repo) == lower(name_or_path)) return config;
    known.push_back(config.hf_repo);
  }
  throw UserError("there is no model " + in_quotes(name_or_path) + did_you_mean(name_or_path, known) +
                  "; expected a name that `meshwright models` lists, the Hugging Face repository id of one of them, a JSON file, or a "
                  "folder with a config.json");
}

}  // namespace mw
