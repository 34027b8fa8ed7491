// Products of bf16 pairs in the matrix unit (AMX), and packing for them. Included after vec_avx512.inl.
// The unit has eight tiles of 16 rows by 64 bytes. One instruction adds 16 x 16 sums of 32 bf16 products each. Pairs of the row
// operand lie side by side in a tile's row; a panel of the lane operand is already laid out as a tile is.
constexpr int kRows = 16;        // of a tile
constexpr int kStepWords = 16;   // of the contraction in a tile
constexpr int kStepBytes = 64;   // the same
constexpr int kTileFloats = 16;  // lanes of a tile

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kConfig;

// Asked each time, for it is the thread's, and other libraries set and release it; loading takes ten times as long as asking.
inline void configure() {
  TileConfig now;
  _tile_storeconfig(&now);
  if (_mm512_cmpneq_epi32_mask(_mm512_load_si512(&now), _mm512_load_si512(&kConfig)) != 0) _tile_loadconfig(&kConfig);
}

// Copies a tile of which some rows or columns do not exist; those that do not are zero.
inline void copy_tile(char* tile, const char* from, int64_t from_row, int rows, __mmask32 elements) {
  for (int r = 0; r < kRows; ++r) {
    const Ints row = r < rows ? _mm512_maskz_loadu_epi16(elements, from + r * from_row) : _mm512_setzero_si512();
    _mm512_store_si512(tile + r * kStepBytes, row);
  }
}

// Tiles 0 to 5 are the sums of R x V tiles of C, three to a row; 6 and 7 are operands. A tile that is read again right away is loaded last.
template <int R, int V>
struct Sums {
  static void clear() {
    _tile_zero(0);
    if constexpr (V > 1) _tile_zero(1);
    if constexpr (V > 2) _tile_zero(2);
    if constexpr (R > 1) {
      _tile_zero(3);
      if constexpr (V > 1) _tile_zero(4);
      if constexpr (V > 2) _tile_zero(5);
    }
  }
  static void load(const float* c, int64_t c_row) {
    _tile_loadd(0, c, c_row * 4);
    if constexpr (V > 1) _tile_loadd(1, c + kTileFloats, c_row * 4);
    if constexpr (V > 2) _tile_loadd(2, c + 2 * kTileFloats, c_row * 4);
    if constexpr (R > 1) {
      c += kRows * c_row;
      _tile_loadd(3, c, c_row * 4);
      if constexpr (V > 1) _tile_loadd(4, c + kTileFloats, c_row * 4);
      if constexpr (V > 2) _tile_loadd(5, c + 2 * kTileFloats, c_row * 4);
    }
  }
  static void store(float* c, int64_t c_row) {
    _tile_stored(0, c, c_row * 4);
    if constexpr (V > 1) _tile_stored(1, c + kTileFloats, c_row * 4);
    if constexpr (V > 2) _tile_stored(2, c + 2 * kTileFloats, c_row * 4);
    if constexpr (R > 1) {
      c += kRows * c_row;
      _tile_stored(3, c, c_row * 4);
      if constexpr (V > 1) _tile_stored(4, c + kTileFloats, c_row * 4);
      if constexpr (V > 2) _tile_stored(5, c + 2 * kTileFloats, c_row * 4);
    }
  }
  static void add(const char* a0, int64_t a0_row, const char* a1, int64_t a1_row, const char* b, int64_t b_step) {
    _tile_loadd(6, a0, a0_row);
    _tile_loadd(7, b, b_step);
    _tile_dpbf16ps(0, 6, 7);
    if constexpr (V > 1) {
      _tile_loadd(7, b + kStepBytes, b_step);
      _tile_dpbf16ps(1, 6, 7);
    }
    if constexpr (V > 2) {
      _tile_loadd(7, b + 2 * kStepBytes, b_step);
      _tile_dpbf16ps(2, 6, 7);
    }
    if constexpr (R > 1) {
      _tile_loadd(6, a1, a1_row);
      if constexpr (V > 2) {
        _tile_dpbf16ps(5, 6, 7);
        _tile_loadd(7, b + kStepBytes, b_step);
      }
      if constexpr (V > 1) {
        _tile_dpbf16ps(4, 6, 7);
        _tile_loadd(7, b, b_step);
      }
      _tile_dpbf16ps(3, 6, 7);
    }
  }
};

inline void store_rows(uint16_t* c, int64_t c_row, const float* from, int rows, int lanes) {
  for (int r = 0; r < rows; ++r, c += c_row, from += kPanelLanes) {
    int lane = 0;
    for (; lane + 2 * kLanes <= lanes; lane += 2 * kLanes)
      _mm512_storeu_si512(c + lane, narrow(load(from + lane), load(from + lane + kLanes)));
    if (lane < lanes) store(c + lane, load(from + lane));
  }
}

template <int R, int V>
void multiply_block(const MicroArgs& g) {
  using S = Sums<R, V>;
  alignas(64) float sums[2 * kRows * kPanelLanes];
  alignas(64) char a_copy[2][kRows * kStepBytes], b_copy[kRows * kPanelLanes * 4];
  const int last_rows = g.rows - (R - 1) * kRows;  // of the last tile
  const bool whole_rows = last_rows == kRows, in_place = whole_rows && g.c != nullptr;
  if (!g.add) {
    for (int r = 0; in_place && g.c_row != kPanelLanes && r < g.rows; ++r) {  // lines that the sums will be written to
      for (int v = 0; v < V; ++v) __builtin_prefetch(g.c + r * g.c_row + v * kTileFloats, 1);
    }
    S::clear();
  } else if (in_place) {
    S::load(g.c, g.c_row);
  } else {
    for (int r = 0; r < g.rows; ++r) __builtin_memcpy(sums + r * kPanelLanes, g.c + r * g.c_row, V * kStepBytes);
    S::load(sums, kPanelLanes);
  }
  const char *a0 = static_cast<const char*>(g.a), *a1 = R > 1 ? a0 + kRows * g.a_row : a0, *b = static_cast<const char*>(g.b);
  const int64_t elements = 2 * g.words - (g.half_word ? 1 : 0), steps = elements / (2 * kStepWords);
  const auto add_copied = [&](__mmask32 mask, const char* lanes, int64_t lanes_step) {
    if (R > 1) copy_tile(a_copy[0], a0, g.a_row, kRows, mask);
    copy_tile(a_copy[R - 1], R > 1 ? a1 : a0, g.a_row, last_rows, mask);
    S::add(a_copy[0], kStepBytes, a_copy[1], kStepBytes, lanes, lanes_step);
  };
  for (int64_t k = 0; k < steps; ++k) {
    whole_rows ? S::add(a0, g.a_row, a1, g.a_row, b, g.b_step) : add_copied(~__mmask32{0}, b, g.b_step);
    a0 += kStepBytes, a1 += kStepBytes, b += kStepWords * g.b_step;
  }
  if (const int rest = static_cast<int>(elements % (2 * kStepWords)); rest > 0) {
    // Words that do not exist: zero times whatever lies behind the panel might be NaN.
    for (int w = 0; w < kStepWords; ++w) {
      for (int v = 0; v < V; ++v)
        store(reinterpret_cast<float*>(b_copy) + w * kPanelLanes + v * kLanes,
              w < (rest + 1) / 2 ? load(reinterpret_cast<const float*>(b + w * g.b_step) + v * kLanes) : zero());
    }
    add_copied((__mmask32{1} << rest) - 1, b_copy, kPanelLanes * 4);
  }
  if (in_place) return S::store(g.c, g.c_row);
  S::store(sums, kPanelLanes);
  if (g.c_bf16 != nullptr) return store_rows(g.c_bf16, g.c_row, sums, g.rows, V * kTileFloats);
  for (int r = 0; r < g.rows; ++r) __builtin_memcpy(g.c + r * g.c_row, sums + r * kPanelLanes, V * kStepBytes);
}

// g.rows is at most two tiles, g.lanes at most three; the tiles are configured.
inline void multiply_tiles(const MicroArgs& g) {
  const int vectors = g.lanes / kTileFloats;
  if (g.rows > kRows) {
    return vectors == 3 ? multiply_block<2, 3>(g) : vectors == 2 ? multiply_block<2, 2>(g) : multiply_block<2, 1>(g);
  }
  return vectors == 3 ? multiply_block<1, 3>(g) : vectors == 2 ? multiply_block<1, 2>(g) : multiply_block<1, 1>(g);
}

inline void transpose16(Vec x[16]) {
  Vec t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    x[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    x[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    x[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  // Now x[4 i + j] holds, in its quarters q, lane 4 q + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Vec low01 = _mm512_shuffle_f32x4(x[j], x[4 + j], 0x88), low23 = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x88);
    const Vec high01 = _mm512_shuffle_f32x4(x[j], x[4 + j], 0xdd), high23 = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xdd);
    t[j] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    t[8 + j] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    t[4 + j] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    t[12 + j] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = t[i];
}

void pack_rows(const PackArgs& g) {
  const auto* source = static_cast<const uint16_t*>(g.source);
  const int64_t words = (g.depth + 1) / 2;
  const auto row_of = [&](int64_t lane) { return reinterpret_cast<float*>(static_cast<char*>(g.panel) + lane * g.strip_stride); };
  if (g.lane_stride != 1) {
    for (int64_t lane = 0; lane < g.lanes; ++lane) {
      auto* out = reinterpret_cast<uint16_t*>(row_of(lane));
      for (int64_t k = 0; k < 2 * words; ++k) out[k] = k < g.depth ? source[k * g.depth_stride + lane * g.lane_stride] : uint16_t{0};
    }
    return;
  }
  for (int64_t w = 0; w < words; w += kStepWords) {
    const int count = static_cast<int>(words - w < kStepWords ? words - w : kStepWords);
    for (int64_t lane = 0; lane < g.lanes; lane += kLanes) {
      const int64_t lanes = g.lanes - lane < kLanes ? g.lanes - lane : kLanes;
      Vec block[kStepWords];
#pragma GCC unroll 16
      for (int i = 0; i < kStepWords; ++i) {
        const uint16_t* low = source + (w + i) * 2 * g.depth_stride + lane;
        const bool pair = (w + i) * 2 + 1 < g.depth;
        block[i] = i >= count ? zero()
                   : pair     ? join_pairs(low, low + g.depth_stride, lanes)
                              : _mm512_castsi512_ps(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(lanes), low)));
      }
      transpose16(block);
      for (int64_t r = 0; r < lanes; ++r) store_first(row_of(lane + r) + w, block[r], count);
    }
  }
}
