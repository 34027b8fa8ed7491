// Packing of panels and strips. Included after vec_*.inl. Words are moved as 32-bit floats; a bf16 pair that is consecutive in
// memory moves as one.
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
// (`count` of its elements exist); `along_depth` 8 words of one lane that lie side by side; `along_lanes` one word of 8 lanes.
struct F32ToF32 {
  using Source = float;
  static constexpr int kDepth = 1;
  static float word(const float* p, int64_t, int) { return *p; }
  static __m256 along_depth(const float* p) { return _mm256_loadu_ps(p); }
  static __m256 along_lanes(const float* p, int64_t) { return _mm256_loadu_ps(p); }
};
inline __m256 widen8(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline float float_of_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
struct Bf16ToF32 {
  using Source = uint16_t;
  static constexpr int kDepth = 1;
  static float word(const uint16_t* p, int64_t, int) { return float_of_bits(static_cast<uint32_t>(*p) << 16); }
  static __m256 along_depth(const uint16_t* p) { return widen8(p); }
  static __m256 along_lanes(const uint16_t* p, int64_t) { return widen8(p); }
};
struct Bf16ToPairs {
  using Source = uint16_t;
  static constexpr int kDepth = 2;
  static float word(const uint16_t* p, int64_t stride, int count) {
    return float_of_bits(count == 2 ? p[0] | static_cast<uint32_t>(p[stride]) << 16 : p[0]);
  }
  static __m256 along_depth(const uint16_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); }
  static __m256 along_lanes(const uint16_t* p, int64_t stride) {
    const __m256i first = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i second = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + stride)));
    return _mm256_castsi256_ps(_mm256_or_si256(first, _mm256_slli_epi32(second, 16)));
  }
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
  static __m256 along_lanes(const float* p, int64_t stride) { return pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p + stride)); }
};

template <typename Format>
void pack(const PackArgs& g) {
  using Source = typename Format::Source;
  constexpr int kDepth = Format::kDepth;
  const Source* source = static_cast<const Source*>(g.source);
  float* panel = static_cast<float*>(g.panel);
  const int64_t words = (g.depth + kDepth - 1) / kDepth, whole = g.depth / kDepth;
  const int64_t word_stride = g.depth_stride * kDepth;
  const int lanes8 = g.lanes & ~7;
  int64_t done = 0;  // words finished for the lanes below lanes8
  if (g.lane_stride == 1) {
    for (int64_t w = 0; w < whole; ++w) {
      for (int lane = 0; lane < lanes8; lane += 8) {
        _mm256_storeu_ps(panel + w * g.width + lane, Format::along_lanes(source + w * word_stride + lane, g.depth_stride));
      }
    }
    done = whole;
  } else if (g.depth_stride == 1) {
    done = whole & ~int64_t{7};
    for (int lane = 0; lane < lanes8; lane += 8) {
      for (int64_t w = 0; w < done; w += 8) {
        __m256 block[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) block[i] = Format::along_depth(source + (lane + i) * g.lane_stride + w * kDepth);
        transpose8(block, panel + w * g.width + lane, g.width);
      }
    }
  }
  for (int64_t w = 0; w < words; ++w) {
    const int count = static_cast<int>(g.depth - w * kDepth < kDepth ? g.depth - w * kDepth : kDepth);
    float* out = panel + w * g.width;
    const int first = w < done ? lanes8 : 0;
    for (int lane = first; lane < g.lanes; ++lane) {
      out[lane] = Format::word(source + w * word_stride + lane * g.lane_stride, g.depth_stride, count);
    }
    for (int lane = g.lanes; lane < g.width; ++lane) out[lane] = 0.0f;
  }
}
