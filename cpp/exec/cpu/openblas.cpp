#include "exec/cpu/openblas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

extern "C" char** environ;

namespace mw {
namespace {

// Takes every OPENBLAS_* variable out of the environment for as long as it lives.
class HiddenVariables {
 public:
  HiddenVariables() {
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
      const char* equals = std::strchr(*entry, '=');
      if (equals == nullptr || std::strncmp(*entry, "OPENBLAS_", 9) != 0) continue;
      saved_.emplace_back(std::string(*entry, static_cast<size_t>(equals - *entry)), equals + 1);
    }
    for (const auto& [name, value] : saved_) unsetenv(name.c_str());
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
  }
  ~HiddenVariables() {
    unsetenv("OPENBLAS_NUM_THREADS");
    for (const auto& [name, value] : saved_) setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  std::vector<std::pair<std::string, std::string>> saved_;
};

template <typename Function>
Function symbol(void* library, const char* name) {
  void* found = dlsym(library, (std::string("scipy_") + name).c_str());
  if (found == nullptr) found = dlsym(library, name);
  return reinterpret_cast<Function>(found);
}

const OpenBlas* load() {
  const HiddenVariables hidden;
  // The wheel's library by the path known at build time, then by name (the extension's RPATH leads there), then the system's.
  for (const char* path : {MESHWRIGHT_OPENBLAS_LIBRARY, "libscipy_openblas.so", "libopenblas.so.0"}) {
    if (*path == '\0') continue;
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    static OpenBlas blas;
    blas.sgemm = symbol<decltype(blas.sgemm)>(library, "cblas_sgemm");
    if (blas.sgemm == nullptr) continue;
    blas.path = path;
    if (const auto config = symbol<char* (*)()>(library, "openblas_get_config")) blas.config = config();
    if (const auto core = symbol<char* (*)()>(library, "openblas_get_corename")) blas.config += std::string(", core ") + core();
    if (const auto set_threads = symbol<void (*)(int)>(library, "openblas_set_num_threads")) set_threads(1);
    return &blas;
  }
  return nullptr;
}

}  // namespace

const OpenBlas* find_openblas() {
  static const OpenBlas* const blas = load();
  return blas;
}

void openblas_gemm(const OpenBlas& blas, const Gemm& g, ThreadPool& pool) {
  constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;
  const bool f32 = g.a.type == DType::kF32 && g.b.type == DType::kF32 && g.c.type == DType::kF32;
  MW_CHECK(f32 && (g.a.col == 1 || g.a.row == 1) && (g.b.col == 1 || g.b.row == 1) && g.c.col == 1 && g.batch == 1, "openblas_gemm");
  const int transpose_a = g.a.col == 1 ? kNoTranspose : kTranspose, transpose_b = g.b.col == 1 ? kNoTranspose : kTranspose;
  const int a_row = static_cast<int>(g.a.col == 1 ? g.a.row : g.a.col), b_row = static_cast<int>(g.b.col == 1 ? g.b.row : g.b.col);
  const int64_t rows = (g.m + pool.threads() - 1) / pool.threads();
  pool.run(pool.threads(), [&](int64_t part, int) {
    const int64_t first = part * rows, count = std::min(rows, g.m - first);
    if (count <= 0) return;
    blas.sgemm(kRowMajor, transpose_a, transpose_b, static_cast<int>(count), static_cast<int>(g.n), static_cast<int>(g.k), g.alpha,
               static_cast<const float*>(g.a.data) + first * g.a.row, a_row, static_cast<const float*>(g.b.data), b_row,
               g.accumulate ? 1.0f : 0.0f, static_cast<float*>(g.c.data) + first * g.c.row, static_cast<int>(g.c.row));
  });
}

}  // namespace mw
