// What the tests of this room share: hand-made safetensors bytes.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "temporary_folder.h"

namespace mw {

inline std::string with_length(std::string_view header, std::string_view data, uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(header).append(data);
}

inline std::string with_length(std::string_view header, std::string_view data = {}) { return with_length(header, data, header.size()); }

}  // namespace mw
