// Untrusted text (tensor names, file contents) made fit for an error message: always valid UTF-8, one line, of bounded length.
//
//   throw UserError("tensor " + in_quotes(name) + " overlaps ...");   // tensor 'a\x00b' overlaps ...
#pragma once
#include <string>
#include <string_view>

namespace mw {

// Control bytes and bytes that are not valid UTF-8 become \xNN; after `max_bytes` of input the rest is "...".
std::string printable(std::string_view text, size_t max_bytes = 200);

std::string in_quotes(std::string_view text);

// Length of the valid UTF-8 sequence at the front of `text` (1 to 4), or 0: overlong forms and surrogates are not valid.
size_t utf8_length(std::string_view text);

bool is_valid_utf8(std::string_view text);

}  // namespace mw
