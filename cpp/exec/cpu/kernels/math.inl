// Elementary functions over vectors. Included after vec_*.inl inside the namespace of one instruction set. Measured errors (tests):
// exp, sin, cos 1e-7 relative, log 2e-7, tanh, sigmoid, erf, erfc 5e-7.
typedef int32_t Lanes32 __attribute__((vector_size(sizeof(Vec))));

inline Lanes32 bits_of(Vec x) { return (Lanes32)x; }
inline Vec from_bits(Lanes32 x) { return (Vec)x; }
inline Lanes32 load_lanes32(const void* p) { return (Lanes32)load(static_cast<const int32_t*>(p)); }
inline void store_lanes32(void* p, Lanes32 x) { store(static_cast<float*>(p), (Vec)x); }
inline Vec pick(Lanes32 mask, Vec yes, Vec no) { return mask ? yes : no; }
inline Lanes32 splat32(int32_t x) { return (Lanes32)set1(x); }
inline Vec magnitude(Vec x) { return from_bits(bits_of(x) & splat32(0x7fffffff)); }
inline Vec with_sign_of(Vec x, Vec sign) { return from_bits(bits_of(x) | (bits_of(sign) & splat32(static_cast<int32_t>(0x80000000)))); }

// The parts that need instructions without an operator. Doubles: half as many lanes.
#ifdef __AVX512F__
using Doubles = __m512d;
inline Vec square_root(Vec x) { return _mm512_sqrt_ps(x); }
inline Vec round_even(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec round_down(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline Lanes32 truncate(Vec x) { return (Lanes32)_mm512_cvttps_epi32(x); }
inline Vec to_floats(Lanes32 x) { return _mm512_cvtepi32_ps((__m512i)x); }
inline Doubles low_doubles(Vec x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
inline Doubles high_doubles(Vec x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
inline Vec to_floats(Doubles low, Doubles high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}
inline Doubles set1_double(double x) { return _mm512_set1_pd(x); }
inline Doubles fnma(Doubles a, Doubles b, Doubles c) { return _mm512_fnmadd_pd(a, b, c); }
inline Vec load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline void store_f16(uint16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Lanes32 load_u8(const uint8_t* p) { return (Lanes32)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void store_u8(uint8_t* p, Lanes32 x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x)); }
#else
using Doubles = __m256d;
inline Vec square_root(Vec x) { return _mm256_sqrt_ps(x); }
inline Vec round_even(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec round_down(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline Lanes32 truncate(Vec x) { return (Lanes32)_mm256_cvttps_epi32(x); }
inline Vec to_floats(Lanes32 x) { return _mm256_cvtepi32_ps((__m256i)x); }
inline Doubles low_doubles(Vec x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
inline Doubles high_doubles(Vec x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
inline Vec to_floats(Doubles low, Doubles high) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high), 1);
}
inline Doubles set1_double(double x) { return _mm256_set1_pd(x); }
inline Doubles fnma(Doubles a, Doubles b, Doubles c) { return _mm256_fnmadd_pd(a, b, c); }
inline Vec load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void store_f16(uint16_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Lanes32 load_u8(const uint8_t* p) { return (Lanes32)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
inline void store_u8(uint8_t* p, Lanes32 x) {
  alignas(32) int32_t lanes[8];
  store_lanes32(lanes, x);
  for (int i = 0; i < 8; ++i) p[i] = static_cast<uint8_t>(lanes[i]);
}
#endif

// Coefficients from the constant term upwards, in Horner's form.
template <typename V, typename Scalar, int N>
inline V polynomial(const Scalar (&coefficients)[N], V x) {
  V sum = V{} + coefficients[N - 1];
  for (int i = N - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

constexpr float kLog2E = 1.44269504089f, kLn2 = 0.69314718056f;

// 2^x, relative error below 2e-7, 2^0 = 1; 0 below -125, infinity from 129 on, NaN stays. Fitted for least relative error. Never a denormal
// number, which takes Intel's processors a hundred cycles.
inline Vec exp2(Vec x) {
  const Vec least = set1(-125.0f);
  const Mask nothing = less(x, least);
  x = max(least, x);
  const Vec n = round_even(x);
  const Vec r = sub(x, n);
  Vec p = fma(set1(0.001326472614891827f), r, set1(0.009671513922512531f));
  p = fma(p, r, set1(0.05550733581185341f));
  p = fma(p, r, set1(0.24022242426872253f));
  p = fma(p, r, set1(0.6931470036506653f));
  p = fma(p, r, set1(1.0f));
  return select(nothing, zero(), times_power_of_two(p, n));
}

inline Vec reciprocal(Vec x) { return set1(1.0f) / x; }
inline Vec sigmoid(Vec x) { return reciprocal(set1(1.0f) + exp(-x)); }

// e^x - 1 for x <= 0, exact to rounding near 0.
inline Vec exp_minus_one(Vec x) {
  x = max(set1(-80.0f), x);
  const Vec n = round_even(x * set1(kLog2E));
  const Vec r = fnma(n, set1(-2.12194440e-4f), fnma(n, set1(0.693359375f), x));
  constexpr float kTaylor[] = {0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
  const Vec p = r + r * r * polynomial(kTaylor, r);
  const Vec scale = from_bits((truncate(n) + 127) << 23);
  return scale * p + (scale - set1(1.0f));
}

inline Vec tanh(Vec x) {
  const Vec e = exp_minus_one(magnitude(x) * set1(-2.0f));
  return with_sign_of(pick(x == x, -e / (set1(2.0f) + e), x), x);
}

// x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh((m - 1) / (m + 1)).
inline Vec log(Vec x) {
  const Lanes32 tiny = x < set1(0x1p-126f);
  const Vec scaled = pick(tiny, x * set1(0x1p24f), x);
  const Lanes32 shifted = bits_of(scaled) - 0x3f3504f3;
  const Lanes32 exponent = shifted >> 23;
  const Vec m = from_bits((shifted & 0x7fffff) + 0x3f3504f3);
  const Vec e = to_floats(exponent) - pick(tiny, set1(24.0f), zero());
  const Vec s = (m - set1(1.0f)) / (m + set1(1.0f));
  constexpr float kSeries[] = {2.0f / 3, 2.0f / 5, 2.0f / 7, 2.0f / 9};
  const Vec z = s * s;
  // e * log(2) in two parts: the first has few enough bits for an exact product.
  const Vec result = e * set1(0.693359375f) + (set1(2.0f) * s + (s * z * polynomial(kSeries, z) + e * set1(-2.12194440e-4f)));
  const Vec infinity = set1(__builtin_inff());
  const Vec special = pick(x == zero(), -infinity, pick(x < zero(), set1(__builtin_nanf("")), x));
  return pick((x > zero()) & (x < infinity), result, special);
}

// erfc(x) for x >= 0: exp(-x^2) / (1 + 2 x) times a polynomial in (x - 2) / (x + 2), fitted for least relative error (2e-8) on [0, 10].
inline Vec erfc_positive(Vec x) {
  constexpr float kFit[] = {1.2769783735275269f,     -0.0927639901638031f,    -0.1660310924053192f,  0.16405555605888367f,
                            -0.054207656532526016f,  -0.008061658591032028f,  0.008642636239528656f, 0.0013204857241362333f,
                            -0.0012413372751325369f, -0.00040945116779766977f};
  const Vec y = (x - set1(2.0f)) / (x + set1(2.0f));
  const Vec value = exp(-x * x) * polynomial(kFit, y) / (set1(1.0f) + set1(2.0f) * x);
  return pick(x > set1(10.5f), zero(), value);
}
inline Vec erfc(Vec x) {
  const Vec tail = erfc_positive(magnitude(x));
  return pick(x < zero(), set1(2.0f) - tail, tail);
}
inline Vec erf(Vec x) {
  constexpr float kTaylor[] = {1.1283791671f, -0.3761263890f, 0.1128379167f, -0.0268661706f, 0.0052239776f, -0.0008548327f, 0.0001205533f};
  const Vec near = x * polynomial(kTaylor, x * x);
  const Vec far = with_sign_of(set1(1.0f) - erfc_positive(magnitude(x)), x);
  return pick(magnitude(x) < set1(0.5f), near, far);
}

// Activations and their derivatives.
inline Vec relu(Vec x) { return pick(x < zero(), zero(), x); }
inline Vec silu(Vec x) { return x / (set1(1.0f) + exp(-x)); }
inline Vec gelu_erf(Vec x) { return set1(0.5f) * x * erfc(x * set1(-0.70710678118f)); }
inline Vec gelu_inner(Vec x) { return set1(0.79788456080f) * (x + set1(0.044715f) * x * x * x); }
// (1 + tanh(u)) / 2 = sigmoid(2 u)
inline Vec gelu_tanh(Vec x) { return x * sigmoid(set1(2.0f) * gelu_inner(x)); }

inline Vec relu_slope(Vec x) { return pick(x > zero(), set1(1.0f), pick(x == x, zero(), x)); }
inline Vec silu_slope(Vec x) {
  const Vec s = sigmoid(x);
  return s * (set1(1.0f) + x * (set1(1.0f) - s));
}
inline Vec gelu_erf_slope(Vec x) {
  return set1(0.5f) * erfc(x * set1(-0.70710678118f)) + x * set1(0.39894228040f) * exp(set1(-0.5f) * x * x);
}
inline Vec gelu_tanh_slope(Vec x) {
  const Vec s = sigmoid(set1(2.0f) * gelu_inner(x));
  const Vec inner_slope = set1(0.79788456080f) * (set1(1.0f) + set1(3 * 0.044715f) * x * x);
  return s + x * set1(2.0f) * s * (set1(1.0f) - s) * inner_slope;
}

// Sine and cosine of |x| < 2^50: x - n pi/2 with pi/2 in two doubles (the products are fused), then Taylor on [-pi/4, pi/4].
struct SineCosine {
  Doubles sine, cosine;
};
inline SineCosine sine_cosine(Doubles x) {
  typedef int64_t Lanes64 __attribute__((vector_size(sizeof(Doubles))));
  const Doubles shift = set1_double(0x1.8p52);  // adding it leaves the nearest integer in the low bits
  const Doubles shifted = x * set1_double(0.63661977236758134308) + shift;
  const Doubles n = shifted - shift;
  const Doubles r = fnma(n, set1_double(6.12323399573676603587e-17), fnma(n, set1_double(1.57079632679489655800), x));
  constexpr double kSine[] = {1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800};
  constexpr double kCosine[] = {1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600};
  const Doubles z = r * r;
  const Doubles s = r * polynomial(kSine, z), c = polynomial(kCosine, z);
  const Lanes64 quadrant = (Lanes64)shifted;
  const Lanes64 odd = (quadrant & 1) != 0;
  const Lanes64 sine_sign = (quadrant & 2) << 62, cosine_sign = ((quadrant + 1) & 2) << 62;
  return {(Doubles)((Lanes64)(odd ? c : s) ^ sine_sign), (Doubles)((Lanes64)(odd ? s : c) ^ cosine_sign)};
}
inline Vec sin(Vec x) { return to_floats(sine_cosine(low_doubles(x)).sine, sine_cosine(high_doubles(x)).sine); }
inline Vec cos(Vec x) { return to_floats(sine_cosine(low_doubles(x)).cosine, sine_cosine(high_doubles(x)).cosine); }
