#include "base/xxhash64.h"

#include <string>
#include <string_view>

#include "runner.h"

namespace mw {

static std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(base, xxhash64_has_the_published_values) {
  EXPECT_EQ(hex16(xxhash64(as_bytes(""))), "ef46db3751d8e999");
  EXPECT_EQ(hex16(xxhash64(as_bytes("a"))), "d24ec4f1a98c6e5b");
  EXPECT_EQ(hex16(xxhash64(as_bytes("abc"))), "44bc2cf5ad770999");
  std::string alphabet;
  for (int i = 0; i < 1000; ++i) alphabet += static_cast<char>(i * 7 % 251);
  EXPECT_EQ(hex16(xxhash64(as_bytes(alphabet))), "023fd2ed1ff957d5");
}

TEST(base, xxhash64_does_not_depend_on_how_the_bytes_arrive) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 31);
  for (size_t length : {0, 1, 31, 32, 33, 63, 64, 100, 300}) {
    const std::string_view part = std::string_view(text).substr(0, length);
    for (size_t step : {1, 3, 31, 32, 33, 299}) {
      Xxhash64 hash;
      for (size_t i = 0; i < part.size(); i += step) hash.update(as_bytes(part.substr(i, step)));
      EXPECT_EQ(hash.digest(), xxhash64(as_bytes(part)));
    }
  }
}

}  // namespace mw
