// Included after math.inl and storage.inl inside the namespace of one instruction set.
template <typename T>
void scale_row(const void* x, float weight, int64_t width, void* row) {
  each_vector(width, [&](int64_t i, int64_t lanes) {
    write(static_cast<T*>(row) + i, read(static_cast<const T*>(x) + i, lanes) * set1(weight), lanes);
  });
}

template <typename T>
void sum_of_rows(const void* rows, const int32_t* places, const float* weights, int64_t k, int64_t width, void* y) {
  const T* const from = static_cast<const T*>(rows);
  each_vector(width, [&](int64_t i, int64_t lanes) {
    Vec sum = zero();
    for (int64_t j = 0; j < k; ++j) {
      const Vec x = read(from + places[j] * width + i, lanes);
      sum = weights == nullptr ? sum + x : fma(set1(weights[j]), x, sum);
    }
    write(static_cast<T*>(y) + i, sum, lanes);
  });
}

template <typename T>
float product_of_rows(const void* a, const void* b, int64_t width) {
  Vec sum = zero();
  each_vector(width, [&](int64_t i, int64_t lanes) {
    sum = fma(read(static_cast<const T*>(a) + i, lanes), read(static_cast<const T*>(b) + i, lanes), sum);
  });
  return sum_lanes(sum);
}

constexpr ExpertRowsKernels make_expert_rows_kernels() {
  return {{scale_row<F32>, scale_row<Bf16>}, {sum_of_rows<F32>, sum_of_rows<Bf16>}, {product_of_rows<F32>, product_of_rows<Bf16>}};
}
