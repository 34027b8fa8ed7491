// Vectors of 16 floats. Included inside the namespace of one instruction set, after <immintrin.h>; every kernel is written once
// against the names below (vec_avx2.inl has the same ones with 8 lanes). No function from another header may be used beside them:
// an inline function compiled here could replace the plain one in the rest of the library.
using Vec = __m512;
using Ints = __m512i;
using Mask = __mmask16;
constexpr int kLanes = 16;
constexpr int kMicroRows = 8;  // rows of one call of the innermost kernel; times 3 vectors fills the registers

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec set1(float x) { return _mm512_set1_ps(x); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b where one of them is NaN
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline bool all_equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) == 0xffff; }
inline Vec select(Mask m, Vec yes, Vec no) { return _mm512_mask_blend_ps(m, no, yes); }

// The first n (0..kLanes) lanes; the others read as zero and are not written.
inline Mask first_lanes(int64_t n) { return static_cast<Mask>((1u << n) - 1); }
inline Vec load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_first(float* p, Vec x, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }

inline Ints set1(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline Ints load_first(const int32_t* p, int64_t n) { return _mm512_maskz_loadu_epi32(first_lanes(n), p); }
inline Ints lane_index() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Mask less(Ints a, Ints b) { return _mm512_cmplt_epi32_mask(a, b); }
inline Mask equal(Ints a, Ints b) { return _mm512_cmpeq_epi32_mask(a, b); }
inline Mask both(Mask a, Mask b) { return a & b; }

// bf16 is the upper half of a float; storing rounds to nearest even, NaN stays NaN.
inline Vec widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
inline Vec load(const uint16_t* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_first(const uint16_t* p, int64_t n) { return widen(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
inline __m256i narrow(Vec x) {
#ifdef __AVX512BF16__
  return (__m256i)_mm512_cvtneps_pbh(x);
#else
  const Ints bits = _mm512_castps_si512(x);
  const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const Ints rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const Ints quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const Mask nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
#endif
}
inline void store(uint16_t* p, Vec x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
inline void store_first(uint16_t* p, Vec x, int64_t n) { _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(x)); }

inline float sum_lanes(Vec x) { return _mm512_reduce_add_ps(x); }
inline float max_lanes(Vec x) { return _mm512_reduce_max_ps(x); }

inline Vec times_power_of_two(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }  // n whole

// e^x, relative error below 2e-7; 0 below -104, infinity above 89, NaN stays.
inline Vec exp(Vec x) {
  x = min(set1(128.0f), max(set1(-104.0f), x));
  const Vec n = _mm512_roundscale_ps(mul(x, set1(1.44269504089f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec r = fnma(n, set1(-2.12194440e-4f), fnma(n, set1(0.693359375f), x));
  Vec p = fma(set1(1.0f / 720), r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return times_power_of_two(p, n);
}

// Lane i becomes the bf16 pair (low[i], high[i]): rounded, or of the first n (8 or all) in memory.
#ifdef __AVX512BF16__
inline Ints narrow(Vec low, Vec high) { return (Ints)_mm512_cvtne2ps_pbh(high, low); }  // all of low, then all of high
inline Vec round_pairs(Vec low, Vec high) {
  const Ints order = _mm512_add_epi32(_mm512_mullo_epi32(lane_index(), _mm512_set1_epi32(0x10001)), _mm512_set1_epi32(0x100000));
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, narrow(low, high)));
}
inline void store_both(uint16_t* p, uint16_t* q, Vec x, Vec y) {
  const Ints both = narrow(x, y);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(both));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm512_extracti64x4_epi64(both, 1));
}
#else
inline Vec round_pairs(Vec low, Vec high) {
  return _mm512_castsi512_ps(
      _mm512_or_si512(_mm512_cvtepu16_epi32(narrow(low)), _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(high)), 16)));
}
inline void store_both(uint16_t* p, uint16_t* q, Vec x, Vec y) { store(p, x), store(q, y); }
#endif
inline Vec join_pairs(const uint16_t* low, const uint16_t* high, int64_t n) {
  const __mmask16 lanes = first_lanes(n);
  const Ints first = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, low));
  const Ints second = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, high));
  return _mm512_castsi512_ps(_mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
}
inline void store_pairs(uint32_t* p, Vec low, Vec high) { store(reinterpret_cast<float*>(p), round_pairs(low, high)); }
