// Included after vec_*.inl and storage.inl inside the namespace of one instruction set.
template <typename T>
inline T* row_at(T* base, const RowPlaces& places, int64_t row, int64_t n) {
  if (places.outer == 0) return base + row * n;
  return base + row / places.inner_rows * places.outer + row % places.inner_rows * places.inner;
}

template <typename T>
inline float mean_of(const T* x, int64_t n) {
  Vec sum = zero();
  each_vector(n, [&](int64_t i, int64_t lanes) { sum = sum + read(x + i, lanes); });
  return sum_lanes(sum) / static_cast<float>(n);
}

// mean of (x - center)^2
template <typename T>
inline float mean_square(const T* x, int64_t n, float center) {
  Vec sum = zero(), sum2 = zero();
  int64_t i = 0;
  const Vec c = set1(center);
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Vec a = load(x + i) - c, b = load(x + i + kLanes) - c;
    sum = fma(a, a, sum), sum2 = fma(b, b, sum2);
  }
  for (; i + kLanes <= n; i += kLanes) {
    const Vec a = load(x + i) - c;
    sum = fma(a, a, sum);
  }
  float tail = 0;
  for (; i < n; ++i) {
    float lanes[kLanes];
    store(lanes, load_first(x + i, 1));
    tail += (lanes[0] - center) * (lanes[0] - center);
  }
  return (sum_lanes(sum + sum2) + tail) / static_cast<float>(n);
}

inline float inverse_root(float x) { return 1.0f / __builtin_sqrtf(x); }

// x rounded to the dtype of T
template <typename T>
inline Vec rounded(Vec x) {
  if constexpr (sizeof(T) == 2)
    return widen(narrow(x));
  else
    return x;
}

// Stands for the dtype of a weight that is not there.
struct NoWeight {};
inline Vec weight_at(const NoWeight*, int64_t, int64_t) { return set1(1.0f); }
template <typename W>
inline Vec weight_at(const W* w, int64_t i, int64_t lanes) {
  return read(w + i, lanes);
}

template <typename X, typename W>
void rms_forward(const NormCall& call, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(call.weight);
  for (int64_t row = begin; row < end; ++row) {
    const X* x = row_at(static_cast<const X*>(call.x), call.x_places, row, call.n);
    X* y = row_at(static_cast<X*>(call.y), call.y_places, row, call.n);
    const Vec scale = set1(inverse_root(mean_square(x, call.n, 0.0f) + call.eps));
    if (call.offset_one) {
      each_vector(call.n, [&](int64_t i, int64_t lanes) {
        write(y + i, read(x + i, lanes) * scale * (set1(1.0f) + weight_at(w, i, lanes)), lanes);
      });
    } else {
      each_vector(call.n,
                  [&](int64_t i, int64_t lanes) { write(y + i, rounded<X>(read(x + i, lanes) * scale) * weight_at(w, i, lanes), lanes); });
    }
  }
}

template <typename X, typename W>
void layer_forward(const NormCall& call, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(call.weight);
  const W* b = static_cast<const W*>(call.bias);
  for (int64_t row = begin; row < end; ++row) {
    const X* x = row_at(static_cast<const X*>(call.x), call.x_places, row, call.n);
    X* y = row_at(static_cast<X*>(call.y), call.y_places, row, call.n);
    const float mean = mean_of(x, call.n);
    const Vec center = set1(mean), scale = set1(inverse_root(mean_square(x, call.n, mean) + call.eps));
    each_vector(call.n, [&](int64_t i, int64_t lanes) {
      const Vec scaled = (read(x + i, lanes) - center) * scale * read(w + i, lanes);
      write(y + i, b == nullptr ? scaled : scaled + read(b + i, lanes), lanes);
    });
  }
}

// With h = (x - mean) * r and g = dy * w: dx = r * (g - mean(g) - h * mean(g * h)); dw = sum dy * h; db = sum dy. RMS: mean = 0 and
// the mean(g) term is absent.
template <bool kCentered, typename X, typename W>
void norm_backward(const NormGradientCall& call, int64_t begin, int64_t end, float* dw, float* db) {
  const W* w = static_cast<const W*>(call.weight);
  const Vec offset = set1(call.offset_one ? 1.0f : 0.0f);
  for (int64_t i = 0; i < call.n; ++i) {
    if (dw != nullptr) dw[i] = 0.0f;
    if (db != nullptr) db[i] = 0.0f;
  }
  for (int64_t row = begin; row < end; ++row) {
    const X* x = row_at(static_cast<const X*>(call.x), call.x_places, row, call.n);
    const X* dy = row_at(static_cast<const X*>(call.dy), call.dy_places, row, call.n);
    X* dx = row_at(static_cast<X*>(call.dx), call.dx_places, row, call.n);
    const float mean = kCentered ? mean_of(x, call.n) : 0.0f;
    const Vec center = set1(mean), scale = set1(inverse_root(mean_square(x, call.n, mean) + call.eps));
    Vec sum_g = zero(), sum_gh = zero();
    each_vector(call.n, [&](int64_t i, int64_t lanes) {
      const Vec d = read(dy + i, lanes), h = (read(x + i, lanes) - center) * scale, g = d * (weight_at(w, i, lanes) + offset);
      sum_g = sum_g + g;
      sum_gh = fma(g, h, sum_gh);  // lanes behind the row: d and so g are 0
      if (dw != nullptr) write(dw + i, fma(d, h, read(dw + i, lanes)), lanes);
      if (kCentered && db != nullptr) write(db + i, read(db + i, lanes) + d, lanes);
    });
    const float count = static_cast<float>(call.n);
    const Vec mean_g = set1(kCentered ? sum_lanes(sum_g) / count : 0.0f), mean_gh = set1(sum_lanes(sum_gh) / count);
    each_vector(call.n, [&](int64_t i, int64_t lanes) {
      const Vec h = (read(x + i, lanes) - center) * scale, g = read(dy + i, lanes) * (weight_at(w, i, lanes) + offset);
      write(dx + i, scale * (g - mean_g - h * mean_gh), lanes);
    });
  }
}

template <typename T>
void add_partials_to(T* out, const float* partials, int64_t count, int64_t stride, int64_t n, bool accumulate) {
  each_vector(n, [&](int64_t i, int64_t lanes) {
    Vec sum = read(partials + i, lanes);
    for (int64_t p = 1; p < count; ++p) sum = sum + read(partials + p * stride + i, lanes);
    write(out + i, accumulate ? read(out + i, lanes) + sum : sum, lanes);
  });
}
void add_partials(void* out, DType dtype, const float* partials, int64_t count, int64_t stride, int64_t n, bool accumulate) {
  if (dtype == DType::kF32)
    add_partials_to(static_cast<F32*>(out), partials, count, stride, n, accumulate);
  else
    add_partials_to(static_cast<Bf16*>(out), partials, count, stride, n, accumulate);
}

constexpr NormKernels make_norm_kernels() {
  return {.rms = {{rms_forward<F32, F32>, rms_forward<F32, Bf16>, rms_forward<F32, NoWeight>},
                  {rms_forward<Bf16, F32>, rms_forward<Bf16, Bf16>, rms_forward<Bf16, NoWeight>}},
          .layer = {{layer_forward<F32, F32>, layer_forward<F32, Bf16>}, {layer_forward<Bf16, F32>, layer_forward<Bf16, Bf16>}},
          .rms_backward = {{norm_backward<false, F32, F32>, norm_backward<false, F32, Bf16>, norm_backward<false, F32, NoWeight>},
                           {norm_backward<false, Bf16, F32>, norm_backward<false, Bf16, Bf16>, norm_backward<false, Bf16, NoWeight>}},
          .layer_backward = {{norm_backward<true, F32, F32>, norm_backward<true, F32, Bf16>},
                             {norm_backward<true, Bf16, F32>, norm_backward<true, Bf16, Bf16>}},
          .add_partials = add_partials};
}
