#include "base/dtype.h"

#include <limits>

#include "base/error.h"
#include "runner.h"

namespace mw {

TEST(base, bf16_rounds_to_nearest_even) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.00390625f).bits, 0x3f80);  // half way between two values: the even one
  EXPECT_EQ(to_bf16(1.01171875f).bits, 0x3f82);
  EXPECT(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(base, every_f16_round_trips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = to_float(F16{static_cast<uint16_t>(bits)});
    if (std::isnan(value)) continue;
    EXPECT_EQ(to_f16(value).bits, bits);
  }
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);
}

TEST(base, unknown_dtype_names_the_nearest) {
  EXPECT_ERROR(UserError, { parse_dtype("flaot32"); }, "unknown dtype 'flaot32'", "did you mean 'float32'");
}

}  // namespace mw
