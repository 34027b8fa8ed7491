// Included after math.inl and storage.inl inside the namespace of one instruction set.
void table_row(int32_t position, const float* inv_freq, int64_t pairs, float factor, float* cosines, float* sines) {
  each_vector(pairs, [&](int64_t i, int64_t lanes) {
    const Vec angle = set1(static_cast<float>(position)) * read(inv_freq + i, lanes);
    const SineCosine low = sine_cosine(low_doubles(angle)), high = sine_cosine(high_doubles(angle));
    write(cosines + i, set1(factor) * to_floats(low.cosine, high.cosine), lanes);
    write(sines + i, set1(factor) * to_floats(low.sine, high.sine), lanes);
  });
}

template <typename T>
inline float element(const T* p) {
  if constexpr (sizeof(T) == 4)
    return *p;
  else
    return __builtin_bit_cast(float, static_cast<uint32_t>(*p) << 16);
}
inline void set_element(float* p, float x) { *p = x; }
inline void set_element(uint16_t* p, float x) { store_first(p, set1(x), 1); }

template <typename T>
inline void rotate_half(const T* x, T* y, const float* cosines, const float* sines, int64_t pairs, Vec sign) {
  each_vector(pairs, [&](int64_t i, int64_t lanes) {
    const Vec c = read(cosines + i, lanes), s = sign * read(sines + i, lanes), a = read(x + i, lanes), b = read(x + pairs + i, lanes);
    write(y + i, a * c - b * s, lanes);
    write(y + pairs + i, b * c + a * s, lanes);
  });
}
template <typename T>
inline void rotate_neighbours(const T* x, T* y, const float* cosines, const float* sines, int64_t pairs, float sign) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = element(x + 2 * i), b = element(x + 2 * i + 1), c = cosines[i], s = sign * sines[i];
    set_element(y + 2 * i, a * c - b * s);
    set_element(y + 2 * i + 1, b * c + a * s);
  }
}

template <typename T>
void rope_rows(const RopeCall& call, int64_t begin, int64_t end) {
  const int64_t pairs = call.rotary / 2, dense = call.heads * call.head_dim;
  const float sign = call.inverse ? -1.0f : 1.0f;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(call.x) + row * (call.x_row != 0 ? call.x_row : dense);
    T* y = static_cast<T*>(call.y) + row * (call.y_row != 0 ? call.y_row : dense);
    const float* cosines = call.table + row * 2 * pairs;
    for (int64_t head = 0; head < call.heads; ++head, x += call.head_dim, y += call.head_dim) {
      if (call.interleaved)
        rotate_neighbours(x, y, cosines, cosines + pairs, pairs, sign);
      else
        rotate_half(x, y, cosines, cosines + pairs, pairs, set1(sign));
      if (x != y) {
        for (int64_t i = call.rotary; i < call.head_dim; ++i) y[i] = x[i];
      }
    }
  }
}
constexpr RopeKernels make_rope_kernels() { return {table_row, {rope_rows<F32>, rope_rows<Bf16>}}; }
