// Included after math.inl.
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
    const Vec e = exp(x);
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
      if (t.e_bf16 != nullptr) {
        store(t.e_bf16 + r * t.e_row + lane, e0);
        if (two) store(t.e_bf16 + (r + 1) * t.e_row + lane, e1);
      }
      if (t.e_pairs != nullptr) store_pairs(t.e_pairs + r / 2 * t.pair_row + lane, e0, e1);
    }
    store(t.sum + lane, sum);
    store(t.largest + lane, largest);
  }
}

// f(i, count) for whole vectors, then f(i, rest) for the rest; the body picks load or load_first by count.
template <typename T>
inline Vec load_some(const T* p, int64_t count) {
  return count == kLanes ? load(p) : load_first(p, count);
}
template <typename T>
inline void store_some(T* p, Vec x, int64_t count) {
  count == kLanes ? store(p, x) : store_first(p, x, count);
}
inline int64_t some(int64_t i, int64_t n) { return n - i < kLanes ? n - i : kLanes; }

template <typename X, typename W>
float dot(const void* x, const void* w, int64_t n) {
  Vec sum = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    sum = fma(load_some(static_cast<const X*>(x) + i, some(i, n)), load_some(static_cast<const W*>(w) + i, some(i, n)), sum);
  }
  return sum_lanes(sum);
}

void cap(float* logits, float* slopes, int64_t n, float softcap) {
  const Softcap c(softcap);
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec share = tanh(load_some(logits + i, some(i, n)) * c.inverse);
    store_some(logits + i, share * c.cap, some(i, n));
    store_some(slopes + i, fnma(share, share, set1(1.0f)), some(i, n));
  }
}

template <typename X>
void scale_row(float* y, const void* x, float scale, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes)
    store_some(y + i, mul(set1(scale), load_some(static_cast<const X*>(x) + i, some(i, n))), some(i, n));
}

template <typename X>
void subtract_row(float* y, const void* x, float scale, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = some(i, n);
    store_some(y + i, fnma(set1(scale), load_some(static_cast<const X*>(x) + i, count), load_some(y + i, count)), count);
  }
}

template <typename Y, typename W>
void combine_row(void* y, const float* sum, float factor, const void* w, float scale, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = some(i, n);
    const Vec scaled = mul(set1(factor), load_some(sum + i, count));
    store_some(static_cast<Y*>(y) + i, w == nullptr ? scaled : fnma(set1(scale), load_some(static_cast<const W*>(w) + i, count), scaled),
               count);
  }
}
