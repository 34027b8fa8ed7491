// Reading untrusted JSON event by event, for formats whose files may be large: nothing is kept but what the handler keeps.
// Include it in .cpp files only (it pulls in nlohmann/json.hpp). parse_json_strict (json.h) is built on it.
//
//   struct Handler : JsonHandler { bool key(string_t& name) override { return name == "a" || refuse("only 'a' is allowed"); } ... };
//   Handler handler;
//   parse_json_events(text, path, handler);   // UserError with path, line, column and the handler's problem
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mw {

class JsonHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool binary(binary_t&) override { return refuse("binary values are not JSON"); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override;

  // Why reading stopped. Use as `return refuse("...")` in an event: the parser stops there.
  bool refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  const std::string& problem() const { return problem_; }

 private:
  std::string problem_;
};

void parse_json_events(std::string_view text, std::string_view what, JsonHandler& handler);

}  // namespace mw
