// The peak loops of one instruction set. Included last.
// Independent chains enough to hide the latency of two multiply-adds per cycle: sixteen where there are 32 registers (the pair products
// of Zen 5 lose 7 % with twelve), twelve where there are 16.
template <typename Words>
double peak(int64_t rounds) {
  constexpr int kChains = kLanes == 16 ? 16 : 12;
  Vec acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = set1(static_cast<float>(i));
  Vec x = set1(1e-6f), y = set1(1e-6f);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = Words::multiply_add(acc[i], x, y);
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = Words::multiply_add(acc[i], x, y);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) asm volatile("" : "+v"(acc[i]));
  return 2.0 * kChains * kLanes * 2.0 * static_cast<double>(rounds);
}

#ifdef __AVX512BF16__
double pair_peak(int64_t rounds) { return 2.0 * peak<Bf16Words>(rounds); }
#endif
