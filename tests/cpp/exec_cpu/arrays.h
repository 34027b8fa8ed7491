// Arrays of any dtype for kernel tests: random values, naive access as double, comparison by the largest element.
//
//   Array x = random_array(DType::kBF16, 7 * 33, /*seed=*/1);
//   for_each_machine([&](ThreadPool& pool, Isa isa) { kernel(pool, isa, x.data(), ...); expect_close(y, expected); });
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"
#include "runner.h"

namespace mw::testing {

// Exactly as long as its elements, so that the address sanitizer sees a kernel that reads or writes one too many.
class Array {
 public:
  Array(DType dtype, int64_t count) : dtype_(dtype), count_(count), bytes_(new char[count * dtype_bytes(dtype)]()) {}
  void* data() { return bytes_.get(); }
  const void* data() const { return bytes_.get(); }
  float* floats() { return reinterpret_cast<float*>(bytes_.get()); }
  uint16_t* halves() { return reinterpret_cast<uint16_t*>(bytes_.get()); }
  int32_t* ints() { return reinterpret_cast<int32_t*>(bytes_.get()); }
  DType dtype() const { return dtype_; }
  int64_t size() const { return count_; }
  double operator[](int64_t i) const { return load_element(dtype_, bytes_.get(), i); }
  void set(int64_t i, double value) { store_element(dtype_, bytes_.get(), i, value); }
  Array copy() const {
    Array other(dtype_, count_);
    std::memcpy(other.data(), data(), count_ * dtype_bytes(dtype_));
    return other;
  }
  bool same_bits(const Array& other) const {
    return count_ == other.count_ && std::memcmp(data(), other.data(), count_ * dtype_bytes(dtype_)) == 0;
  }

 private:
  DType dtype_;
  int64_t count_;
  std::unique_ptr<char[]> bytes_;
};

// Normal values, or for integers uniform in [0, 10).
inline Array random_array(DType dtype, int64_t count, uint64_t seed, double mean = 0.0, double deviation = 1.0) {
  Array array(dtype, count);
  const RandomStream stream(seed, 0, "test");
  for (int64_t i = 0; i < count; ++i) {
    array.set(i, is_float(dtype) ? mean + deviation * normal_from(stream.word(i)) : std::floor(10 * uniform_from(stream.word(i))));
  }
  return array;
}

inline double tolerance_of(DType dtype) {
  return dtype == DType::kF32 ? 1e-5 : dtype == DType::kBF16 ? 1e-2 : dtype == DType::kF16 ? 1e-3 : 0.0;
}

// max |a - b| <= tolerance * max |b|, NaN equals NaN and infinities equal themselves.
inline void expect_close(const Array& a, const std::vector<double>& b, double tolerance, const std::string& what) {
  if (a.size() != static_cast<int64_t>(b.size())) fail(__FILE__, __LINE__, what + ": sizes differ");
  double largest = 0;
  for (double v : b) {
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  }
  for (int64_t i = 0; i < a.size(); ++i) {
    if (std::isnan(b[i]) ? std::isnan(a[i]) : std::isinf(b[i]) ? a[i] == b[i] : std::abs(a[i] - b[i]) <= tolerance * largest) continue;
    fail(__FILE__, __LINE__, what + ": element " + std::to_string(i) + " is " + show(a[i]) + ", not " + show(b[i]));
  }
}
inline void expect_close(const Array& a, const std::vector<double>& b, const std::string& what = "") {
  expect_close(a, b, tolerance_of(a.dtype()), what + " " + std::string(dtype_name(a.dtype())));
}

// Every instruction set of this CPU, with one thread and with three.
template <typename F>
void for_each_machine(F&& f) {
  static ThreadPool one(1), three(3);
  for (Isa isa : available_isas()) {
    f(one, isa);
    f(three, isa);
  }
}

// compute(pool, isa, out...) writes `out`; bits must not depend on the number of threads.
template <typename Compute>
void expect_same_bits_for_any_threads(const Array& like, Compute&& compute) {
  static ThreadPool one(1), two(2), five(5);
  for (Isa isa : available_isas()) {
    Array expected(like.dtype(), like.size()), found(like.dtype(), like.size());
    compute(one, isa, expected);
    for (ThreadPool* pool : {&two, &five}) {
      compute(*pool, isa, found);
      if (!found.same_bits(expected)) fail(__FILE__, __LINE__, "bits differ between 1 and " + std::to_string(pool->threads()) + " threads");
    }
  }
}

}  // namespace mw::testing
