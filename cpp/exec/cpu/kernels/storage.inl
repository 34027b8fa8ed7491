// Rows of f32 or bf16 in memory, whole vectors and a tail. Included after vec_*.inl inside the namespace of one instruction set.
// each_vector(n, f) calls f(i, lanes) with lanes = kLanes but for the last.
using F32 = float;
using Bf16 = uint16_t;

template <typename T>
inline Vec read(const T* p, int64_t lanes) {
  return lanes == kLanes ? load(p) : load_first(p, lanes);
}
template <typename T>
inline void write(T* p, Vec x, int64_t lanes) {
  lanes == kLanes ? store(p, x) : store_first(p, x, lanes);
}
template <typename F>
__attribute__((always_inline)) inline void each_vector(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, static_cast<int64_t>(kLanes));
  if (i < n) f(i, n - i);
}
