// Multiplication of R rows by V vectors of lanes, over 32-bit words. Included after vec_*.inl. kRowsOfPairs: the words of a row of the row
// operand have to lie side by side. begin: before the first product of a block of work.
struct F32Words {
  static constexpr int kPerWord = 1;
  static constexpr bool kFetches = false;  // the rows that come next and the lines of C are fetched by hand
  static constexpr bool kRowsOfPairs = false;
  static void begin() {}
  static inline Vec multiply_add(Vec c, Vec a, Vec b) { return fma(a, b, c); }
};
// For Intel's processors: 10 % of a product whose operands the second-level cache does not hold yet.
struct F32WordsFetching : F32Words {
  static constexpr bool kFetches = true;
};
#ifdef __AVX512BF16__
struct Bf16Words {
  static constexpr int kPerWord = 2;
  static constexpr bool kFetches = false;
  static constexpr bool kRowsOfPairs = false;
  static void begin() {}
  static inline Vec multiply_add(Vec c, Vec a, Vec b) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
};
#endif

inline Vec broadcast_word(const char* p) {  // a bf16 pair may begin at an odd element
  float word;
  __builtin_memcpy(&word, p, 4);
  return set1(word);
}
inline Vec broadcast_half_word(const char* p) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  float word;
  __builtin_memcpy(&word, &bits, 4);
  return set1(word);
}

// Where the product goes: one of the two pointers.
struct Result {
  float* f32;
  uint16_t* bf16;
  int64_t row;
  bool add;  // f32 alone
  Result at(int64_t r, int64_t lane) const {
    return {f32 == nullptr ? nullptr : f32 + r * row + lane, bf16 == nullptr ? nullptr : bf16 + r * row + lane, row, add};
  }
};

// The row operand.
struct Rows {
  const char* data;
  int64_t row, step;  // bytes from row to row, and from word to word
  int64_t next = 0;   // bytes to the strip that is read next
};

#if !defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)  // which does not see what assembly reads and writes
#define MW_FOUR_ROWS_IN_ASSEMBLY
#include "exec/cpu/gemm_micro_avx2.inl"
#endif

// Inlined: on the stack, a and c would be read back with vectors that their scalar stores, behind those of C, hold up (3 % of a product).
template <typename Words, int R, int V>
[[gnu::always_inline]] inline void multiply_tile(int64_t words, bool half_word, Rows a, const char* b, int64_t b_step, Result c) {
#ifdef MW_FOUR_ROWS_IN_ASSEMBLY
  if constexpr (R == 4 && V >= 2) {
    if (c.bf16 == nullptr) return multiply_four_rows<V>(words, a.data, a.row, a.step, b, b_step, c.f32, c.row * 4, c.add);
    alignas(32) float sums[R * V * kLanes];
    multiply_four_rows<V>(words, a.data, a.row, a.step, b, b_step, sums, V * kLanes * 4, false);
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) store(c.bf16 + r * c.row + v * kLanes, load(sums + (r * V + v) * kLanes));
    }
    return;
  }
#endif
  Vec acc[R][V];
  if constexpr (Words::kFetches) {
    for (int r = 0; r < R && !c.add && c.f32 != nullptr; ++r) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) __builtin_prefetch(c.f32 + r * c.row + v * kLanes, 1);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) acc[r][v] = c.add ? load(c.f32 + r * c.row + v * kLanes) : zero();
  }
  // Two row pointers reach all eight rows with strides that need no multiplication.
  const char* low = a.data;
  const char* high = a.data + 4 * a.row;
  const int64_t row3 = 3 * a.row;
  const auto row = [&](int r) {
    const char* base = r < 4 ? low : high;
    return base + ((r & 3) == 0 ? 0 : (r & 3) == 1 ? a.row : (r & 3) == 2 ? 2 * a.row : row3);
  };
  const int64_t whole = words - (half_word ? 1 : 0);
  const auto add_word = [&]() __attribute__((always_inline)) {
    Vec lanes[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) lanes[v] = load(reinterpret_cast<const float*>(b) + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast_word(row(r));
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) acc[r][v] = Words::multiply_add(acc[r][v], x, lanes[v]);
    }
    low += a.step;
    high += a.step;
    b += b_step;
  };
  if constexpr (Words::kFetches) {
    // Two words of a strip are one cache line, and so are sixteen of a row in place.
    const bool strip = a.step == 4 * kMicroRows;
    const char* fetched = a.data + a.next;
    const int64_t to_line = strip ? 64 : a.row, to_column = strip ? 64 : 64 - (kMicroRows - 1) * a.row;
    int64_t k = 0;
    for (; k + 2 <= whole; k += 2) {
      __builtin_prefetch(fetched, 0, 2);
      fetched += (k & (2 * kMicroRows - 2)) == 2 * kMicroRows - 2 ? to_column : to_line;
      add_word();
      add_word();
    }
    if (k < whole) add_word();
  } else {
    // Not in pairs as above: that costs gcc 12 moves between registers.
#pragma GCC unroll 2
    for (int64_t k = 0; k < whole; ++k) add_word();
  }
  if (half_word) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast_half_word(row(r));
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) acc[r][v] = Words::multiply_add(acc[r][v], x, load(reinterpret_cast<const float*>(b) + v * kLanes));
    }
  }
  if (c.bf16 != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) store(c.bf16 + r * c.row + v * kLanes, acc[r][v]);
    }
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) store(c.f32 + r * c.row + v * kLanes, acc[r][v]);
  }
}

template <typename Words, int V>
[[gnu::always_inline]] inline void multiply_rows(int rows, int64_t words, bool half_word, Rows a, const char* b, int64_t b_step, Result c) {
  for (; rows >= kMicroRows; rows -= kMicroRows) {
    multiply_tile<Words, kMicroRows, V>(words, half_word, a, b, b_step, c);
    a.data += kMicroRows * a.row;
    c = c.at(kMicroRows, 0);
  }
  switch (rows) {
    case 1:
      return multiply_tile<Words, 1, V>(words, half_word, a, b, b_step, c);
    case 2:
      return multiply_tile<Words, 2, V>(words, half_word, a, b, b_step, c);
    case 3:
      return multiply_tile<Words, 3, V>(words, half_word, a, b, b_step, c);
  }
  if constexpr (kMicroRows > 4) {
    switch (rows) {
      case 4:
        return multiply_tile<Words, 4, V>(words, half_word, a, b, b_step, c);
      case 5:
        return multiply_tile<Words, 5, V>(words, half_word, a, b, b_step, c);
      case 6:
        return multiply_tile<Words, 6, V>(words, half_word, a, b, b_step, c);
      case 7:
        return multiply_tile<Words, 7, V>(words, half_word, a, b, b_step, c);
    }
  }
}

// Any number of rows by 16, 32 or 48 lanes.
template <typename Words>
[[gnu::always_inline]] inline void multiply_panel(int lanes, int rows, int64_t words, bool half_word, Rows a, const void* b, int64_t b_step,
                                                  Result c) {
  const char* pb = static_cast<const char*>(b);
  int vectors = lanes / kLanes;
  for (; vectors > 4 || vectors == 3; vectors -= 3) {
    multiply_rows<Words, 3>(rows, words, half_word, a, pb, b_step, c);
    pb += 3 * kLanes * 4;
    c = c.at(0, 3 * kLanes);
  }
  for (; vectors >= 2; vectors -= 2) {
    multiply_rows<Words, 2>(rows, words, half_word, a, pb, b_step, c);
    pb += 2 * kLanes * 4;
    c = c.at(0, 2 * kLanes);
  }
  if (vectors == 1) multiply_rows<Words, 1>(rows, words, half_word, a, pb, b_step, c);
}

// For attention, which calls it from many places: one copy of all the tiles.
template <typename Words>
[[gnu::noinline]] inline void multiply_panel(int lanes, int rows, int64_t words, bool half_word, const void* a, int64_t a_row,
                                             int64_t a_step, const void* b, int64_t b_step, float* c, int64_t c_row, bool add_to_c) {
  multiply_panel<Words>(lanes, rows, words, half_word, Rows{static_cast<const char*>(a), a_row, a_step}, b, b_step,
                        Result{c, nullptr, c_row, add_to_c});
}

template <typename Words>
void multiply(const MicroArgs& g) {
  multiply_panel<Words>(g.lanes, g.rows, g.words, g.half_word, Rows{static_cast<const char*>(g.a), g.a_row, g.a_step, g.a_next}, g.b,
                        g.b_step, Result{g.c, g.c_bf16, g.c_row, g.add});
}
