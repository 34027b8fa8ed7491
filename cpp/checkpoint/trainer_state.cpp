#include "checkpoint/trainer_state.h"

#include <limits>

#include "base/error.h"
#include "base/json.h"
#include "base/printable.h"
#include "checkpoint/digest_json.h"

namespace mw {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "meshwright-trainer";

class Reader {
 public:
  Reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) throw UserError(where_ + ": expected an object, found " + object_.type_name());
  }

  const json& at(const std::string& key) {
    known_.push_back(key);
    const auto found = object_.find(key);
    if (found == object_.end()) throw UserError(where_ + ": lacks the key '" + key + "'");
    return *found;
  }

  int64_t whole_number(const std::string& key, int64_t least) {
    const json& value = at(key);
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        value.get<int64_t>() < least) {
      throw UserError(
          concat_text(where_, ": '", key, "' should be a whole number of at least ", least, ", found ", printable(value.dump(), 60)));
    }
    return value.get<int64_t>();
  }

  std::string object_text(const std::string& key) {
    const json& value = at(key);
    if (!value.is_object()) throw UserError(where_ + ": '" + key + "' should be an object, found " + value.type_name());
    return value.dump();
  }

  void refuse_unknown_keys() const {
    for (const auto& [key, value] : object_.items()) {
      bool is_known = false;
      for (const std::string& known : known_) is_known |= key == known;
      if (!is_known) throw UserError(where_ + ": unknown key " + in_quotes(key) + (key.size() < 100 ? did_you_mean(key, known_) : ""));
    }
  }

 private:
  const json& object_;
  std::string where_;
  std::vector<std::string> known_;
};

std::vector<std::pair<std::string, int64_t>> mesh_from_json(const json& value, const std::string& where) {
  const auto is_axis = [](const json& axis) {
    return axis.is_array() && axis.size() == 2 && axis[0].is_string() && axis[1].is_number_unsigned() &&
           axis[1].get<uint64_t>() - 1 < (uint64_t{1} << 40);
  };
  std::vector<std::pair<std::string, int64_t>> mesh;
  if (!value.is_array()) throw UserError(where + ": 'mesh' should be a list of [axis, size], found " + value.type_name());
  for (const json& axis : value) {
    if (!is_axis(axis))
      throw UserError(where + ": 'mesh' should be a list of [axis, size of at least 1], found " + printable(axis.dump(), 60));
    mesh.emplace_back(axis[0].get<std::string>(), axis[1].get<int64_t>());
  }
  return mesh;
}

}  // namespace

std::string trainer_state_text(const TrainerState& state) {
  nlohmann::ordered_json value;
  value["format"] = kFormat;
  value["version"] = 1;
  value["step"] = state.step;
  value["seed"] = state.seed;
  value["microbatches"] = state.microbatches;
  value["mesh"] = json::array();
  for (const auto& [axis, size] : state.mesh) value["mesh"].push_back({axis, size});
  value["data"] = parse_json_strict(state.data, "position of the data", kMaxJsonDepth - 1);
  value["run"] = parse_json_strict(state.run, "configuration of the run", kMaxJsonDepth - 1);
  value["weights"] = digests_to_json(state.weights);
  MW_CHECK(value["data"].is_object() && value["run"].is_object(), "data and run are objects");
  return value.dump(2) + "\n";
}

TrainerState parse_trainer_state(std::string_view text, std::string_view what) {
  const std::string where = printable(what, 1000);
  const json value = parse_json_strict(text, what);
  Reader reader(value, where);
  if (reader.at("format") != kFormat) throw UserError(where + ": 'format' should be '" + kFormat + "'");
  if (reader.at("version") != 1) throw UserError(where + ": 'version' should be 1; a newer Meshwright may read it");
  TrainerState state;
  state.step = reader.whole_number("step", 0);
  if (!reader.at("seed").is_number_unsigned()) throw UserError(where + ": 'seed' should be a whole number of at least 0");
  state.seed = reader.at("seed").get<uint64_t>();
  state.microbatches = reader.whole_number("microbatches", 1);
  state.mesh = mesh_from_json(reader.at("mesh"), where);
  state.data = reader.object_text("data");
  state.run = reader.object_text("run");
  state.weights = digests_from_json(reader.at("weights"), where + ", 'weights'");
  reader.refuse_unknown_keys();
  return state;
}

void check_weights_match(const TrainerState& state, const std::string& folder) {
  for (const auto& [path, expected] : state.weights) {
    const std::string full = folder + "/" + path;
    const FileDigest found = digest_of_file(full);
    if (found != expected) {
      throw UserError(printable(full, 1000) + ": is not the weight file that the optimizer's state belongs to (checksum " +
                      hex16(found.xxh64) + ", expected " + hex16(expected.xxh64) +
                      "); pass reset_optimizer=true to go on from these weights with a fresh optimizer");
    }
  }
}

}  // namespace mw
