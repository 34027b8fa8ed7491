// Included after math.inl and storage.inl.
// Softcap c: t = tanh(z / c) gives the logit c t and its slope 1 - t^2.
struct Softcap {
  Vec cap, inverse;
  explicit Softcap(float softcap) : cap(set1(softcap)), inverse(set1(1.0f / softcap)) {}
};

template <bool kCapped>
void exp_tile(const ExpTile& t) {
  const Softcap softcap(kCapped ? t.softcap : 1.0f);
  // e of one vector of logits; its part of the sum and the maximum; what is kept for the gradients.
  const auto step = [&](const float* logits, Vec reference, Vec& sum, Vec& largest) __attribute__((always_inline)) {
    Vec x = load(logits), slope = zero();
    if constexpr (kCapped) {
      const Vec share = tanh(x * softcap.inverse);
      x = share * softcap.cap;
      slope = fnma(share, share, set1(1.0f));
    }
    x = sub(x, reference);
    const Vec e = exp2(mul(x, set1(kLog2E)));
    sum = add(sum, e);
    largest = max(x, largest);
    return kCapped ? mul(e, slope) : e;
  };
  for (int lane = 0; lane < t.lanes; lane += kLanes) {
    const Vec reference = load(t.reference + lane);
    Vec sum = load(t.sum + lane), largest = load(t.largest + lane);
    for (int r = 0; r < t.rows; r += 2) {
      const bool two = r + 1 < t.rows;
      const Vec e0 = step(t.logits + r * 48 + lane, reference, sum, largest);
      Vec e1 = zero();
      if (two) e1 = step(t.logits + (r + 1) * 48 + lane, reference, sum, largest);
      if (t.e_f32 != nullptr) {
        store(t.e_f32 + r * t.e_row + lane, e0);
        if (two) store(t.e_f32 + (r + 1) * t.e_row + lane, e1);
      }
      if (t.near_f32 != nullptr) {
        store(t.near_f32 + r * t.near_row + lane, e0);
        if (two) store(t.near_f32 + (r + 1) * t.near_row + lane, e1);
      }
      if (t.e_bf16 != nullptr) {
        uint16_t* const row = t.e_bf16 + r * t.e_row + lane;
        two ? store_both(row, row + t.e_row, e0, e1) : store(row, e0);
      }
      if (t.e_pairs != nullptr) store_pairs(t.e_pairs + r / 2 * t.near_row + lane, e0, e1);
    }
    store(t.sum + lane, sum);
    store(t.largest + lane, largest);
  }
}

template <typename X, typename W>
float dot(const void* x, const void* w, int64_t n) {
  Vec sum = zero();
  each_vector(n, [&](int64_t i, int64_t lanes) {
    sum = fma(read(static_cast<const X*>(x) + i, lanes), read(static_cast<const W*>(w) + i, lanes), sum);
  });
  return sum_lanes(sum);
}

void cap(float* logits, float* slopes, int64_t n, float softcap) {
  const Softcap c(softcap);
  each_vector(n, [&](int64_t i, int64_t lanes) {
    const Vec share = tanh(read(logits + i, lanes) * c.inverse);
    write(logits + i, share * c.cap, lanes);
    write(slopes + i, fnma(share, share, set1(1.0f)), lanes);
  });
}

template <typename X>
void scale_row(float* y, const void* x, float scale, int64_t n) {
  each_vector(n, [&](int64_t i, int64_t lanes) { write(y + i, mul(set1(scale), read(static_cast<const X*>(x) + i, lanes)), lanes); });
}

template <typename X>
void subtract_row(float* y, const void* x, float scale, int64_t n) {
  each_vector(n, [&](int64_t i, int64_t lanes) {
    write(y + i, fnma(set1(scale), read(static_cast<const X*>(x) + i, lanes), read(y + i, lanes)), lanes);
  });
}

template <typename Y, typename W>
void combine_row(void* y, const float* sum, float factor, const void* w, float scale, int64_t n) {
  each_vector(n, [&](int64_t i, int64_t lanes) {
    const Vec scaled = mul(set1(factor), read(sum + i, lanes));
    write(static_cast<Y*>(y) + i, w == nullptr ? scaled : fnma(set1(scale), read(static_cast<const W*>(w) + i, lanes), scaled), lanes);
  });
}
