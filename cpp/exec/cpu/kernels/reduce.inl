// Included after math.inl and storage.inl inside the namespace of one instruction set.
inline Vec read(const int32_t* p, int64_t lanes) { return to_floats((Lanes32)(lanes == kLanes ? load(p) : load_first(p, lanes))); }
inline Vec read(const uint8_t* p, int64_t lanes) {
  uint8_t part[16] = {};
  if (lanes == kLanes && kLanes == 16) return to_floats(load_u8(p));
  for (int64_t i = 0; i < lanes; ++i) part[i] = p[i];
  return to_floats(load_u8(part));
}

struct Sum {
  static constexpr float kStart = 0.0f;
  static Vec join(Vec a, Vec b) { return a + b; }
  static double join(double a, double b) { return a + b; }
  static Doubles join(Doubles a, Doubles b) { return a + b; }
};
struct Max {
  static constexpr float kStart = -__builtin_inff();
  static Vec join(Vec a, Vec b) { return pick((a > b) | (a != a), a, b); }
  static double join(double a, double b) { return a > b || a != a ? a : b; }
  static Doubles join(Doubles a, Doubles b) { return (a > b) | (a != a) ? a : b; }
};
struct Min {
  static constexpr float kStart = __builtin_inff();
  static Vec join(Vec a, Vec b) { return pick((a < b) | (a != a), a, b); }
  static double join(double a, double b) { return a < b || a != a ? a : b; }
  static Doubles join(Doubles a, Doubles b) { return (a < b) | (a != a) ? a : b; }
};

template <typename Op>
inline double join_lanes(Vec x) {
  double lanes[kLanes / 2];
  const Doubles pairs = Op::join(low_doubles(x), high_doubles(x));
  __builtin_memcpy(lanes, &pairs, sizeof pairs);
  for (int half = kLanes / 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = Op::join(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

constexpr int64_t kShort = 16;  // terms added in f32

template <typename Op, typename T>
double reduce_run(const void* data, int64_t stride, int64_t count) {
  const T* const x = static_cast<const T*>(data);
  double total = Op::kStart;
  int64_t i = 0;
  T part[4 * kLanes] = {};
  for (; i + 4 * kLanes <= count;) {
    Vec a = set1(Op::kStart), b = a, c = a, d = a;
    for (int64_t step = 0; step < kShort && i + 4 * kLanes <= count; ++step, i += 4 * kLanes) {
      const T* p = x + i;
      if (stride != 1) {
        for (int64_t j = 0; j < 4 * kLanes; ++j) part[j] = x[(i + j) * stride];
        p = part;
      }
      a = Op::join(a, read(p, kLanes));
      b = Op::join(b, read(p + kLanes, kLanes));
      c = Op::join(c, read(p + 2 * kLanes, kLanes));
      d = Op::join(d, read(p + 3 * kLanes, kLanes));
    }
    total = Op::join(total, join_lanes<Op>(Op::join(Op::join(a, b), Op::join(c, d))));
  }
  Vec rest = set1(Op::kStart);
  for (int64_t some = kLanes; i < count; i += some) {
    if (count - i < kLanes) some = count - i;
    const T* p = x + i;
    if (stride != 1) {
      for (int64_t j = 0; j < some; ++j) part[j] = x[(i + j) * stride];
      p = part;
    }
    const Vec values = read(p, some);
    if (some == kLanes) {
      rest = Op::join(rest, values);
    } else {
      float lanes[kLanes];
      store(lanes, values);
      for (int64_t lane = 0; lane < some; ++lane) total = Op::join(total, static_cast<double>(lanes[lane]));
    }
  }
  total = Op::join(total, join_lanes<Op>(rest));
  return total;
}

template <typename Op, typename T>
void reduce_columns(const void* data, int64_t row_stride, int64_t rows, int64_t columns, double* totals) {
  const T* const x = static_cast<const T*>(data);
  for (int64_t begin = 0; begin < rows; begin += kShort) {
    const int64_t end = begin + kShort < rows ? begin + kShort : rows;
    each_vector(columns, [&](int64_t j, int64_t lanes) {
      Vec sum = set1(Op::kStart);
      for (int64_t i = begin; i < end; ++i) sum = Op::join(sum, read(x + i * row_stride + j, lanes));
      if (lanes == kLanes) {
        Doubles pair[2];
        __builtin_memcpy(pair, totals + j, sizeof pair);
        pair[0] = Op::join(pair[0], low_doubles(sum));
        pair[1] = Op::join(pair[1], high_doubles(sum));
        __builtin_memcpy(totals + j, pair, sizeof pair);
        return;
      }
      float part[kLanes];
      store(part, sum);
      for (int64_t lane = 0; lane < lanes; ++lane) totals[j + lane] = Op::join(totals[j + lane], static_cast<double>(part[lane]));
    });
  }
}

constexpr ReduceKernels make_reduce_kernels() {
  return {{{reduce_run<Sum, F32>, reduce_run<Sum, Bf16>, reduce_run<Sum, int32_t>, reduce_run<Sum, uint8_t>},
           {reduce_run<Max, F32>, reduce_run<Max, Bf16>, reduce_run<Max, int32_t>, reduce_run<Max, uint8_t>},
           {reduce_run<Min, F32>, reduce_run<Min, Bf16>, reduce_run<Min, int32_t>, reduce_run<Min, uint8_t>}},
          {{reduce_columns<Sum, F32>, reduce_columns<Sum, Bf16>, reduce_columns<Sum, int32_t>, reduce_columns<Sum, uint8_t>},
           {reduce_columns<Max, F32>, reduce_columns<Max, Bf16>, reduce_columns<Max, int32_t>, reduce_columns<Max, uint8_t>},
           {reduce_columns<Min, F32>, reduce_columns<Min, Bf16>, reduce_columns<Min, int32_t>, reduce_columns<Min, uint8_t>}}};
}
