// Included after math.inl and storage.inl inside the namespace of one instruction set.
template <Vec (*Act)(Vec), typename T>
void gated_forward(const void* gate, const void* up, void* y, int64_t count) {
  each_vector(count, [&](int64_t i, int64_t lanes) {
    write(static_cast<T*>(y) + i, Act(read(static_cast<const T*>(gate) + i, lanes)) * read(static_cast<const T*>(up) + i, lanes), lanes);
  });
}
template <Vec (*Act)(Vec), Vec (*Slope)(Vec), typename T>
void gated_backward(const void* gate, const void* up, const void* dy, void* dgate, void* dup, int64_t count) {
  each_vector(count, [&](int64_t i, int64_t lanes) {
    const Vec g = read(static_cast<const T*>(gate) + i, lanes), u = read(static_cast<const T*>(up) + i, lanes),
              d = read(static_cast<const T*>(dy) + i, lanes);
    write(static_cast<T*>(dgate) + i, d * u * Slope(g), lanes);
    write(static_cast<T*>(dup) + i, d * Act(g), lanes);
  });
}

// min and max give their second argument where one is NaN, so NaN passes.
template <typename T>
void clamped_forward(SwigluClamp clamp, const void* gate, const void* up, void* y, int64_t count) {
  const Vec limit = set1(clamp.limit), lowest = set1(-clamp.limit), alpha = set1(clamp.alpha), one = set1(1.0f);
  each_vector(count, [&](int64_t i, int64_t lanes) {
    const Vec g = min(limit, read(static_cast<const T*>(gate) + i, lanes));
    const Vec u = max(lowest, min(limit, read(static_cast<const T*>(up) + i, lanes)));
    write(static_cast<T*>(y) + i, (u + one) * g * sigmoid(alpha * g), lanes);
  });
}
template <typename T>
void clamped_backward(SwigluClamp clamp, const void* gate, const void* up, const void* dy, void* dgate, void* dup, int64_t count) {
  const Vec limit = set1(clamp.limit), lowest = set1(-clamp.limit), alpha = set1(clamp.alpha), one = set1(1.0f);
  each_vector(count, [&](int64_t i, int64_t lanes) {
    const Vec x = read(static_cast<const T*>(gate) + i, lanes), v = read(static_cast<const T*>(up) + i, lanes),
              d = read(static_cast<const T*>(dy) + i, lanes);
    const Vec g = min(limit, x), u = max(lowest, min(limit, v)), s = sigmoid(alpha * g);
    write(static_cast<T*>(dgate) + i, pick(x > limit, zero(), d * (u + one) * s * (one + alpha * g * (one - s))), lanes);
    write(static_cast<T*>(dup) + i, pick((v > limit) | (v < lowest), zero(), d * g * s), lanes);
  });
}

constexpr GatedActivationKernels make_gated_activation_kernels() {
  return {{{gated_forward<silu, F32>, gated_forward<silu, Bf16>},
           {gated_forward<gelu_tanh, F32>, gated_forward<gelu_tanh, Bf16>},
           {gated_forward<gelu_erf, F32>, gated_forward<gelu_erf, Bf16>},
           {gated_forward<relu, F32>, gated_forward<relu, Bf16>}},
          {{gated_backward<silu, silu_slope, F32>, gated_backward<silu, silu_slope, Bf16>},
           {gated_backward<gelu_tanh, gelu_tanh_slope, F32>, gated_backward<gelu_tanh, gelu_tanh_slope, Bf16>},
           {gated_backward<gelu_erf, gelu_erf_slope, F32>, gated_backward<gelu_erf, gelu_erf_slope, Bf16>},
           {gated_backward<relu, relu_slope, F32>, gated_backward<relu, relu_slope, Bf16>}},
          {clamped_forward<F32>, clamped_forward<Bf16>},
          {clamped_backward<F32>, clamped_backward<Bf16>}};
}
