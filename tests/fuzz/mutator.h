// Deterministic damage to valid files: the same seed makes the same bytes on every machine.
//
//   Mutator mutator(seed);
//   mutator.mutate_text(json, kSafetensorsWords);    // bits, pieces, digits, and words that mean something to the format
//   mutator.mutate_bytes(file);                      // the same for binary formats, with numbers that hurt
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace mw {

inline constexpr std::string_view kJsonWords[] = {"18446744073709551615",
                                                  "9223372036854775808",
                                                  "-1",
                                                  "0",
                                                  "1e999",
                                                  "1.5",
                                                  "null",
                                                  "true",
                                                  "{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  ",",
                                                  ":",
                                                  "\"",
                                                  "\"\"",
                                                  "[[[[[[[[",
                                                  "{\"a\":",
                                                  "\\u0000",
                                                  "\\ud800",
                                                  "../",
                                                  "\xff",
                                                  "\xc3\xa9",
                                                  " ",
                                                  "\n"};
inline constexpr std::string_view kSafetensorsWords[] = {"__metadata__", "dtype", "shape", "data_offsets", "F32", "F4", "BF16", "F8_E4M3"};

inline constexpr uint64_t kNumbersThatHurt[] = {0,
                                                1,
                                                2,
                                                7,
                                                31,
                                                32,
                                                33,
                                                127,
                                                128,
                                                255,
                                                256,
                                                65535,
                                                1 << 20,
                                                (uint64_t{1} << 31) - 1,
                                                uint64_t{1} << 31,
                                                (uint64_t{1} << 32) - 1,
                                                uint64_t{1} << 32,
                                                uint64_t{1} << 48,
                                                (uint64_t{1} << 61) + 1,
                                                (uint64_t{1} << 63) - 1,
                                                uint64_t{1} << 63,
                                                ~uint64_t{0} - 7,
                                                ~uint64_t{0}};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : state_(seed) {}

  uint64_t next() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  size_t below(size_t n) { return n == 0 ? 0 : next() % n; }
  template <typename List>
  auto one_of(const List& list) {
    return list[below(std::size(list))];
  }

  std::string mutate_text(std::string text, std::span<const std::string_view> words) {
    for (size_t round = 1 + below(4); round > 0; --round) {
      const size_t at = below(text.size() + 1), length = below(std::min<size_t>(text.size() - at + 1, 24));
      const std::string_view word = below(2) ? one_of(kJsonWords) : one_of(words);
      switch (below(7)) {
        case 2:
          text.insert(at, word);
          break;
        case 3:
          text.replace(at, length, word);
          break;
        case 6:
          for (size_t i = at; i < text.size(); ++i) {  // another digit for the next digit
            if (text[i] < '0' || text[i] > '9') continue;
            text[i] = static_cast<char>('0' + below(10));
            break;
          }
          break;
        default:
          mutate_piece(text, at, length);
      }
    }
    return text;
  }

  std::string mutate_bytes(std::string bytes) {
    for (size_t round = 1 + below(4); round > 0; --round) {
      const size_t at = below(bytes.size() + 1), length = below(std::min<size_t>(bytes.size() - at + 1, 64));
      const size_t width = size_t{1} << below(4);
      if (below(3) == 0 && at + width <= bytes.size()) {
        const uint64_t number = one_of(kNumbersThatHurt) + below(3) - 1;
        std::memcpy(bytes.data() + at, &number, width);
      } else {
        mutate_piece(bytes, at, length);
      }
    }
    return bytes;
  }

 private:
  void mutate_piece(std::string& bytes, size_t at, size_t length) {
    switch (below(4)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes.erase(at, length);
        break;
      case 2:
        bytes.insert(below(bytes.size() + 1), bytes.substr(at, length));
        break;
      default:
        bytes.resize(below(8) ? bytes.size() : at);
    }
  }

  uint64_t state_;
};

}  // namespace mw
