#include "config/json_fields.h"

#include <limits>

#include "base/error.h"
#include "base/printable.h"

namespace mw {

using nlohmann::json;

void refuse_json(const JsonPlace& place, const std::string& expected, const json& found) {
  const std::string text = found.dump(-1, ' ', false, json::error_handler_t::replace);
  throw UserError(place.text() + ": expected " + expected + ", found " + printable(text, 100));
}

void refuse_key(const JsonPlace& object, const std::string& key, const std::vector<std::string>& known) {
  throw UserError(object.text() + ": unknown key " + in_quotes(key) + did_you_mean(key, known));
}

int64_t json_integer(const json& value, const JsonPlace& place, int64_t least, int64_t most) {
  const std::string expected = concat_text("an integer from ", least, " to ", most);
  if (!value.is_number_integer()) refuse_json(place, expected, value);
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (too_large || value.get<int64_t>() < least || value.get<int64_t>() > most) refuse_json(place, expected, value);
  return value.get<int64_t>();
}

double json_number(const json& value, const JsonPlace& place, double least, double most) {
  if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most))
    refuse_json(place, concat_text("a number from ", least, " to ", most), value);
  return value.get<double>();
}

bool json_flag(const json& value, const JsonPlace& place) {
  if (!value.is_boolean()) refuse_json(place, "true or false", value);
  return value.get<bool>();
}

std::string json_text(const json& value, const JsonPlace& place) {
  if (!value.is_string()) refuse_json(place, "a text", value);
  return value.get<std::string>();
}

std::string json_choice(const json& value, const JsonPlace& place, const std::vector<std::string>& choices) {
  std::string listed;
  for (const std::string& choice : choices) listed += (listed.empty() ? "'" : ", '") + choice + "'";
  if (!value.is_string()) refuse_json(place, "one of " + listed, value);
  const std::string text = value.get<std::string>();
  for (const std::string& choice : choices) {
    if (text == choice) return text;
  }
  throw UserError(place.text() + ": expected one of " + listed + ", found " + in_quotes(text) + did_you_mean(text, choices));
}

const json& json_object(const json& value, const JsonPlace& place) {
  if (!value.is_object()) refuse_json(place, "an object {...}", value);
  return value;
}

}  // namespace mw
