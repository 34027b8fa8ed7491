// Vectors of 8 floats; the names of vec_avx512.inl, which says how these files are used.
using Vec = __m256;
using Ints = __m256i;
using Mask = __m256;  // all bits of a lane set or none
constexpr int kLanes = 8;
constexpr int kMicroRows = 4;

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec set1(float x) { return _mm256_set1_ps(x); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Mask less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline bool all_equal(Vec a, Vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) == 0xff; }
inline Vec select(Mask m, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, m); }

inline Ints set1(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints lane_index() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Mask less(Ints a, Ints b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }
inline Mask equal(Ints a, Ints b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }

inline Mask first_lanes(int64_t n) { return less(lane_index(), set1(static_cast<int32_t>(n))); }
inline Vec load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n))); }
inline void store_first(float* p, Vec x, int64_t n) { _mm256_maskstore_ps(p, _mm256_castps_si256(first_lanes(n)), x); }
inline Ints load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Ints load_first(const int32_t* p, int64_t n) { return _mm256_maskload_epi32(p, _mm256_castps_si256(first_lanes(n))); }

inline Vec widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
inline Vec load(const uint16_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec load_first(const uint16_t* p, int64_t n) {
  alignas(16) uint16_t lanes[8] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(lanes)));
}
inline __m128i narrow(Vec x) {
  const Ints bits = _mm256_castps_si256(x);
  const Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const Ints rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const Ints quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const Mask nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const Ints high = _mm256_srli_epi32(_mm256_castps_si256(select(nan, _mm256_castsi256_ps(quiet), _mm256_castsi256_ps(rounded))), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline void store(uint16_t* p, Vec x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x)); }
inline void store_first(uint16_t* p, Vec x, int64_t n) {
  alignas(16) uint16_t lanes[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), narrow(x));
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

inline float sum_lanes(Vec x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max_lanes(Vec x) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline Vec power_of_two(Ints n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23)); }
inline Vec times_power_of_two(Vec x, Vec n) {  // n whole, above -250: in two factors, as it may pass 127 either way
  const Ints whole = _mm256_cvtps_epi32(min(set1(256.0f), n));
  const Ints half = _mm256_srai_epi32(whole, 1);
  return mul(mul(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
}

inline Vec exp(Vec x) {
  x = min(set1(128.0f), max(set1(-104.0f), x));
  const Vec n = _mm256_round_ps(mul(x, set1(1.44269504089f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec r = fnma(n, set1(-2.12194440e-4f), fnma(n, set1(0.693359375f), x));
  Vec p = fma(set1(1.0f / 720), r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return times_power_of_two(p, n);
}

inline Vec round_pairs(Vec low, Vec high) {
  return _mm256_castsi256_ps(
      _mm256_or_si256(_mm256_cvtepu16_epi32(narrow(low)), _mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow(high)), 16)));
}
inline void store_both(uint16_t* p, uint16_t* q, Vec x, Vec y) { store(p, x), store(q, y); }
inline Vec join_pairs(const uint16_t* low, const uint16_t* high, int64_t) {
  const Ints first = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
  const Ints second = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)));
  return _mm256_castsi256_ps(_mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
}
inline void store_pairs(uint32_t* p, Vec low, Vec high) { store(reinterpret_cast<float*>(p), round_pairs(low, high)); }
