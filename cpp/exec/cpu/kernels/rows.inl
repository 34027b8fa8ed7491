// Included after math.inl and storage.inl inside the namespace of one instruction set.
template <typename X, typename T>
void sum_rows(const void* data, const int32_t* order, int64_t num, int64_t width, void* table_row, bool accumulate) {
  const X* const x = static_cast<const X*>(data);
  T* const out = static_cast<T*>(table_row);
  each_vector(width, [&](int64_t i, int64_t lanes) {
    Vec sum = accumulate ? read(out + i, lanes) : zero();
    for (int64_t r = 0; r < num; ++r) sum = sum + read(x + order[r] * width + i, lanes);
    write(out + i, sum, lanes);
  });
}

inline float as_float(float x) { return x; }
inline float as_float(uint16_t x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }
inline bool comes_before(float a, float b) { return a > b || (a != a && b == b); }

// Keeps the best k found so far in order; whole vectors that hold nothing better than the last of them are passed over.
template <typename T>
void top_k_row(const void* data, int64_t n, int64_t k, void* values, int32_t* indices) {
  const T* const x = static_cast<const T*>(data);
  int64_t found = 0;
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    const int64_t end = begin + kLanes < n ? begin + kLanes : n;
    if (found == k && end - begin == kLanes) {
      const float last = as_float(x[indices[k - 1]]);
      const Vec v = load(x + begin);
      const Lanes32 better = (v > set1(last)) | (v != v);
      if (max_lanes(pick(better, set1(1.0f), zero())) == 0.0f) continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      const float value = as_float(x[i]);
      if (found == k && !comes_before(value, as_float(x[indices[k - 1]]))) continue;
      int64_t place = found < k ? found++ : k - 1;
      for (; place > 0 && comes_before(value, as_float(x[indices[place - 1]])); --place) indices[place] = indices[place - 1];
      indices[place] = static_cast<int32_t>(i);
    }
  }
  if (values == nullptr) return;
  for (int64_t i = 0; i < k; ++i) static_cast<T*>(values)[i] = x[indices[i]];
}

constexpr RowsKernels make_rows_kernels() {
  return {{{sum_rows<F32, F32>, sum_rows<F32, Bf16>}, {sum_rows<Bf16, F32>, sum_rows<Bf16, Bf16>}}, {top_k_row<F32>, top_k_row<Bf16>}};
}
