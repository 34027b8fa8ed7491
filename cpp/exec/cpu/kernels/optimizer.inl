// Included after math.inl and storage.inl inside the namespace of one instruction set.
template <typename G>
void adamw_range(const AdamWCall& call, int64_t begin, int64_t end) {
  const float scale = call.gradient_scale != nullptr ? *call.gradient_scale : 1.0f;
  const Vec decay = set1(1.0f - *call.lr * call.weight_decay), step = set1(*call.lr / *call.correction1);
  const Vec over_root = set1(1.0f / __builtin_sqrtf(*call.correction2)), eps = set1(call.eps), g_scale = set1(scale);
  const Vec rest1 = set1(1.0f - call.beta1), beta2 = set1(call.beta2), rest2 = set1(1.0f - call.beta2);
  const float* const w = call.weight + begin;
  const float* const m = call.first_moment + begin;
  const float* const v = call.second_moment + begin;
  const G* const g = static_cast<const G*>(call.gradient) + begin;
  float* const w_out = (call.new_weight != nullptr ? call.new_weight : const_cast<float*>(call.weight)) + begin;
  float* const m_out = (call.new_first_moment != nullptr ? call.new_first_moment : const_cast<float*>(call.first_moment)) + begin;
  float* const v_out = (call.new_second_moment != nullptr ? call.new_second_moment : const_cast<float*>(call.second_moment)) + begin;
  uint16_t* const copy = call.copy != nullptr ? call.copy + begin : nullptr;
  each_vector(end - begin, [&](int64_t i, int64_t lanes) {
    const Vec gradient = read(g + i, lanes) * g_scale;
    const Vec old_m = read(m + i, lanes);
    const Vec new_m = fma(rest1, gradient - old_m, old_m);
    const Vec new_v = fma(rest2 * gradient, gradient, beta2 * read(v + i, lanes));
    const Vec new_w = fnma(step, new_m / (fma(square_root(new_v), over_root, eps)), read(w + i, lanes) * decay);
    write(m_out + i, new_m, lanes);
    write(v_out + i, new_v, lanes);
    write(w_out + i, new_w, lanes);
    if (copy != nullptr) write(copy + i, new_w, lanes);
  });
}

template <typename G>
void sgd_range(const SgdCall& call, int64_t begin, int64_t end) {
  const Vec scale = set1(call.gradient_scale != nullptr ? *call.gradient_scale : 1.0f);
  const Vec lr = set1(*call.lr), momentum = set1(call.momentum), decay = set1(call.weight_decay);
  const float* const w = call.weight + begin;
  const G* const g = static_cast<const G*>(call.gradient) + begin;
  const float* const buffer = call.buffer != nullptr ? call.buffer + begin : nullptr;
  float* const w_out = (call.new_weight != nullptr ? call.new_weight : const_cast<float*>(call.weight)) + begin;
  float* const buffer_out =
      buffer == nullptr ? nullptr : (call.new_buffer != nullptr ? call.new_buffer : const_cast<float*>(call.buffer)) + begin;
  uint16_t* const copy = call.copy != nullptr ? call.copy + begin : nullptr;
  each_vector(end - begin, [&](int64_t i, int64_t lanes) {
    const Vec old_w = read(w + i, lanes);
    Vec step = fma(decay, old_w, read(g + i, lanes) * scale);
    if (buffer != nullptr) {
      step = fma(momentum, read(buffer + i, lanes), step);
      write(buffer_out + i, step, lanes);
    }
    const Vec new_w = fnma(lr, step, old_w);
    write(w_out + i, new_w, lanes);
    if (copy != nullptr) write(copy + i, new_w, lanes);
  });
}

template <typename T>
double sum_of_squares_range(const void* data, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(data) + begin;
  Doubles low = set1_double(0.0), high = low;
  each_vector(end - begin, [&](int64_t i, int64_t lanes) {
    const Vec v = read(x + i, lanes);
    const Doubles a = low_doubles(v), b = high_doubles(v);
    low = low + a * a;
    high = high + b * b;
  });
  const Doubles both = low + high;
  double sum = 0;
  for (int lane = 0; lane < kLanes / 2; ++lane) sum += both[lane];
  return sum;
}

constexpr OptimizerKernels make_optimizer_kernels() {
  return {
      {adamw_range<F32>, adamw_range<Bf16>}, {sgd_range<F32>, sgd_range<Bf16>}, {sum_of_squares_range<F32>, sum_of_squares_range<Bf16>}};
}
