// What the tests of CPU kernels share: random tensors of either dtype, a workspace, and the comparison by largest element.
#pragma once
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "exec/cpu/isa.h"
#include "runner.h"

namespace mw::testing {

// A tensor with its elements as stored and as doubles of the stored values.
struct Tensor {
  DType type;
  std::vector<double> values;
  std::vector<char> bytes;

  Tensor(DType t, int64_t size) : type(t), values(size), bytes(size * dtype_bytes(t)) {}
  // Numbers in [-scale, scale) from a small generator of our own.
  static Tensor random(DType type, int64_t size, uint64_t seed, double scale = 1.0) {
    Tensor t(type, size);
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int64_t i = 0; i < size; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      store_element(type, t.bytes.data(), i, scale * (static_cast<double>(state >> 40) / (1 << 23) - 1.0));
      t.values[i] = load_element(type, t.bytes.data(), i);
    }
    return t;
  }
  void* data() { return bytes.data(); }
  const void* data() const { return bytes.data(); }
  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
  std::vector<double> loaded() const {
    std::vector<double> all(values.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = load_element(type, bytes.data(), static_cast<int64_t>(i));
    return all;
  }
};

// Exactly `bytes` bytes, aligned to 64, filled with NaN patterns so that a kernel which reads what nobody wrote shows it.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) : data_(static_cast<char*>(::operator new(bytes + 1, std::align_val_t(64)))) {
    std::fill_n(data_.get(), bytes, '\xff');
  }
  void* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<char, Free> data_;
};

// Fails unless max|a - b| <= tolerance * max|b|; infinities must be equal.
inline void expect_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance, const std::string& what) {
  double largest = 0;
  for (double x : b) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  if (a.size() != b.size()) fail(__FILE__, __LINE__, what + ": sizes differ");
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = a[i] == b[i] || std::abs(a[i] - b[i]) <= tolerance * largest;
    if (!same) {
      fail(__FILE__, __LINE__, concat_text(what, ": element ", i, " is ", a[i], ", expected ", b[i], " (largest ", largest, ")"));
    }
  }
}

inline double tolerance_of(DType type) { return type == DType::kF32 ? 1e-5 : 1e-2; }

}  // namespace mw::testing
