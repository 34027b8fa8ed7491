// Included after vec_*.inl, math.inl, gemm_micro.inl and gemm_pack.inl. T: element type in memory (float, or uint16_t for bf16). Words:
// what the products work on; bf16 is widened to f32 block by block where the CPU does not multiply pairs.
constexpr int64_t kForwardKeys = kKeyBlock, kBackwardKeys = 64;  // keys per block: their scores stay in the first-level cache
constexpr float kInfinity = __builtin_inff();

inline int64_t round_to(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <bool yes>
struct Flag {
  static constexpr bool kYes = yes;
};

struct Scratch {
  char* next;
  template <typename T>
  T* take(int64_t count) {
    char* p = next;
    next += round_to(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(p);
  }
};

template <typename T, typename Words>
struct FormatOf {
  using Type = Bf16ToPairs;
};
template <>
struct FormatOf<float, F32Words> {
  using Type = F32ToF32;
};
template <>
struct FormatOf<uint16_t, F32Words> {
  using Type = Bf16ToF32;
};

// Lanes of a block with `count` queries: one or several times those of a product.
inline int block_width(int count) {
  if (kLanes == 8 && (count <= 8 || (count > 16 && count <= 24))) return count <= 8 ? 8 : 24;
  return count <= 16 ? 16 : count <= 32 ? 32 : kMostQueryLanes;
}

// Which keys any of the lanes sees, and between which no lane needs a mask.
struct KeyRange {
  int64_t begin, end, plain_begin, plain_end;
  int32_t low_segment, high_segment;
};

inline KeyRange key_range(const KeyValueHead& h, const QueryBlock& q, int width) {
  int64_t low = INT32_MAX, high = -1, max_low = -1, min_high = INT32_MAX;
  int32_t low_segment = INT32_MAX, high_segment = INT32_MIN;
  for (int i = 0; i < q.count; ++i) {
    low = q.lower[i] < low ? q.lower[i] : low;
    high = q.limit[i] > high ? q.limit[i] : high;
    max_low = q.lower[i] > max_low ? q.lower[i] : max_low;
    min_high = q.limit[i] < min_high ? q.limit[i] : min_high;
    low_segment = q.segment[i] < low_segment ? q.segment[i] : low_segment;
    high_segment = q.segment[i] > high_segment ? q.segment[i] : high_segment;
  }
  (void)width;
  const int64_t begin = low + 1 > 0 ? low + 1 : 0, end = smaller(high + 1, h.kv_seq);
  if (h.segments != nullptr) return {begin, end, 0, 0, low_segment, high_segment};
  return {begin, end, max_low + 1, min_high + 1, low_segment, high_segment};
}

// True if no key of the block can be in a segment of the lanes.
inline bool other_segments(const KeyValueHead& h, const KeyRange& range, int64_t key, int64_t count) {
  if (h.segments == nullptr) return false;
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t j = key; j < key + count; ++j) {
    low = h.segments[j] < low ? h.segments[j] : low;
    high = h.segments[j] > high ? h.segments[j] : high;
  }
  return high < range.low_segment || low > range.high_segment;
}

struct LaneMask {
  Ints limit, lower, segment;
  LaneMask(const QueryBlock& q, int lane) : limit(load(q.limit + lane)), lower(load(q.lower + lane)), segment(load(q.segment + lane)) {}
  // x where the key is seen, else `hidden`.
  Vec apply(const KeyValueHead& h, int64_t key, Vec x, Vec hidden) const {
    const Ints j = set1(static_cast<int32_t>(key));
    Mask seen = both(less(lower, j), less(j, add(limit, set1(1))));
    if (h.segments != nullptr) seen = both(seen, equal(segment, set1(h.segments[key])));
    return select(seen, x, hidden);
  }
};

// The rows that `pointers` name, as one dense [width][n] matrix; lanes that do not exist are zero.
template <typename T>
void gather_rows(T* rows, const void* const* pointers, int count, int width, int64_t n) {
  for (int i = 0; i < count; ++i) __builtin_memcpy(rows + i * n, pointers[i], n * sizeof(T));
  __builtin_memset(rows + count * n, 0, (width - count) * n * sizeof(T));
}

// [words over n][width]: the contraction runs along the rows.
template <typename Format, typename T>
void pack_along(float* panel, const T* rows, int width, int64_t n) {
  pack<Format>({.panel = panel, .width = width, .lanes = width, .depth = n, .source = rows, .depth_stride = 1, .lane_stride = n});
}
// [words over count][n rounded up to 16]: the contraction runs over the rows.
template <typename Format, typename T>
void pack_down(float* panel, const T* rows, int64_t count, int64_t n, int64_t row_stride, int64_t width) {
  pack<Format>({.panel = panel,
                .width = static_cast<int>(width),
                .lanes = static_cast<int>(n),
                .depth = count,
                .source = rows,
                .depth_stride = row_stride,
                .lane_stride = 1});
}

// Asks for rows that will be written: they lie in pages of their own, where no hardware prefetcher follows.
template <typename T>
void fetch_rows(void* const* rows, int count, int64_t n) {
  for (int i = 0; i < count; ++i) {
    for (int64_t byte = 0; byte < n * static_cast<int64_t>(sizeof(T)); byte += 64)
      __builtin_prefetch(static_cast<const char*>(rows[i]) + byte, 1, 2);
  }
}

// out[lane][n] = transposed[n][lane] * scale[lane].
template <typename T>
void store_transposed(void* const* out, const float* transposed, float* rows, int count, int width, int64_t n, const float* scale) {
  const int64_t row = round_to(n, 8);
  for (int lane = 0; lane < width; lane += 8) {
    for (int64_t i = 0; i < row; i += 8) {
      __m256 block[8];
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) block[r] = _mm256_loadu_ps(transposed + (i + r) * width + lane);
      transpose8(block, rows + lane * row + i, row);
    }
  }
  for (int lane = 0; lane < count; ++lane) store_row(static_cast<T*>(out[lane]), rows + lane * row, n, scale[lane], false);
}

// The keys or values of one block as operands of both products.
struct BlockOperand {
  const void* rows;
  int64_t row_bytes;
  const void* columns;
  int64_t column_bytes, step_bytes;  // from one column to the next, from word to word of the keys
};

template <typename T, typename Words>
BlockOperand block_operand(const void* data, int64_t token, const FloatCopy& copy, const void* pairs, int64_t pairs_row, int64_t key,
                           int64_t count, int64_t n, float* scratch) {
  if constexpr (Words::kPerWord == 1) {
    if (copy.rows != nullptr || copy.columns != nullptr) {
      return {copy.rows == nullptr ? nullptr : copy.rows + key * copy.row, copy.row * 4,
              copy.columns == nullptr ? nullptr : copy.columns + key, copy.column * 4, 4};
    }
  }
  const T* first = static_cast<const T*>(data) + key * token;
  if constexpr (sizeof(T) == 4) {
    return {first, token * 4, first, 4, token * 4};
  } else if constexpr (Words::kPerWord == 1) {
    pack_down<Bf16ToF32>(scratch, first, count, n, token, round_to(n, 16));
    return {scratch, round_to(n, 16) * 4, scratch, 4, round_to(n, 16) * 4};
  } else if constexpr (Words::kRowsOfPairs) {
    if (pairs != nullptr) return {first, token * 2, static_cast<const uint16_t*>(pairs) + key, pairs_row * 4, 4};
    const int64_t column = round_to(count, 32) * 2;
    pack_rows({.panel = scratch,
               .width = 0,
               .strip_stride = column,
               .lanes = count > 0 ? n : 0,
               .depth = count,
               .source = first,
               .depth_stride = token,
               .lane_stride = 1});
    return {first, token * 2, scratch, column, 4};
  } else {
    if (pairs != nullptr) return {first, token * 2, static_cast<const uint32_t*>(pairs) + key / 2 * pairs_row, 4, pairs_row * 4};
    pack_down<Bf16ToPairs>(scratch, first, count, n, token, round_to(n, 16));
    return {first, token * 2, scratch, 4, round_to(n, 16) * 4};
  }
}

// Stores the rows r and r + 1 (two: the second exists) of a block of scores as what the next products read.
template <typename Words>
inline void store_scores(float* p, int width, int64_t r, int lane, Vec first, Vec second, bool two) {
  if constexpr (Words::kPerWord == 1) {
    store(p + r * width + lane, first);
    if (two) store(p + (r + 1) * width + lane, second);
  } else {
    store_pairs(reinterpret_cast<uint32_t*>(p) + r / 2 * width + lane, first, second);
  }
}

// scores = cap tanh(scale scores / cap), or scale scores if cap is 0.
inline void scale_scores(float* scores, int64_t count, float scale, float cap) {
  if (cap == 0) {
    for (int64_t i = 0; i < count; i += kLanes) store(scores + i, mul(set1(scale), load(scores + i)));
    return;
  }
  const Vec inner = set1(scale / cap), outer = set1(cap);
  for (int64_t i = 0; i < count; i += kLanes) store(scores + i, mul(outer, tanh(mul(inner, load(scores + i)))));
}

template <typename T, typename Words>
void attention_forward_block(const KeyValueHead& h, const QueryBlock& q, void* scratch) {
  using Format = typename FormatOf<T, Words>::Type;
  Words::begin();
  constexpr int kPer = Words::kPerWord;
  const int width = block_width(q.count);
  const int64_t d = h.head_dim, dv = h.value_dim, d_words = (d + kPer - 1) / kPer;
  Scratch take{static_cast<char*>(scratch)};
  T* rows = take.take<T>(width * (d > dv ? d : dv));
  float* q_panel = take.take<float>(d_words * width);
  float* scores = take.take<float>(kForwardKeys * width);
  float* out = take.take<float>(round_to(dv, 8) * width);
  float* out_rows = take.take<float>(round_to(dv, 8) * width);
  float* k_block = take.take<float>(kForwardKeys * round_to(d, 16));
  float* v_block = take.take<float>(kForwardKeys * round_to(dv, 16));
  alignas(64) float largest[kMostQueryLanes], sum[kMostQueryLanes];  // of exponents of 2
  for (int i = 0; i < width; ++i) largest[i] = q.sink[i] * kLog2E, sum[i] = q.sink[i] == -kInfinity ? 0 : 1;
  for (int64_t i = 0; i < round_to(dv, 8) * width; ++i) out[i] = 0;
  gather_rows(rows, q.q, q.count, width, d);
  pack_along<Format>(q_panel, rows, width, d);
  fetch_rows<T>(q.out, q.count, dv);

  const KeyRange range = key_range(h, q, width);
  const bool scale_first = h.softcap > 0 || h.scale <= 0;  // before the mask: the scale of -infinity has to be positive
  const Vec scale = set1(kLog2E * (scale_first ? 1.0f : h.scale));
  // Blocks begin at fixed keys, so that a query's sums are cut at the same places whatever its neighbours see.
  for (int64_t block = range.begin / kForwardKeys * kForwardKeys; block < range.end; block += kForwardKeys) {
    const int64_t first = (block > range.begin ? block : range.begin) & ~int64_t{1};
    const int64_t count = smaller(block + kForwardKeys, range.end) - first;
    if (other_segments(h, range, first, count)) continue;
    const int64_t row = h.ring > 0 ? first % h.ring : first;
    const BlockOperand k = block_operand<T, Words>(h.k, h.k_token, h.k_copy, nullptr, 0, row, kPer == 1 ? count : 0, d, k_block);
    multiply_panel<Words>(width, static_cast<int>(count), d_words, kPer == 2 && d % 2 != 0, k.rows, k.row_bytes, 4, q_panel, width * 4,
                          scores, width, false);
    if (scale_first) scale_scores(scores, count * width, h.scale, h.softcap);
    const auto in_block = [&](int64_t key) { return key < first ? 0 : smaller(key - first, count); };
    const int64_t plain_begin = in_block(range.plain_begin), plain_end = in_block(range.plain_end);
    for (int lane = 0; lane < width; lane += kLanes) {
      const LaneMask mask(q, lane);
      const Vec before = load(largest + lane);
      const auto hide = [&](int64_t from, int64_t to) {
        for (int64_t r = from; r < to; ++r) {
          float* const s = scores + r * width + lane;
          store(s, mask.apply(h, first + r, load(s), set1(-kInfinity)));
        }
      };
      hide(0, plain_begin);
      hide(plain_end, count);
      const auto score = [&](int64_t r) { return mul(load(scores + r * width + lane), scale); };
      Vec tops[4] = {before, before, before, before};  // four maxima at a time: one alone waits for itself
      int64_t key = 0;
      for (; key + 4 <= count; key += 4) {
#pragma GCC unroll 4
        for (int t = 0; t < 4; ++t) tops[t] = max(score(key + t), tops[t]);
      }
      for (; key < count; ++key) tops[0] = max(score(key), tops[0]);
      const Vec top = max(max(tops[0], tops[1]), max(tops[2], tops[3]));
      const Vec reference = select(less(set1(-kInfinity), top), top, zero());  // a lane that has seen nothing yet: exp(-inf) is 0
      Vec total = load(sum + lane);
      if (!all_equal(before, top)) {
        const Vec shrink = exp2(sub(before, reference));
        total = mul(total, shrink);
        for (int64_t i = 0; i < dv; ++i) store(out + i * width + lane, mul(load(out + i * width + lane), shrink));
        store(largest + lane, top);
      }
      const Vec shift = sub(zero(), reference);
      const auto probability = [&](int64_t r) { return exp2(fma(load(scores + r * width + lane), scale, shift)); };
      for (int64_t r = 0; r < count; r += 2) {
        const bool two = r + 1 < count;
        const Vec p0 = probability(r), p1 = two ? probability(r + 1) : zero();
        total = add(add(total, p0), p1);
        store_scores<Words>(scores, width, r, lane, p0, p1, two);
      }
      store(sum + lane, total);
    }
    // Values that are a prefix of the keys are packed already where keys are.
    const BlockOperand v = kPer == 1 && h.v == h.k && h.v_token == h.k_token && h.k_copy.rows == nullptr
                               ? k
                               : block_operand<T, Words>(h.v, h.v_token, h.v_copy, h.v_pairs, h.v_pairs_row, row, count, dv, v_block);
    multiply_panel<Words>(width, static_cast<int>(dv), (count + kPer - 1) / kPer, false, v.columns, v.column_bytes, v.step_bytes, scores,
                          width * 4, out, width, true);
  }
  for (int i = 0; i < q.count; ++i) {
    if (q.lse[i] != nullptr) *q.lse[i] = sum[i] == 0 ? kNothingSeen : largest[i] * kLn2 + __builtin_logf(sum[i]);
    sum[i] = sum[i] == 0 ? 0 : 1 / sum[i];
  }
  store_transposed<T>(q.out, out, out_rows, q.count, width, dv, sum);
}

template <typename T>
float dot_rows(const void* x, const void* y, int64_t n) {
  const T *a = static_cast<const T*>(x), *b = static_cast<const T*>(y);
  Vec sum = zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = fma(load(a + i), load(b + i), sum);
  if (i < n) sum = fma(load_first(a + i, n - i), load_first(b + i, n - i), sum);
  return sum_lanes(sum);
}

template <typename T, typename Words>
void attention_backward_block(const KeyValueHead& h, const QueryBlock& q, float* dk, float* dv_sum, void* scratch) {
  using Format = typename FormatOf<T, Words>::Type;
  Words::begin();
  constexpr int kPer = Words::kPerWord;
  const int width = block_width(q.count);
  const int64_t d = h.head_dim, dv = h.value_dim, d_words = (d + kPer - 1) / kPer, dv_words = (dv + kPer - 1) / kPer;
  const int64_t d16 = round_to(d, 16), dv16 = round_to(dv, 16), lane_words = width / kPer;
  Scratch take{static_cast<char*>(scratch)};
  T* rows = take.take<T>(width * (d > dv ? d : dv));
  float* q_panel = take.take<float>(d_words * width);  // over the head, lanes are queries
  float* dout_panel = take.take<float>(dv_words * width);
  float* q_down = take.take<float>(lane_words * d16);  // over the queries, lanes are the head
  float* dout_down = take.take<float>(lane_words * dv16);
  float* scores = take.take<float>(kBackwardKeys * width);
  float* dscores = take.take<float>(kBackwardKeys * width);
  uint16_t* p_rows = take.take<uint16_t>(kPer == 2 ? kBackwardKeys * width : 0);
  uint16_t* ds_rows = take.take<uint16_t>(kPer == 2 ? kBackwardKeys * width : 0);
  float* dq = take.take<float>(round_to(d, 8) * width);
  float* dq_rows = take.take<float>(round_to(d, 8) * width);
  float* k_block = take.take<float>(kBackwardKeys * d16);
  float* v_block = take.take<float>(kBackwardKeys * dv16);
  alignas(64) float lse[kMostQueryLanes] = {}, delta[kMostQueryLanes] = {}, ones[kMostQueryLanes];
  for (int i = 0; i < width; ++i) ones[i] = 1;
  for (int i = 0; i < q.count; ++i) lse[i] = *q.lse[i], delta[i] = dot_rows<T>(q.out[i], q.dout[i], dv) - q.dlse[i];
  if (q.dsink != nullptr) {
    Vec sum = zero();
    for (int lane = 0; lane < width; lane += kLanes) sum = fma(exp(sub(load(q.sink + lane), load(lse + lane))), load(delta + lane), sum);
    *q.dsink = -sum_lanes(sum);
  }
  for (int64_t i = 0; i < round_to(d, 8) * width; ++i) dq[i] = 0;
  gather_rows(rows, q.q, q.count, width, d);
  pack_along<Format>(q_panel, rows, width, d);
  pack_down<Format>(q_down, rows, width, d, d, d16);
  gather_rows(rows, q.dout, q.count, width, dv);
  pack_along<Format>(dout_panel, rows, width, dv);
  pack_down<Format>(dout_down, rows, width, dv, dv, dv16);
  fetch_rows<T>(q.dq, q.count, d);

  const KeyRange range = key_range(h, q, width);
  const bool capped = h.softcap > 0;
  const Vec scale = set1(h.scale), score_scale = set1(kLog2E * (capped ? 1.0f : h.scale));
  const Vec inverse_cap = set1(capped ? 1 / h.softcap : 0.0f);
  for (int64_t block = range.begin / kBackwardKeys * kBackwardKeys; block < range.end; block += kBackwardKeys) {
    const int64_t first = (block > range.begin ? block : range.begin) & ~int64_t{1};
    const int64_t count = smaller(block + kBackwardKeys, range.end) - first;
    const int keys = static_cast<int>(count);
    if (other_segments(h, range, first, count)) continue;
    const BlockOperand k = block_operand<T, Words>(h.k, h.k_token, h.k_copy, h.k_pairs, h.k_pairs_row, first, count, d, k_block);
    const BlockOperand v = block_operand<T, Words>(h.v, h.v_token, h.v_copy, nullptr, 0, first, kPer == 1 ? count : 0, dv, v_block);
    multiply_panel<Words>(width, keys, d_words, kPer == 2 && d % 2 != 0, k.rows, k.row_bytes, 4, q_panel, width * 4, scores, width, false);
    multiply_panel<Words>(width, keys, dv_words, kPer == 2 && dv % 2 != 0, v.rows, v.row_bytes, 4, dout_panel, width * 4, dscores, width,
                          false);
    if (capped) scale_scores(scores, count * width, h.scale, h.softcap);
    const auto weigh = [&](int lane, auto with_cap) {
      const LaneMask mask(q, lane);
      const Vec shift = mul(set1(-kLog2E), load(lse + lane)), row_delta = load(delta + lane);
      const auto probability = [&](int64_t r) {
        const Vec p = exp2(fma(load(scores + r * width + lane), score_scale, shift));
        return first + r >= range.plain_begin && first + r < range.plain_end ? p : mask.apply(h, first + r, p, zero());
      };
      const auto gradient = [&](int64_t r, Vec p) {
        const Vec ds = mul(mul(p, scale), sub(load(dscores + r * width + lane), row_delta));
        if constexpr (!decltype(with_cap)::kYes) return ds;
        const Vec t = mul(load(scores + r * width + lane), inverse_cap);
        return mul(ds, fnma(t, t, set1(1.0f)));
      };
      for (int64_t r = 0; r < count; r += 2) {
        const bool two = r + 1 < count;
        const Vec p0 = probability(r), p1 = two ? probability(r + 1) : zero();
        const Vec ds0 = gradient(r, p0), ds1 = two ? gradient(r + 1, p1) : zero();
        if constexpr (kPer == 1) {
          store_scores<Words>(scores, width, r, lane, p0, p1, two);
        } else {  // a row too much if the last is alone: there is room for kBackwardKeys, an even number
          store_both(p_rows + r * width + lane, p_rows + (r + 1) * width + lane, p0, p1);
          store_both(ds_rows + r * width + lane, ds_rows + (r + 1) * width + lane, ds0, ds1);
        }
        store_scores<Words>(dscores, width, r, lane, ds0, ds1, two);
      }
    };
    for (int lane = 0; lane < width; lane += kLanes) capped ? weigh(lane, Flag<true>{}) : weigh(lane, Flag<false>{});
    const void* p = kPer == 1 ? static_cast<const void*>(scores) : p_rows;
    const void* ds = kPer == 1 ? static_cast<const void*>(dscores) : ds_rows;
    const int64_t row_bytes = width * 4 / kPer;
    multiply_panel<Words>(static_cast<int>(dv16), keys, lane_words, false, p, row_bytes, 4, dout_down, dv16 * 4, dv_sum + first * dv16,
                          dv16, true);
    multiply_panel<Words>(static_cast<int>(d16), keys, lane_words, false, ds, row_bytes, 4, q_down, d16 * 4, dk + first * d16, d16, true);
    multiply_panel<Words>(width, static_cast<int>(d), (count + kPer - 1) / kPer, false, k.columns, k.column_bytes, k.step_bytes, dscores,
                          width * 4, dq, width, true);
  }
  store_transposed<T>(q.dq, dq, dq_rows, q.count, width, d, ones);
}

template <typename T>
void sum_rows(void* y, const float* x, int64_t n, int count, int64_t stride) {
  T* out = static_cast<T*>(y);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = smaller(kLanes, n - i);
    Vec sum = load_first(x + i, lanes);
    for (int c = 1; c < count; ++c) sum = add(sum, load_first(x + c * stride + i, lanes));
    store_first(out + i, sum, lanes);
  }
}
