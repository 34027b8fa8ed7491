// Included after vec_*.inl: y = (accumulate ? y : 0) + alpha * x, stored as f32 or bf16.
template <typename T>
void store_row(T* y, const float* x, int64_t n, float alpha, bool accumulate) {
  const Vec scale = set1(alpha);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec value = load(x + i);
    store(y + i, accumulate ? fma(value, scale, load(y + i)) : mul(value, scale));
  }
  if (i == n) return;
  const Vec value = load_first(x + i, n - i);
  store_first(y + i, accumulate ? fma(value, scale, load_first(y + i, n - i)) : mul(value, scale), n - i);
}
