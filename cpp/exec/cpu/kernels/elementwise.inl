// Included after math.inl inside the namespace of one instruction set.
template <Vec (*F)(Vec)>
void unary(void* result, const void* a, const void*, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(static_cast<float*>(result) + i, F(load(static_cast<const float*>(a) + i)));
}
template <Vec (*F)(Vec, Vec)>
void binary(void* result, const void* a, const void* b, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store(static_cast<float*>(result) + i, F(load(static_cast<const float*>(a) + i), load(static_cast<const float*>(b) + i)));
  }
}
template <Lanes32 (*F)(Vec, Vec)>
void compare(void* result, const void* a, const void* b, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_lanes32(static_cast<int32_t*>(result) + i, F(load(static_cast<const float*>(a) + i), load(static_cast<const float*>(b) + i)) & 1);
  }
}
template <Lanes32 (*F)(Lanes32)>
void unary_integer(void* result, const void* a, const void*, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_lanes32(static_cast<int32_t*>(result) + i, F(load_lanes32(static_cast<const int32_t*>(a) + i)));
}
template <Lanes32 (*F)(Lanes32, Lanes32)>
void binary_integer(void* result, const void* a, const void* b, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_lanes32(static_cast<int32_t*>(result) + i,
                  F(load_lanes32(static_cast<const int32_t*>(a) + i), load_lanes32(static_cast<const int32_t*>(b) + i)));
  }
}
void select_lanes(void* result, const void* a, const void* b, const void* c, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Lanes32 condition = load_lanes32(static_cast<const int32_t*>(a) + i) != 0;
    store_lanes32(static_cast<int32_t*>(result) + i,
                  condition ? load_lanes32(static_cast<const int32_t*>(b) + i) : load_lanes32(static_cast<const int32_t*>(c) + i));
  }
}
void power(void* result, const void* a, const void* b, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    float x[kLanes], y[kLanes];
    store(x, load(static_cast<const float*>(a) + i));
    store(y, load(static_cast<const float*>(b) + i));
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = ::powf(x[lane], y[lane]);
    store(static_cast<float*>(result) + i, load(x));
  }
}
// Beyond 2^45 the reduction runs out of bits: libm.
template <Vec (*F)(Vec), float (*Exact)(float)>
void periodic(void* result, const void* a, const void*, const void*, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = load(static_cast<const float*>(a) + i);
    float y[kLanes];
    store(y, F(x));
    if (!(max_lanes(magnitude(x)) < 0x1p45f)) {
      float lanes[kLanes];
      store(lanes, x);
      for (int lane = 0; lane < kLanes; ++lane) y[lane] = Exact(lanes[lane]);
    }
    store(static_cast<float*>(result) + i, load(y));
  }
}
float exact_sin(float x) { return ::sinf(x); }
float exact_cos(float x) { return ::cosf(x); }

inline Vec copy_of(Vec x) { return x; }
inline Vec negated(Vec x) { return from_bits(bits_of(x) ^ splat32(static_cast<int32_t>(0x80000000))); }
inline Vec inverse_root(Vec x) { return set1(1.0f) / square_root(x); }
inline Vec square(Vec x) { return x * x; }
inline Vec round_bf16(Vec x) { return widen(narrow(x)); }
inline Vec round_f16(Vec x) {
  uint16_t half[kLanes];
  store_f16(half, x);
  return load_f16(half);
}
inline Vec sum_of(Vec a, Vec b) { return a + b; }
inline Vec difference(Vec a, Vec b) { return a - b; }
inline Vec product(Vec a, Vec b) { return a * b; }
inline Vec quotient(Vec a, Vec b) { return a / b; }
inline Vec larger(Vec a, Vec b) { return pick((a > b) | (a != a), a, b); }
inline Vec smaller(Vec a, Vec b) { return pick((a < b) | (a != a), a, b); }
inline Lanes32 equal_floats(Vec a, Vec b) { return a == b; }
inline Lanes32 unequal_floats(Vec a, Vec b) { return a != b; }
inline Lanes32 less_floats(Vec a, Vec b) { return a < b; }
inline Lanes32 less_equal_floats(Vec a, Vec b) { return a <= b; }
inline Lanes32 greater_floats(Vec a, Vec b) { return a > b; }
inline Lanes32 greater_equal_floats(Vec a, Vec b) { return a >= b; }
inline Lanes32 logical_not(Lanes32 x) { return (x == 0) & 1; }
inline Lanes32 wrapping_negative(Lanes32 x) { return ~x + 1; }
inline Lanes32 absolute(Lanes32 x) { return x < 0 ? wrapping_negative(x) : x; }
inline Lanes32 low_byte(Lanes32 x) { return x & 0xff; }
inline Lanes32 logical_and(Lanes32 a, Lanes32 b) { return (a != 0) & (b != 0) & 1; }
inline Lanes32 logical_or(Lanes32 a, Lanes32 b) { return ((a | b) != 0) & 1; }
inline Lanes32 sum_i32(Lanes32 a, Lanes32 b) { return a + b; }
inline Lanes32 difference_i32(Lanes32 a, Lanes32 b) { return a - b; }
inline Lanes32 product_i32(Lanes32 a, Lanes32 b) { return a * b; }
inline Lanes32 larger_i32(Lanes32 a, Lanes32 b) { return a > b ? a : b; }
inline Lanes32 smaller_i32(Lanes32 a, Lanes32 b) { return a < b ? a : b; }
inline Lanes32 equal_i32(Lanes32 a, Lanes32 b) { return (a == b) & 1; }
inline Lanes32 unequal_i32(Lanes32 a, Lanes32 b) { return (a != b) & 1; }
inline Lanes32 less_i32(Lanes32 a, Lanes32 b) { return (a < b) & 1; }
inline Lanes32 less_equal_i32(Lanes32 a, Lanes32 b) { return (a <= b) & 1; }
inline Lanes32 greater_i32(Lanes32 a, Lanes32 b) { return (a > b) & 1; }
inline Lanes32 greater_equal_i32(Lanes32 a, Lanes32 b) { return (a >= b) & 1; }
inline Lanes32 is_finite(Lanes32 bits) { return ((bits & 0x7f800000) != 0x7f800000) & 1; }
inline Lanes32 integers_as_floats(Lanes32 x) { return bits_of(to_floats(x)); }
inline Lanes32 floats_as_integers(Lanes32 x) { return truncate(from_bits(x)); }

// Element kinds: how kLanes of them become one vector of 32-bit lanes, and back.
struct F32Elements {
  using Element = float;
  static Lanes32 get(const float* p) { return bits_of(load(p)); }
  static void put(float* p, Lanes32 x) { store(p, from_bits(x)); }
};
struct Bf16Elements {
  using Element = uint16_t;
  static Lanes32 get(const uint16_t* p) { return bits_of(load(p)); }
  static void put(uint16_t* p, Lanes32 x) { store(p, from_bits(x)); }
};
struct F16Elements {
  using Element = uint16_t;
  static Lanes32 get(const uint16_t* p) { return bits_of(load_f16(p)); }
  static void put(uint16_t* p, Lanes32 x) { store_f16(p, from_bits(x)); }
};
struct I32Elements {
  using Element = int32_t;
  static Lanes32 get(const int32_t* p) { return load_lanes32(p); }
  static void put(int32_t* p, Lanes32 x) { store_lanes32(p, x); }
};
struct U8Elements {
  using Element = uint8_t;
  static Lanes32 get(const uint8_t* p) { return load_u8(p); }
  static void put(uint8_t* p, Lanes32 x) { store_u8(p, x); }
};

template <typename Kind>
void load_elements(void* lanes, const void* source, int64_t stride, int64_t count) {
  using Element = typename Kind::Element;
  const auto* from = static_cast<const Element*>(source);
  auto* to = static_cast<int32_t*>(lanes);
  Element part[kLanes] = {};
  if (stride == 0) {
    for (Element& element : part) element = *from;
    const Lanes32 value = Kind::get(part);
    for (int64_t i = 0; i < count; i += kLanes) store_lanes32(to + i, value);
    return;
  }
  int64_t i = 0;
  if (stride == 1) {
    for (; i + kLanes <= count; i += kLanes) store_lanes32(to + i, Kind::get(from + i));
  }
  for (; i < count; i += kLanes) {
    const int64_t some = count - i < kLanes ? count - i : kLanes;
    for (int64_t lane = 0; lane < some; ++lane) part[lane] = from[(i + lane) * stride];
    store_lanes32(to + i, Kind::get(part));
  }
}

template <typename Kind>
void store_elements(void* destination, const void* lanes, int64_t count) {
  using Element = typename Kind::Element;
  auto* to = static_cast<Element*>(destination);
  const auto* from = static_cast<const int32_t*>(lanes);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Kind::put(to + i, load_lanes32(from + i));
  if (i == count) return;
  int32_t rest[kLanes] = {};
  Element part[kLanes];
  for (int64_t lane = 0; lane < count - i; ++lane) rest[lane] = from[i + lane];
  Kind::put(part, load_lanes32(rest));
  for (int64_t lane = 0; lane < count - i; ++lane) to[i + lane] = part[lane];
}

constexpr ElementwiseKernels make_elementwise_kernels() {
  ElementwiseKernels k{};
  const auto set = [&](ElementwiseOp op, ElementwiseKernels::BlockFunction function) { k.ops.data()[static_cast<int>(op)] = function; };
  using Op = ElementwiseOp;
  set(Op::kCopy, unary<copy_of>);
  set(Op::kNeg, unary<negated>);
  set(Op::kExp, unary<exp>);
  set(Op::kLog, unary<log>);
  set(Op::kSqrt, unary<square_root>);
  set(Op::kRsqrt, unary<inverse_root>);
  set(Op::kTanh, unary<tanh>);
  set(Op::kSigmoid, unary<sigmoid>);
  set(Op::kSilu, unary<silu>);
  set(Op::kGeluTanh, unary<gelu_tanh>);
  set(Op::kGeluErf, unary<gelu_erf>);
  set(Op::kRelu, unary<relu>);
  set(Op::kSquare, unary<square>);
  set(Op::kAbs, unary<magnitude>);
  set(Op::kFloor, unary<round_down>);
  set(Op::kReciprocal, unary<reciprocal>);
  set(Op::kSin, periodic<sin, exact_sin>);
  set(Op::kCos, periodic<cos, exact_cos>);
  set(Op::kErf, unary<erf>);
  set(Op::kRoundBf16, unary<round_bf16>);
  set(Op::kRoundF16, unary<round_f16>);
  set(Op::kAdd, binary<sum_of>);
  set(Op::kSub, binary<difference>);
  set(Op::kMul, binary<product>);
  set(Op::kDiv, binary<quotient>);
  set(Op::kMax, binary<larger>);
  set(Op::kMin, binary<smaller>);
  set(Op::kPow, power);
  set(Op::kEq, compare<equal_floats>);
  set(Op::kNe, compare<unequal_floats>);
  set(Op::kLt, compare<less_floats>);
  set(Op::kLe, compare<less_equal_floats>);
  set(Op::kGt, compare<greater_floats>);
  set(Op::kGe, compare<greater_equal_floats>);
  set(Op::kLogicalNot, unary_integer<logical_not>);
  set(Op::kNegI32, unary_integer<wrapping_negative>);
  set(Op::kAbsI32, unary_integer<absolute>);
  set(Op::kToU8, unary_integer<low_byte>);
  set(Op::kLogicalAnd, binary_integer<logical_and>);
  set(Op::kLogicalOr, binary_integer<logical_or>);
  set(Op::kAddI32, binary_integer<sum_i32>);
  set(Op::kSubI32, binary_integer<difference_i32>);
  set(Op::kMulI32, binary_integer<product_i32>);
  set(Op::kMaxI32, binary_integer<larger_i32>);
  set(Op::kMinI32, binary_integer<smaller_i32>);
  set(Op::kEqI32, binary_integer<equal_i32>);
  set(Op::kNeI32, binary_integer<unequal_i32>);
  set(Op::kLtI32, binary_integer<less_i32>);
  set(Op::kLeI32, binary_integer<less_equal_i32>);
  set(Op::kGtI32, binary_integer<greater_i32>);
  set(Op::kGeI32, binary_integer<greater_equal_i32>);
  set(Op::kIsFinite, unary_integer<is_finite>);
  set(Op::kToF32, unary_integer<integers_as_floats>);
  set(Op::kToI32, unary_integer<floats_as_integers>);
  set(Op::kSelect, select_lanes);
  k.load = {load_elements<F32Elements>,
            load_elements<Bf16Elements>,
            load_elements<F16Elements>,
            nullptr,
            load_elements<I32Elements>,
            load_elements<U8Elements>,
            nullptr};
  k.store = {store_elements<F32Elements>,
             store_elements<Bf16Elements>,
             store_elements<F16Elements>,
             nullptr,
             store_elements<I32Elements>,
             store_elements<U8Elements>,
             nullptr};
  return k;
}
