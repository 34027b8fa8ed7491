#include "base/philox.h"

#include <cmath>
#include <set>
#include <vector>

#include "runner.h"

namespace mw {
namespace {

// The three vectors of the authors' Random123 (tests/kat_vectors, "philox4x32 10").
TEST(philox, known_answers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT(philox4x32({0, 0, 0, 0}, {0, 0}) == (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Expected values: Python's statistics.NormalDist().inv_cdf((word + 0.5) / 2**32).
TEST(philox, normal_is_the_inverse_distribution_function) {
  EXPECT_NEAR(normal_from(0u), -6.337957754553789, 1e-13);
  EXPECT_NEAR(normal_from(1u), -6.166429517819749, 1e-13);
  EXPECT_NEAR(normal_from(1000u), -5.039851125968711, 1e-13);
  EXPECT_NEAR(normal_from(50000000u), -2.2687577002444725, 1e-13);
  EXPECT_NEAR(normal_from(322122547u), -1.4395314704450153, 1e-13);
  EXPECT_NEAR(normal_from(322122548u), -1.4395314688002132, 1e-13);
  EXPECT_NEAR(normal_from(2147483648u), 2.9180993729166234e-10, 1e-13);
  EXPECT_NEAR(normal_from(3000000000u), 0.5200680618488762, 1e-13);
  EXPECT_NEAR(normal_from(4294967295u), 6.337957754553789, 1e-13);
  EXPECT_EQ(normal_from(0x80000000u), -normal_from(0x7fffffffu));
}

TEST(philox, any_window_gives_the_same_numbers) {
  const RandomStream stream(7, 3, "layers.0.dropout");
  std::vector<float> whole(103), part(17);
  fill_normal(stream, 0, 1.0f, 2.0f, whole);
  for (uint64_t first : {0, 1, 2, 3, 50, 86}) {
    fill_normal(stream, first, 1.0f, 2.0f, part);
    for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], whole[first + i]);
  }
}

TEST(philox, seed_step_name_and_high_indices_all_matter) {
  std::set<uint32_t> words;
  for (uint64_t seed : {0, 1}) {
    for (uint64_t step : {0, 1}) {
      for (const char* name : {"a", "b"}) {
        const RandomStream stream(seed, step, name);
        for (uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{4}, uint64_t{1} << 34}) words.insert(stream.word(index));
      }
    }
  }
  EXPECT_EQ(words.size(), 32u);
}

TEST(philox, moments_of_a_million) {
  std::vector<float> x(1 << 20);
  fill_normal(42, "w", 0, 0.0f, 1.0f, x);
  double sum = 0, squares = 0, fourth = 0;
  for (double v : x) sum += v, squares += v * v, fourth += v * v * v * v;
  EXPECT_NEAR(sum / x.size(), 0.0, 4e-3);
  EXPECT_NEAR(squares / x.size(), 1.0, 6e-3);
  EXPECT_NEAR(fourth / x.size(), 3.0, 5e-2);
  fill_uniform(RandomStream(42, 0, "u"), 0, x);
  sum = squares = 0;
  for (double v : x) {
    EXPECT(v >= 0.0 && v < 1.0);
    sum += v, squares += v * v;
  }
  EXPECT_NEAR(sum / x.size(), 0.5, 2e-3);
  EXPECT_NEAR(squares / x.size(), 1.0 / 3, 2e-3);
}

}  // namespace
}  // namespace mw
