// JSON from files that we did not write. The whole text must be one RFC 8259 value: no comments, no trailing commas, no byte order
// mark, valid UTF-8, no key twice in one object, no number beyond a double, bounded nesting. Numbers without fraction or exponent
// keep their exact value where it fits 64 bits (check is_number_integer() before use).
//
//   const nlohmann::json config = parse_json_strict(read_file(path, kMaxConfigBytes), path);   // .cpp: #include <nlohmann/json.hpp>
//
// UserError: "runs/a/config.json, line 3, column 7: key 'seq' occurs twice in one object".
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace mw {

inline constexpr int kMaxJsonDepth = 64;

// `what` names the text in errors, usually its path.
nlohmann::json parse_json_strict(std::string_view text, std::string_view what, int max_depth = kMaxJsonDepth);

}  // namespace mw
