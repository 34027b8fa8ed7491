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
constexpr GatedActivationKernels make_gated_activation_kernels() {
  return {{{gated_forward<silu, F32>, gated_forward<silu, Bf16>},
           {gated_forward<gelu_tanh, F32>, gated_forward<gelu_tanh, Bf16>},
           {gated_forward<gelu_erf, F32>, gated_forward<gelu_erf, Bf16>},
           {gated_forward<relu, F32>, gated_forward<relu, Bf16>}},
          {{gated_backward<silu, silu_slope, F32>, gated_backward<silu, silu_slope, Bf16>},
           {gated_backward<gelu_tanh, gelu_tanh_slope, F32>, gated_backward<gelu_tanh, gelu_tanh_slope, Bf16>},
           {gated_backward<gelu_erf, gelu_erf_slope, F32>, gated_backward<gelu_erf, gelu_erf_slope, Bf16>},
           {gated_backward<relu, relu_slope, F32>, gated_backward<relu, relu_slope, Bf16>}}};
}
