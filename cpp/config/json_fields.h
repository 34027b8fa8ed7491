// Reads and writes structs as JSON objects by tables of fields: strict, and every error says where, what was expected and what was found.
//
//   const FieldTable<RopeConfig> table{number_field("theta", &RopeConfig::theta, 1.0, 1e12), ...};
//   read_object(rope, json, table, {"qwen3-0.6b.json", "rope"});     // qwen3-0.6b.json: rope.theta: expected a number ..., found "x"
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace mw {

// Where a value stands: "config.json: rope.theta".
struct JsonPlace {
  std::string source;
  std::string path;
  bool whole = false;  // parts of the value are called by the same path

  JsonPlace at(const std::string& key) const { return whole ? *this : JsonPlace{source, path.empty() ? key : path + "." + key}; }
  std::string text() const { return path.empty() ? source : source + ": " + path; }
};

// UserError "PLACE: expected EXPECTED, found VALUE".
[[noreturn]] void refuse_json(const JsonPlace& place, const std::string& expected, const nlohmann::json& found);
// UserError naming the nearest of `known`.
[[noreturn]] void refuse_key(const JsonPlace& object, const std::string& key, const std::vector<std::string>& known);

int64_t json_integer(const nlohmann::json& value, const JsonPlace& place, int64_t least, int64_t most);
double json_number(const nlohmann::json& value, const JsonPlace& place, double least, double most);
bool json_flag(const nlohmann::json& value, const JsonPlace& place);
std::string json_text(const nlohmann::json& value, const JsonPlace& place);
std::string json_choice(const nlohmann::json& value, const JsonPlace& place, const std::vector<std::string>& choices);
const nlohmann::json& json_object(const nlohmann::json& value, const JsonPlace& place);

template <typename T>
struct Field {
  std::string name;
  std::function<void(T&, const nlohmann::json&, const JsonPlace&)> read;
  std::function<nlohmann::ordered_json(const T&)> write;
  bool required = false;
};

template <typename T>
using FieldTable = std::vector<Field<T>>;

template <typename T>
const Field<T>* find_field(const FieldTable<T>& table, const std::string& name) {
  for (const Field<T>& field : table) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

template <typename T>
std::vector<std::string> field_names(const FieldTable<T>& table) {
  std::vector<std::string> names;
  for (const Field<T>& field : table) names.push_back(field.name);
  return names;
}

// Sets the fields that `value` has and leaves the others as they are.
template <typename T>
void read_object(T& target, const nlohmann::json& value, const FieldTable<T>& table, const JsonPlace& place) {
  for (const auto& [key, entry] : json_object(value, place).items()) {
    const Field<T>* field = find_field(table, key);
    if (!field) refuse_key(place, key, field_names(table));
    field->read(target, entry, place.at(key));
  }
}

template <typename T>
nlohmann::ordered_json write_object(const T& source, const FieldTable<T>& table) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const Field<T>& field : table) object[field.name] = field.write(source);
  return object;
}

// A field whose value is a plain member: `get` turns JSON into it.
template <typename T, typename Member, typename Get>
Field<T> member_field(std::string name, Member T::* member, Get get, bool required = false) {
  return {.name = std::move(name),
          .read = [=](T& t, const nlohmann::json& value, const JsonPlace& place) { t.*member = get(value, place); },
          .write = [=](const T& t) { return nlohmann::ordered_json(t.*member); },
          .required = required};
}

template <typename T>
Field<T> integer_field(std::string name, int64_t T::* member, int64_t least, int64_t most, bool required = false) {
  return member_field(
      std::move(name), member, [=](const auto& value, const auto& place) { return json_integer(value, place, least, most); }, required);
}

template <typename T>
Field<T> number_field(std::string name, double T::* member, double least, double most) {
  return member_field(std::move(name), member,
                      [=](const auto& value, const auto& place) { return json_number(value, place, least, most); });
}

template <typename T>
Field<T> flag_field(std::string name, bool T::* member) {
  return member_field(std::move(name), member, json_flag);
}

template <typename T>
Field<T> choice_field(std::string name, std::string T::* member, std::vector<std::string> choices) {
  return member_field(std::move(name), member, [=](const auto& value, const auto& place) { return json_choice(value, place, choices); });
}

// `table` outlives the field.
template <typename T, typename Inner>
Field<T> object_field(std::string name, Inner T::* member, const FieldTable<Inner>& table) {
  return {.name = std::move(name),
          .read = [=, &table](T& t, const nlohmann::json& value, const JsonPlace& place) { read_object(t.*member, value, table, place); },
          .write = [=, &table](const T& t) { return write_object(t.*member, table); }};
}

}  // namespace mw
