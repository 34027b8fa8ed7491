// Sums of messages against a plain loop in the order of the terms, in FP32.
#include "comm/combine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "runner.h"

namespace mw {
namespace {

constexpr std::array<int64_t, 6> kCounts{1, 15, 16, 1023, 1024, 2500};

float value(size_t term, int64_t i) { return std::sin(static_cast<float>(i + 1) * (1.7f + static_cast<float>(term))) * 3.0f; }

float expected(ReduceKind kind, const std::vector<std::vector<float>>& terms, int64_t i) {
  float total = terms[0][static_cast<size_t>(i)];
  for (size_t t = 1; t < terms.size(); ++t) {
    const float x = terms[t][static_cast<size_t>(i)];
    total = kind == ReduceKind::kSum ? total + x : std::max(total, x);
  }
  return total;
}

template <typename Stored, typename Store, typename Load>
void compare(DType dtype, Store store, Load load) {
  for (const ReduceKind kind : {ReduceKind::kSum, ReduceKind::kMax}) {
    for (const size_t n : {2u, 3u, 5u}) {
      for (const int64_t count : kCounts) {
        const int64_t offset = 3;
        std::vector<std::vector<Stored>> arrays(n);
        std::vector<std::vector<float>> terms(n);
        std::vector<const void*> in;
        for (size_t t = 0; t < n; ++t) {
          for (int64_t i = 0; i < count + offset; ++i) {
            arrays[t].push_back(store(value(t, i)));
            terms[t].push_back(load(arrays[t].back()));
          }
          in.push_back(arrays[t].data());
        }
        std::vector<Stored> out(static_cast<size_t>(count));
        combine(dtype, kind, in, offset, out.data(), count);
        for (int64_t i = 0; i < count; ++i) {
          const Stored want = store(expected(kind, terms, i + offset));
          EXPECT_EQ(std::memcmp(&out[static_cast<size_t>(i)], &want, sizeof want), 0);
        }
        // Into each of the terms itself.
        for (size_t t = 0; t < n; ++t) {
          std::vector<std::vector<Stored>> again = arrays;
          std::vector<const void*> same;
          for (const auto& array : again) same.push_back(array.data());
          combine(dtype, kind, same, 0, again[t].data(), count);
          for (int64_t i = 0; i < count; ++i) {
            const Stored want = store(expected(kind, terms, i));
            EXPECT_EQ(std::memcmp(&again[t][static_cast<size_t>(i)], &want, sizeof want), 0);
          }
        }
      }
    }
  }
}

TEST(combine, f32_is_added_in_the_order_of_the_terms) {
  compare<float>(DType::kF32, [](float x) { return x; }, [](float x) { return x; });
}

TEST(combine, bf16_is_added_in_f32_and_rounded_once) {
  compare<BF16>(DType::kBF16, [](float x) { return to_bf16(x); }, [](BF16 x) { return to_float(x); });
}

TEST(combine, a_nan_of_bf16_stays_one) {
  std::vector<BF16> a(40, to_bf16(1.0f)), b(40, to_bf16(2.0f)), out(40);
  b[7] = to_bf16(std::numeric_limits<float>::quiet_NaN());
  const std::array<const void*, 2> in{a.data(), b.data()};
  combine(DType::kBF16, ReduceKind::kSum, in, 0, out.data(), 40);
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(to_float(out[i])), i == 7);
}

TEST(combine, whole_numbers_are_added_exactly) {
  const std::vector<int32_t> a{1 << 30, -5}, b{7, 5};
  std::vector<int32_t> out(2);
  const std::array<const void*, 2> in{a.data(), b.data()};
  combine(DType::kI32, ReduceKind::kSum, in, 0, out.data(), 2);
  EXPECT_EQ(out[0], (1 << 30) + 7);
  EXPECT_EQ(out[1], 0);
}

}  // namespace
}  // namespace mw
