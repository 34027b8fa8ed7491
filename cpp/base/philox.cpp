#include "base/philox.h"

#include <bit>
#include <cmath>

#include "base/xxhash64.h"

namespace mw {
namespace {

// A bijection of 64-bit words in which every bit of the input reaches every bit of the output (the finaliser of SplitMix64,
// Steele, Lea and Flood 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
constexpr uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// Coefficients from the constant term upwards, in Horner's form.
template <size_t N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[N - 1];
  for (size_t i = N - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// Natural logarithm of a normal positive double: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)).
double logarithm(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const uint64_t shifted = bits - 0x3fe6a09e667f3bcdu;  // the bits of sqrt(1/2)
  const int64_t exponent = static_cast<int64_t>(shifted) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<uint64_t>(exponent) << 52));
  const double s = (m - 1) / (m + 1);
  const double odd[] = {1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  return static_cast<double>(exponent) * 0.69314718055994530942 + 2 * s * polynomial(odd, s * s);
}

// Calls store(i, word) for the indices first + i, one block at a time.
template <typename Store>
void each_word(const RandomStream& stream, uint64_t first, size_t count, Store&& store) {
  size_t i = 0;
  while (i < count) {
    const auto words = stream.block((first + i) / 4);
    for (uint64_t lane = (first + i) % 4; lane < 4 && i < count; ++lane, ++i) store(i, words[lane]);
  }
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t{0xd2511f53} * c[0];
    const uint64_t q = uint64_t{0xcd9e8d57} * c[2];
    c = {high(q) ^ c[1] ^ key[0], low(q), high(p) ^ c[3] ^ key[1], low(p)};
    key = {key[0] + 0x9e3779b9u, key[1] + 0xbb67ae85u};
  }
  return c;
}

RandomStream::RandomStream(uint64_t seed, uint64_t step, std::string_view name) : step_(step) {
  const uint64_t key = mix(mix(seed + 0x9e3779b97f4a7c15u) ^ xxhash64(std::as_bytes(std::span(name))));
  key_ = {low(key), high(key)};
}

std::array<uint32_t, 4> RandomStream::block(uint64_t number) const {
  return philox4x32({low(number), high(number), low(step_), high(step_)}, key_);
}

float uniform_from(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// Wichura 1988, algorithm AS 241 (PPND16): rational functions of degree 7, relative error about 1e-16.
double normal_from(uint32_t word) {
  constexpr double a[] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                          4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3};
  constexpr double b[] = {1.0,
                          4.2313330701600911252e1,
                          6.8718700749205790830e2,
                          5.3941960214247511077e3,
                          2.1213794301586595867e4,
                          3.9307895800092710610e4,
                          2.8729085735721942674e4,
                          5.2264952788528545610e3};
  constexpr double c[] = {1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,  3.64784832476320460504e0,
                          1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr double d[] = {1.0,
                          2.05319162663775882187e0,
                          1.67638483018380384940e0,
                          6.89767334985100004550e-1,
                          1.48103976427480074590e-1,
                          1.51986665636164571966e-2,
                          5.47593808499534494600e-4,
                          1.05075007164441684324e-9};
  constexpr double e[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,  2.96560571828504891230e-1,
                          2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr double f[] = {1.0,
                          5.99832206555887937690e-1,
                          1.36929880922735805310e-1,
                          1.48753612908506148525e-2,
                          7.86869131145613259100e-4,
                          1.84631831751005468180e-5,
                          1.42151175831644588870e-7,
                          2.04426310338993978564e-15};
  const double q = (static_cast<double>(word) - 2147483647.5) * 0x1p-32;  // probability - 1/2, exact
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(a, r) / polynomial(b, r);
  }
  const double r = std::sqrt(-logarithm(0.5 - std::abs(q)));
  const double x = r <= 5.0 ? polynomial(c, r - 1.6) / polynomial(d, r - 1.6) : polynomial(e, r - 5.0) / polynomial(f, r - 5.0);
  return q < 0 ? -x : x;
}

void fill_uniform(const RandomStream& stream, uint64_t first, std::span<float> out) {
  each_word(stream, first, out.size(), [&](size_t i, uint32_t word) { out[i] = uniform_from(word); });
}

void fill_normal(const RandomStream& stream, uint64_t first, float mean, float deviation, std::span<float> out) {
  each_word(stream, first, out.size(), [&](size_t i, uint32_t word) {
    out[i] = static_cast<float>(static_cast<double>(mean) + static_cast<double>(deviation) * normal_from(word));
  });
}

void fill_normal(uint64_t seed, std::string_view name, uint64_t first, float mean, float deviation, std::span<float> out) {
  fill_normal(RandomStream(seed, 0, name), first, mean, deviation, out);
}

}  // namespace mw
