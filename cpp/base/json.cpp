#include "base/json.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json_sax.h"
#include "base/printable.h"

namespace mw {
namespace {

using nlohmann::json;

// Walks the text and tells a counter outside how far the lexer has read, so that a handler's refusal has a position too.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at = nullptr;
  size_t* num_read = nullptr;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    ++at;
    ++*num_read;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
};

class TreeBuilder : public JsonHandler {
 public:
  explicit TreeBuilder(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return refuse("key " + in_quotes(name) + " occurs twice in one object");
    key_ = std::move(name);
    return true;
  }

  json root;

 private:
  json* place(json value) {
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    if (static_cast<int>(open_.size()) >= max_depth_) return refuse("nested deeper than " + std::to_string(max_depth_) + " levels");
    open_.push_back(place(std::move(container)));  // stays valid: a container grows only after its last child is closed
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  int max_depth_;
  std::vector<json*> open_;
  std::string key_;
};

std::string position(std::string_view text, size_t num_read) {
  const std::string_view before = text.substr(0, std::min(text.size(), num_read == 0 ? 0 : num_read - 1));
  const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return concat_text("line ", std::count(before.begin(), before.end(), '\n') + 1, ", column ", before.size() - line_start + 1);
}

}  // namespace

bool JsonHandler::parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
  std::string text = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: <what we want>"
  if (const size_t head = text.find("] "); head != std::string::npos) text.erase(0, head + 2);
  if (text.starts_with("parse error")) text.erase(0, std::min(text.size(), text.find(": ") + 2));
  return refuse(printable(text));
}

void parse_json_events(std::string_view text, std::string_view what, JsonHandler& handler) {
  const std::string name = printable(what, 1000);
  if (text.empty()) throw UserError(name + ": expected JSON, found nothing (0 bytes)");
  if (text.starts_with("\xef\xbb\xbf"))
    throw UserError(name + ": expected JSON, found a byte order mark in front of it; remove its 3 bytes");
  size_t num_read = 0;
  const CountingIterator begin{text.data(), &num_read}, end{text.data() + text.size(), &num_read};
  if (!json::sax_parse(begin, end, &handler)) throw UserError(name + ", " + position(text, num_read) + ": " + handler.problem());
}

json parse_json_strict(std::string_view text, std::string_view what, int max_depth) {
  TreeBuilder builder(max_depth);
  parse_json_events(text, what, builder);
  return std::move(builder.root);
}

}  // namespace mw
