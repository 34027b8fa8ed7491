// The settings of one op: a few named values, kept sorted by name so that equal ops print alike.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mw {

using AttributeValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<std::string>>;

class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, AttributeValue>> entries);

  void set(std::string name, AttributeValue value);
  void erase(std::string_view name);
  const AttributeValue* find(std::string_view name) const;

  // InternalError when the attribute is missing or of another kind.
  bool flag(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  std::vector<int64_t> integers(std::string_view name) const;
  std::vector<std::string> names(std::string_view name) const;
  // The same with a default for a missing attribute.
  bool flag_or(std::string_view name, bool otherwise) const { return find(name) ? flag(name) : otherwise; }
  int64_t integer_or(std::string_view name, int64_t otherwise) const { return find(name) ? integer(name) : otherwise; }
  double number_or(std::string_view name, double otherwise) const { return find(name) ? number(name) : otherwise; }
  std::string text_or(std::string_view name, std::string otherwise) const { return find(name) ? text(name) : otherwise; }
  std::vector<std::string> names_or_empty(std::string_view name) const { return find(name) ? names(name) : std::vector<std::string>{}; }

  const std::vector<std::pair<std::string, AttributeValue>>& entries() const { return entries_; }
  bool operator==(const Attributes&) const = default;

 private:
  std::vector<std::pair<std::string, AttributeValue>> entries_;
};

std::string to_string(const AttributeValue& value);
std::string to_string(const Attributes& attributes);  // "{contract=["embed"], scale=0.125}" or ""

}  // namespace mw
