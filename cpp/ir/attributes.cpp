#include "ir/attributes.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace mw {
namespace {

template <typename T>
const T& get(const Attributes& attributes, std::string_view name, const char* kind) {
  const AttributeValue* value = attributes.find(name);
  MW_CHECK(value, "attribute '", name, "' is missing");
  const T* typed = std::get_if<T>(value);
  MW_CHECK(typed, "attribute '", name, "' is not ", kind);
  return *typed;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    c == '\n' ? out += "\\n" : out += c;  // a Program is read line by line
  }
  return out + '"';
}

std::string shown(double x) {
  char buffer[40];
  std::string_view text;
  for (const int digits : {6, 9, 17}) {  // the shortest of three that reads back exactly; to_chars knows no locale
    text = {buffer, std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::general, digits).ptr};
    double back = 0;
    std::from_chars(text.begin(), text.end(), back);
    if (back == x) break;
  }
  return std::string(text) + (text.find_first_of(".einf") == std::string_view::npos ? ".0" : "");
}

// "[]" reads as either kind of list.
bool is_empty_list(const AttributeValue* value) {
  if (!value) return false;
  const auto* names = std::get_if<std::vector<std::string>>(value);
  const auto* integers = std::get_if<std::vector<int64_t>>(value);
  return (names && names->empty()) || (integers && integers->empty());
}

template <typename T, typename Show>
std::string list(const std::vector<T>& items, Show show) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) text += (i > 0 ? ", " : "") + show(items[i]);
  return text + "]";
}

}  // namespace

Attributes::Attributes(std::initializer_list<std::pair<std::string, AttributeValue>> entries) {
  for (const auto& [name, value] : entries) set(name, value);
}

void Attributes::set(std::string name, AttributeValue value) {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), name, [](const auto& e, const std::string& n) { return e.first < n; });
  if (at != entries_.end() && at->first == name) {
    at->second = std::move(value);
  } else {
    entries_.emplace(at, std::move(name), std::move(value));
  }
}

void Attributes::erase(std::string_view name) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == name; });
}

const AttributeValue* Attributes::find(std::string_view name) const {
  for (const auto& [key, value] : entries_) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool Attributes::flag(std::string_view name) const { return get<bool>(*this, name, "a flag"); }
int64_t Attributes::integer(std::string_view name) const { return get<int64_t>(*this, name, "an integer"); }
double Attributes::number(std::string_view name) const {
  const AttributeValue* value = find(name);
  if (value && std::holds_alternative<int64_t>(*value)) return static_cast<double>(std::get<int64_t>(*value));
  return get<double>(*this, name, "a number");
}
const std::string& Attributes::text(std::string_view name) const { return get<std::string>(*this, name, "a text"); }
std::vector<int64_t> Attributes::integers(std::string_view name) const {
  if (is_empty_list(find(name))) return {};
  return get<std::vector<int64_t>>(*this, name, "a list of integers");
}
std::vector<std::string> Attributes::names(std::string_view name) const {
  if (is_empty_list(find(name))) return {};
  return get<std::vector<std::string>>(*this, name, "a list of names");
}

std::string to_string(const AttributeValue& value) {
  struct Shower {
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(int64_t x) const { return std::to_string(x); }
    std::string operator()(double x) const { return shown(x); }
    std::string operator()(const std::string& x) const { return quoted(x); }
    std::string operator()(const std::vector<int64_t>& x) const {
      return list(x, [](int64_t i) { return std::to_string(i); });
    }
    std::string operator()(const std::vector<std::string>& x) const { return list(x, quoted); }
  };
  return std::visit(Shower{}, value);
}

std::string to_string(const Attributes& attributes) {
  if (attributes.entries().empty()) return "";
  std::string text = "{";
  for (const auto& [name, value] : attributes.entries()) {
    if (text.size() > 1) text += ", ";
    text += name + "=" + to_string(value);
  }
  return text + "}";
}

}  // namespace mw
