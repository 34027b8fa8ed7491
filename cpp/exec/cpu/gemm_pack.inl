// Packing of panels and strips. Included after vec_*.inl and storage.inl. Words are moved as 32-bit floats; a bf16 pair that is consecutive
// in memory moves as one.
inline void transpose8(const __m256 in[8], float* out, int64_t out_row) {
  __m256 t[8], s[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(in[i], in[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(in[i], in[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    s[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(out + i * out_row, _mm256_permute2f128_ps(s[i], s[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * out_row, _mm256_permute2f128_ps(s[i], s[i + 4], 0x31));
  }
}

// How a source element becomes words of the contraction. kDepth: source elements per word. `word` reads one word with any strides
// (`count` of its elements exist); `along_depth` 8 words of one lane that lie side by side; `along_lanes` one word of the next n lanes.
struct F32ToF32 {
  using Source = float;
  static constexpr int kDepth = 1;
  static float word(const float* p, int64_t, int) { return *p; }
  static __m256 along_depth(const float* p) { return _mm256_loadu_ps(p); }
  static Vec along_lanes(const float* p, int64_t, int n) { return read(p, n); }
};
inline float float_of_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
struct Bf16ToF32 {
  using Source = uint16_t;
  static constexpr int kDepth = 1;
  static float word(const uint16_t* p, int64_t, int) { return float_of_bits(static_cast<uint32_t>(*p) << 16); }
  static __m256 along_depth(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
  }
  static Vec along_lanes(const uint16_t* p, int64_t, int n) { return read(p, n); }
};
struct Bf16ToPairs {
  using Source = uint16_t;
  static constexpr int kDepth = 2;
  static float word(const uint16_t* p, int64_t stride, int count) {
    return float_of_bits(count == 2 ? p[0] | static_cast<uint32_t>(p[stride]) << 16 : p[0]);
  }
  static __m256 along_depth(const uint16_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static Vec along_lanes(const uint16_t* p, int64_t stride, int n) { return join_pairs(p, p + stride, n); }
};
inline __m256i round_to_bf16(__m256 x) {  // as 32-bit lanes whose lower half is the bf16
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_srli_epi32(_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan)), 16);
}
struct F32ToPairs {
  using Source = float;
  static constexpr int kDepth = 2;
  static __m256 pair(__m256 first, __m256 second) {
    return _mm256_castsi256_ps(_mm256_or_si256(round_to_bf16(first), _mm256_slli_epi32(round_to_bf16(second), 16)));
  }
  static float word(const float* p, int64_t stride, int count) {
    return _mm256_cvtss_f32(pair(_mm256_set1_ps(p[0]), _mm256_set1_ps(count == 2 ? p[stride] : 0.0f)));
  }
  static __m256 along_depth(const float* p) {
    const __m256 x = _mm256_loadu_ps(p), y = _mm256_loadu_ps(p + 8);
    const __m256 even = _mm256_shuffle_ps(x, y, 0x88), odd = _mm256_shuffle_ps(x, y, 0xdd);  // words 0 1 4 5 2 3 6 7
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pair(even, odd)), 0xd8));
  }
  static Vec along_lanes(const float* p, int64_t stride, int n) {
    return round_pairs(F32ToF32::along_lanes(p, 0, n), F32ToF32::along_lanes(p + stride, 0, n));
  }
};

// Where a word of some lane goes: strips of 8 lanes one behind the other, or one panel.
struct PanelWriter {
  float* panels;
  int64_t width, strip_stride;  // floats

  explicit PanelWriter(const PackArgs& g) : panels(static_cast<float*>(g.panel)), width(g.width), strip_stride(g.strip_stride / 4) {}
  float* at(int64_t word, int64_t lane) const {
    return width == 8 ? panels + lane / 8 * strip_stride + word * 8 + lane % 8 : panels + word * width + lane;
  }
  // The next n lanes, all of a vector or its first 8. A panel is whole vectors wide, or 8.
  void put(int64_t word, int64_t lane, Vec x, int n) const {
    if (width >= kLanes && n == kLanes) return store(at(word, lane), x);
#ifdef __AVX512F__
    _mm256_storeu_ps(at(word, lane), _mm512_castps512_ps256(x));
    if (n == kLanes) _mm256_storeu_ps(at(word, lane + 8), _mm512_extractf32x8_ps(x, 1));
#endif
  }
};

template <typename Format>
void pack(const PackArgs& g) {
  using Source = typename Format::Source;
  constexpr int kDepth = Format::kDepth;
  const Source* source = static_cast<const Source*>(g.source);
  const PanelWriter out(g);
  const int64_t words = (g.depth + kDepth - 1) / kDepth, whole = g.depth / kDepth;
  const int64_t word_stride = g.depth_stride * kDepth;
  int64_t done = 0, done_lanes = 0;  // words finished for the first lanes
  if (g.lane_stride == 1) {
    done = whole, done_lanes = g.lanes & ~7;
    // Rows on other pages than their neighbours escape the hardware's prefetchers.
    constexpr int64_t kAhead = 8 * kDepth, kLine = 64 / sizeof(Source);
    const auto prefetch = [&](const Source* from, int rows) {
      for (int64_t lane = 0; lane < g.lanes; lane += kLine) {
        for (int row = 0; row < rows; ++row) __builtin_prefetch(from + (kAhead + row) * g.depth_stride + lane);
      }
    };
    int64_t w = 0;
#ifdef __AVX512F__
    // Strips of 8: two words fill a cache line of each.
    for (; g.width == 8 && w + 2 <= whole; w += 2) {
      const Source* const from = source + w * word_stride;
      prefetch(from, 2 * kDepth);
      int64_t lane = 0;
      for (; lane + kLanes <= done_lanes; lane += kLanes) {
        const Vec x = Format::along_lanes(from + lane, g.depth_stride, kLanes);
        const Vec y = Format::along_lanes(from + word_stride + lane, g.depth_stride, kLanes);
        store(out.at(w, lane), _mm512_shuffle_f32x4(x, y, 0x44));
        store(out.at(w, lane + 8), _mm512_shuffle_f32x4(x, y, 0xee));
      }
      if (lane < done_lanes) {
        out.put(w, lane, Format::along_lanes(from + lane, g.depth_stride, 8), 8);
        out.put(w + 1, lane, Format::along_lanes(from + word_stride + lane, g.depth_stride, 8), 8);
      }
    }
#endif
    for (; w < whole; ++w) {
      const Source* const from = source + w * word_stride;
      prefetch(from, kDepth);
      int64_t lane = 0;
      for (; lane + kLanes <= done_lanes; lane += kLanes)
        out.put(w, lane, Format::along_lanes(from + lane, g.depth_stride, kLanes), kLanes);
      if (lane < done_lanes) out.put(w, lane, Format::along_lanes(from + lane, g.depth_stride, 8), 8);
    }
  } else if (g.depth_stride == 1) {
    done = whole & ~int64_t{7}, done_lanes = g.lanes & ~7;
    for (int64_t lane = 0; lane < done_lanes; lane += 8) {
      for (int64_t w = 0; w < done; w += 8) {
        __m256 block[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) block[i] = Format::along_depth(source + (lane + i) * g.lane_stride + w * kDepth);
        transpose8(block, out.at(w, lane), g.width);
      }
    }
  }
  const int64_t panel_lanes = (g.lanes + g.width - 1) / g.width * g.width;
  for (int64_t w = 0; w < words; ++w) {
    const int count = static_cast<int>(g.depth - w * kDepth < kDepth ? g.depth - w * kDepth : kDepth);
    for (int64_t lane = w < done ? done_lanes : 0; lane < g.lanes; ++lane) {
      *out.at(w, lane) = Format::word(source + w * word_stride + lane * g.lane_stride, g.depth_stride, count);
    }
    for (int64_t lane = g.lanes; lane < panel_lanes; ++lane) *out.at(w, lane) = 0.0f;
  }
}
