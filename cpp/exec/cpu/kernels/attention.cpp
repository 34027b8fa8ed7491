#include "exec/cpu/kernels/attention.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "exec/cpu/gemm_tiles.h"
#include "exec/cpu/kernels/attention_kernels.h"

namespace mw {

const AttentionKernels& attention_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return avx2::kAttentionKernels;
    case Isa::kAvx512:
      return avx512::kAttentionKernels;
    case Isa::kAvx512Bf16:
      return avx512bf16::kAttentionKernels;
    case Isa::kAmx: {
      static const AttentionKernels kernels = amx::with_tiles(avx512bf16::kAttentionKernels);
      return kernels;
    }
  }
  throw InternalError("unknown instruction set");
}

namespace {

constexpr int64_t kTasks = 32;  // the backward makes at least half as many pieces of work, from the shape alone

int32_t key_number(int64_t x) { return static_cast<int32_t>(std::clamp<int64_t>(x, -2, std::numeric_limits<int32_t>::max() - 2)); }

template <typename T>
T* at(T* base, int64_t bytes) {
  if constexpr (std::is_const_v<T>) {
    return static_cast<const char*>(base) + bytes;
  } else {
    return static_cast<char*>(base) + bytes;
  }
}

void check_type(DType type) {
  if (type != DType::kF32 && type != DType::kBF16) {
    throw UserError(concat_text("attention: the operands are ", dtype_name(type), "; the kernels take f32 and bf16"));
  }
}

void check(const Attention& a) {
  check_type(a.type);
  MW_CHECK((a.q_segments == nullptr) == (a.kv_segments == nullptr), "attention: segment ids of q and kv come together");
  MW_CHECK(a.batch >= 0 && a.seq >= 0 && a.kv_seq >= 0 && a.window >= 0 && a.head_dim > 0 && a.value_dim > 0, "attention sizes");
}

void clear_lane(QueryBlock& q, int n) {
  q.limit[n] = -1, q.lower[n] = std::numeric_limits<int32_t>::max(), q.segment[n] = 0;
  q.sink[n] = -std::numeric_limits<float>::infinity(), q.dlse[n] = 0;
}
float sink_of(const void* sinks, DType type, int64_t head) { return static_cast<float>(load_element(type, sinks, head)); }

int64_t keys_seen(const Attention& a) { return a.window > 0 ? std::min(a.window, a.kv_seq) : a.kv_seq; }

// Queries of a block. On Intel's processors three vectors of them feed the products better than two, but more of the diagonal is masked.
// With AVX2 as many as one panel has lanes, whose steps the products know.
int query_lanes(const Attention& a, Isa isa) {
  if (isa == Isa::kAvx2) return kMostQueryLanes / 2;
  return a.type == DType::kF32 && gemm_kernels(isa).packs_f32 && keys_seen(a) >= 1024 ? kMostQueryLanes : kQueryLanes;
}

// Where things lie in the dense tensors of one call.
struct Geometry {
  const Attention& a;
  int64_t element, q_token, k_token, v_token, heads, lanes, query_blocks;

  Geometry(const Attention& attention, Isa isa)
      : a(attention), element(dtype_bytes(a.type)), heads(a.batch * a.kv_heads), lanes(query_lanes(attention, isa)) {
    q_token = a.q_token != 0 ? a.q_token : a.kv_heads * a.q_per_kv * a.head_dim;
    k_token = a.k_token != 0 ? a.k_token : a.kv_heads * a.head_dim;
    v_token = a.v_token != 0 ? a.v_token : a.kv_heads * a.value_dim;
    query_blocks = ceil_div(a.seq, lanes);
  }
  int64_t query_row(int64_t batch, int64_t i, int64_t head, int64_t g) const {
    return ((batch * a.seq + i) * a.kv_heads + head) * a.q_per_kv + g;
  }
  KeyValueHead head(int64_t batch, int64_t head) const {
    return {.k = at(a.k, (batch * a.kv_seq * k_token + head * a.head_dim) * element),
            .v = at(a.v, (batch * a.kv_seq * v_token + head * a.value_dim) * element),
            .k_token = k_token,
            .v_token = v_token,
            .k_pairs = nullptr,
            .v_pairs = nullptr,
            .k_pairs_row = 0,
            .v_pairs_row = 0,
            .kv_seq = a.kv_seq,
            .segments = a.kv_segments == nullptr ? nullptr : a.kv_segments + batch * a.kv_seq,
            .head_dim = a.head_dim,
            .value_dim = a.value_dim,
            .scale = a.scale,
            .softcap = a.softcap,
            .ring = 0};
  }
  // The queries of one block of a head; the caller adds outputs and gradients, row by row.
  template <typename Add>
  void fill(QueryBlock& q, int64_t batch, int64_t head, int64_t g, int64_t block, Add&& add) const {
    const int64_t first = block * lanes;
    q.count = static_cast<int>(std::min<int64_t>(lanes, a.seq - first));
    for (int n = 0; n < kMostQueryLanes; ++n) {
      const int64_t i = first + n;
      clear_lane(q, n);
      if (n >= q.count) continue;
      if (a.has_sinks) q.sink[n] = sink_of(a.sinks, a.sinks_type, head * a.q_per_kv + g);
      const int64_t index = a.queries(i);
      q.limit[n] = key_number(a.causal ? std::min(a.keys.last_up_to(index), a.kv_seq - 1) : a.kv_seq - 1);
      q.lower[n] = key_number(a.window > 0 ? a.keys.last_up_to(index - a.window) : -1);
      if (a.q_segments != nullptr) q.segment[n] = a.q_segments[batch * a.seq + i];
      q.q[n] = at(a.q, ((batch * a.seq + i) * q_token + (head * a.q_per_kv + g) * a.head_dim) * element);
      add(n, query_row(batch, i, head, g));
    }
  }
};

// Keys or values of every head as pairs of neighbouring keys, [heads][ceil(kv_seq / 2)][n rounded up to 8] words, or as the rows of pairs
// that the kernels want, [heads][n][words].
struct PairCopy {
  int64_t n, row, bytes_per_head;
  bool rows;
  PairCopy(int64_t kv_seq, int64_t dim, Isa isa) : n(dim), rows(gemm_kernels(isa).rows_of_pairs(Word::kBf16Pair)) {
    const int64_t words = ceil_div(kv_seq, 2);
    row = rows ? packed_row_bytes(words) / 4 : round_up(dim, 8);
    bytes_per_head = round_up((rows ? n : words) * row * 4, 64);
  }

  void fill(char* copy, const void* data, int64_t token, int64_t kv_seq, const GemmKernels& gemm) const {
    const PackFunction pack = rows ? gemm.pack_rows_bf16 : gemm.pack_bf16;
    pack({.panel = copy,
          .width = static_cast<int>(row),
          .strip_stride = rows ? row * 4 : 0,
          .lanes = static_cast<int>(n),
          .depth = kv_seq,
          .source = data,
          .depth_stride = token,
          .lane_stride = 1});
  }
};

// Products of floats read keys and values from copies side by side where that pays: they are rows of few heads far apart, which share
// cache sets. With AVX2 always, and bf16 is widened so; on Zen 5 where many queries read each (backward over 8,192 tokens 8 % faster).
bool copies_floats(const Attention& a, Isa isa) {
  return isa == Isa::kAvx2 || (isa == Isa::kAvx512Bf16 && a.type == DType::kF32 && keys_seen(a) >= 2048);
}

// Those of one tensor, keys or values: where the copy of a head has its rows, and its columns.
class FloatCopies {
 public:
  FloatCopies(int64_t kv_seq, int64_t dim, bool rows, bool columns)
      : kv_seq_(kv_seq), dim_(dim), row_(round_up(dim, 8) + 8), column_(round_up(kv_seq, 8) + 8) {
    rows_ = rows ? round_up(kv_seq * row_, 16) : 0;
    columns_ = columns ? round_up(dim * column_, 16) : 0;
  }
  int64_t floats() const { return rows_ + columns_; }  // of one head
  FloatCopy at(float* copy) const {
    return {.rows = rows_ == 0 ? nullptr : copy, .row = row_, .columns = columns_ == 0 ? nullptr : copy + rows_, .column = column_};
  }
  void fill(float* copy, const void* data, DType type, int64_t token, const GemmKernels& gemm) const {
    const PackFunction pack = pack_function(gemm, type == DType::kBF16, Word::kF32);
    if (rows_ != 0) {
      pack({.panel = copy,
            .width = static_cast<int>(row_),
            .lanes = dim_,
            .depth = kv_seq_,
            .source = data,
            .depth_stride = token,
            .lane_stride = 1});
    }
    if (columns_ != 0) {
      pack({.panel = copy + rows_,
            .width = static_cast<int>(column_),
            .lanes = kv_seq_,
            .depth = dim_,
            .source = data,
            .depth_stride = 1,
            .lane_stride = token});
    }
  }

 private:
  int64_t kv_seq_, dim_, row_, column_;  // floats from row to row of [kv_seq][row], of [dim][column]
  int64_t rows_, columns_;
};

// Keys and values of all heads as a pass over attention reads them.
struct HeadCopies {
  FloatCopies k, v;

  static HeadCopies of_forward(const Attention& a, Isa isa) {
    const bool copies = copies_floats(a, isa);
    return {{a.kv_seq, a.head_dim, copies, false}, {a.kv_seq, a.value_dim, false, copies}};
  }
  static HeadCopies of_backward(const Attention& a, Isa isa) {
    const bool copies = copies_floats(a, isa);
    return {{a.kv_seq, a.head_dim, copies, copies}, {a.kv_seq, a.value_dim, copies, false}};
  }
  int64_t floats() const { return k.floats() + v.floats(); }  // of one head
  int64_t bytes(const Attention& a) const { return a.batch * a.kv_heads * floats() * 4; }
  void fill(const Geometry& geometry, float* copies, Isa isa, ThreadPool& pool) const {
    const Attention& a = geometry.a;
    pool.run(floats() == 0 ? 0 : geometry.heads, [&](int64_t n, int) {
      const KeyValueHead head = geometry.head(n / a.kv_heads, n % a.kv_heads);
      k.fill(copies + n * floats(), head.k, a.type, head.k_token, gemm_kernels(isa));
      v.fill(copies + n * floats() + k.floats(), head.v, a.type, head.v_token, gemm_kernels(isa));
    });
  }
  void use(KeyValueHead& head, float* copies, int64_t n) const {
    head.k_copy = k.at(copies + n * floats());
    head.v_copy = v.at(copies + n * floats() + k.floats());
  }
};

bool uses_pairs(const Attention& a, Isa isa) { return a.type == DType::kBF16 && attention_kernels(isa).has_bf16_pairs; }

int64_t backward_pieces(const Attention& a, Isa isa) {
  const int64_t heads = std::max<int64_t>(1, a.batch * a.kv_heads);
  return std::clamp<int64_t>(kTasks / heads, 1, std::max<int64_t>(1, a.q_per_kv * ceil_div(a.seq, query_lanes(a, isa))));
}
// One number per block of queries: its share of its head's dsink.
int64_t sink_sums_bytes(const Attention& a, Isa isa) {
  return a.has_sinks ? round_up(a.batch * a.kv_heads * a.q_per_kv * ceil_div(a.seq, query_lanes(a, isa)) * 4, 64) : 0;
}
// Arrays of dk and dv in FP32: one for each piece; where no head has several, each thread keeps one, which is written out while it is near.
int64_t gradient_sums(const Attention& a, Isa isa, int threads) {
  const int64_t pieces = backward_pieces(a, isa);
  return pieces == 1 ? threads : a.batch * a.kv_heads * pieces;
}
int64_t gradient_row(const Attention& a) { return round_up(a.head_dim, 16) + round_up(a.value_dim, 16); }

}  // namespace

int64_t attention_forward_scratch_bytes(int64_t head_dim, int64_t value_dim) {
  const int64_t d = round_up(head_dim, 16), dv = round_up(value_dim, 16), lanes = kMostQueryLanes;
  return (lanes * std::max(d, dv) + lanes * d + 128 * lanes + 2 * lanes * dv + 128 * (d + dv)) * 4 + 16 * 64;
}

int64_t attention_backward_scratch_bytes(int64_t head_dim, int64_t value_dim) {
  const int64_t d = round_up(head_dim, 16), dv = round_up(value_dim, 16), lanes = kMostQueryLanes;
  return (lanes * std::max(d, dv) + 2 * lanes * (d + dv) + 3 * 64 * lanes + 2 * lanes * d + 64 * (d + dv)) * 4 + 20 * 64;
}

int64_t attention_forward_workspace_bytes(const Attention& a, Isa isa, int threads) {
  check(a);
  const int64_t pairs = uses_pairs(a, isa) ? a.batch * a.kv_heads * PairCopy(a.kv_seq, a.value_dim, isa).bytes_per_head : 0;
  return pairs + HeadCopies::of_forward(a, isa).bytes(a) + threads * round_up(attention_forward_scratch_bytes(a.head_dim, a.value_dim), 64);
}

void attention_forward(const Attention& a, void* out, float* lse, Isa isa, void* workspace, ThreadPool& pool) {
  check(a);
  const AttentionKernels& kernels = attention_kernels(isa);
  const Geometry geometry(a, isa);
  const PairCopy copy(a.kv_seq, a.value_dim, isa);
  const bool pairs = uses_pairs(a, isa);
  char* const copies = static_cast<char*>(workspace);
  const HeadCopies float_copies = HeadCopies::of_forward(a, isa);
  float* const floats = reinterpret_cast<float*>(copies + (pairs ? geometry.heads * copy.bytes_per_head : 0));
  char* const scratch = reinterpret_cast<char*>(floats) + float_copies.bytes(a);
  const int64_t scratch_bytes = round_up(attention_forward_scratch_bytes(a.head_dim, a.value_dim), 64);
  float_copies.fill(geometry, floats, isa, pool);
  if (pairs && a.seq > 0) {
    pool.run(geometry.heads, [&](int64_t n, int) {
      const KeyValueHead head = geometry.head(n / a.kv_heads, n % a.kv_heads);
      copy.fill(copies + n * copy.bytes_per_head, head.v, head.v_token, a.kv_seq, gemm_kernels(isa));
    });
  }
  // Queries of the same keys follow each other, the last ones first, which see the most.
  const int64_t blocks_of_head = geometry.query_blocks * a.q_per_kv;
  pool.run(geometry.heads * blocks_of_head, [&](int64_t tile, int worker) {
    const int64_t n = tile / blocks_of_head, g = tile % a.q_per_kv;
    const int64_t block = geometry.query_blocks - 1 - tile % blocks_of_head / a.q_per_kv;
    KeyValueHead head = geometry.head(n / a.kv_heads, n % a.kv_heads);
    float_copies.use(head, floats, n);
    if (pairs) head.v_pairs = copies + n * copy.bytes_per_head, head.v_pairs_row = copy.row;
    QueryBlock q;
    geometry.fill(q, n / a.kv_heads, n % a.kv_heads, g, block, [&](int lane, int64_t row) {
      q.out[lane] = at(out, row * a.value_dim * geometry.element);
      q.lse[lane] = lse == nullptr ? nullptr : lse + row;
    });
    kernels.forward[a.type == DType::kBF16](head, q, scratch + worker * scratch_bytes);
  });
}

int64_t attention_backward_workspace_bytes(const Attention& a, Isa isa, int threads) {
  check(a);
  const int64_t heads = a.batch * a.kv_heads;
  const int64_t pairs = uses_pairs(a, isa) ? heads * PairCopy(a.kv_seq, a.head_dim, isa).bytes_per_head : 0;
  return pairs + HeadCopies::of_backward(a, isa).bytes(a) + round_up(gradient_sums(a, isa, threads) * a.kv_seq * gradient_row(a) * 4, 64) +
         sink_sums_bytes(a, isa) + threads * round_up(attention_backward_scratch_bytes(a.head_dim, a.value_dim), 64);
}

void attention_backward(const Attention& a, const AttentionBackward& b, Isa isa, void* workspace, ThreadPool& pool) {
  check(a);
  const AttentionKernels& kernels = attention_kernels(isa);
  const Geometry geometry(a, isa);
  const PairCopy copy(a.kv_seq, a.head_dim, isa);
  const bool pairs = uses_pairs(a, isa);
  const int64_t pieces = backward_pieces(a, isa), d16 = round_up(a.head_dim, 16), dv16 = round_up(a.value_dim, 16);
  const int64_t sums = a.kv_seq * gradient_row(a);  // floats: dk then dv of one head, as one piece of the queries gives it
  char* const copies = static_cast<char*>(workspace);
  const HeadCopies float_copies = HeadCopies::of_backward(a, isa);
  float* const floats = reinterpret_cast<float*>(copies + (pairs ? geometry.heads * copy.bytes_per_head : 0));
  float* const partial = floats + float_copies.bytes(a) / 4;
  float* const sink_sums =
      reinterpret_cast<float*>(reinterpret_cast<char*>(partial) + round_up(gradient_sums(a, isa, pool.threads()) * sums * 4, 64));
  char* const scratch = reinterpret_cast<char*>(sink_sums) + sink_sums_bytes(a, isa);
  const int64_t scratch_bytes = round_up(attention_backward_scratch_bytes(a.head_dim, a.value_dim), 64);
  if (pairs) {
    pool.run(geometry.heads, [&](int64_t n, int) {
      const KeyValueHead head = geometry.head(n / a.kv_heads, n % a.kv_heads);
      copy.fill(copies + n * copy.bytes_per_head, head.k, head.k_token, a.kv_seq, gemm_kernels(isa));
    });
  }
  float_copies.fill(geometry, floats, isa, pool);
  // dk and dv of keys [j, end) of a head, from the sums of all its pieces.
  const auto write_gradients = [&](int64_t n, const float* dk, int64_t j, int64_t end) {
    const auto sum_rows = kernels.sum_rows[a.type == DType::kBF16];
    const auto row_of = [&](void* base, int64_t key, int64_t dim) {
      const int64_t row = (n / a.kv_heads * a.kv_seq + key) * a.kv_heads + n % a.kv_heads;
      return at(base, row * dim * geometry.element);
    };
    constexpr int64_t kAhead = 8;  // rows lie on pages of their own, where no hardware prefetcher follows
    const auto fetch = [&](const void* row, int64_t dim) {
      for (int64_t byte = 0; byte < dim * geometry.element; byte += 64) __builtin_prefetch(at(row, byte), 1);
    };
    for (; j < end; ++j) {
      if (j + kAhead < end) {
        fetch(row_of(b.dk, j + kAhead, a.head_dim), a.head_dim);
        fetch(row_of(b.dv, j + kAhead, a.value_dim), a.value_dim);
      }
      sum_rows(row_of(b.dk, j, a.head_dim), dk + j * d16, a.head_dim, static_cast<int>(pieces), sums);
      sum_rows(row_of(b.dv, j, a.value_dim), dk + a.kv_seq * d16 + j * dv16, a.value_dim, static_cast<int>(pieces), sums);
    }
  };
  pool.run(geometry.heads * pieces, [&](int64_t task, int worker) {
    const int64_t n = task / pieces, batch = n / a.kv_heads, kv_head = n % a.kv_heads;
    float* const dk = partial + (pieces == 1 ? worker : task) * sums;
    float* const dv = dk + a.kv_seq * d16;
    std::fill_n(dk, sums, 0.0f);
    KeyValueHead head = geometry.head(batch, kv_head);
    float_copies.use(head, floats, n);
    if (pairs) head.k_pairs = copies + n * copy.bytes_per_head, head.k_pairs_row = copy.row;
    // Every pieces-th block of queries: under a causal mask the pieces then weigh the same.
    for (int64_t block = task % pieces; block < a.q_per_kv * geometry.query_blocks; block += pieces) {
      QueryBlock q;
      q.dsink = a.has_sinks ? sink_sums + n * a.q_per_kv * geometry.query_blocks + block : nullptr;
      geometry.fill(q, batch, kv_head, block / geometry.query_blocks, block % geometry.query_blocks, [&](int lane, int64_t row) {
        if (b.dlse != nullptr) q.dlse[lane] = b.dlse[row];
        q.out[lane] = const_cast<char*>(static_cast<const char*>(b.out)) + row * a.value_dim * geometry.element;
        q.lse[lane] = const_cast<float*>(b.lse) + row;
        q.dout[lane] = at(b.dout, row * a.value_dim * geometry.element);
        q.dq[lane] = at(b.dq, row * a.head_dim * geometry.element);
      });
      kernels.backward[a.type == DType::kBF16](head, q, dk, dv, scratch + worker * scratch_bytes);
    }
    if (pieces == 1) write_gradients(n, dk, 0, a.kv_seq);
  });
  constexpr int64_t kKeys = 64;
  const int64_t key_blocks = pieces == 1 ? 0 : ceil_div(a.kv_seq, kKeys);
  pool.run(geometry.heads * key_blocks, [&](int64_t tile, int) {
    const int64_t n = tile / key_blocks, first = tile % key_blocks * kKeys;
    write_gradients(n, partial + n * pieces * sums, first, std::min(a.kv_seq, first + kKeys));
  });
  for (int64_t head = 0; a.has_sinks && head < a.kv_heads * a.q_per_kv; ++head) {
    double sum = 0;
    for (int64_t batch = 0; batch < a.batch; ++batch) {
      const float* const shares = sink_sums + (batch * a.kv_heads * a.q_per_kv + head) * geometry.query_blocks;
      for (int64_t block = 0; block < geometry.query_blocks; ++block) sum += double{shares[block]};
    }
    store_element(b.dsinks_type, b.dsinks, head, sum);
  }
}

int64_t cached_attention_workspace_bytes(const CachedAttention& a, Isa, int threads) {
  check_type(a.type);
  return round_up((a.tokens + 1) * 4, 64) + threads * round_up(attention_forward_scratch_bytes(a.head_dim, a.value_dim), 64);
}

void cached_attention(const CachedAttention& a, void* out, Isa isa, void* workspace, ThreadPool& pool) {
  check_type(a.type);
  for (int64_t t = 0; t < a.tokens; ++t) {
    if (a.slot[t] >= a.slots || (a.slot[t] >= 0 && (a.position[t] < 0 || (!a.ring && a.position[t] >= a.cache_seq)))) {
      throw UserError(concat_text("cached attention: token ", t, " has slot ", a.slot[t], " and position ", a.position[t],
                                  "; the cache has ", a.slots, " slots of ", a.cache_seq, " positions"));
    }
  }
  const AttentionKernels& kernels = attention_kernels(isa);
  MW_CHECK(!a.ring || a.cache_seq % kKeyBlock == 0, "a ring of ", a.cache_seq, " keys");
  const int64_t element = dtype_bytes(a.type), k_token = a.kv_heads * a.head_dim;
  const bool prefix = a.v_cache == nullptr;
  const int64_t v_token = prefix ? k_token : a.kv_heads * a.value_dim, v_head = prefix ? a.head_dim : a.value_dim;
  const void* const values = prefix ? a.k_cache : a.v_cache;
  const int64_t scratch_bytes = round_up(attention_forward_scratch_bytes(a.head_dim, a.value_dim), 64);
  int32_t* const starts = static_cast<int32_t*>(workspace);
  char* const scratch = static_cast<char*>(workspace) + round_up((a.tokens + 1) * 4, 64);
  // Groups of tokens that follow each other in one slot; their queries share the lanes.
  const int64_t group_tokens = std::max<int64_t>(1, kQueryLanes / a.q_per_kv), chunks = ceil_div(a.q_per_kv, kQueryLanes);
  int64_t groups = 0;
  for (int64_t t = 0; t < a.tokens; ++t) {
    const bool follows = t > 0 && t - starts[groups - 1] < group_tokens && a.slot[t] >= 0 && a.slot[t] == a.slot[t - 1] &&
                         a.position[t] == a.position[t - 1] + 1;
    if (!follows) starts[groups++] = static_cast<int32_t>(t);
  }
  starts[groups] = static_cast<int32_t>(a.tokens);
  pool.run(groups * a.kv_heads * chunks, [&](int64_t tile, int worker) {
    const int64_t group = tile / (a.kv_heads * chunks), kv_head = tile / chunks % a.kv_heads, chunk = tile % chunks;
    const int64_t first_g = chunk * kQueryLanes, last_g = std::min<int64_t>(a.q_per_kv, first_g + kQueryLanes);
    const int32_t slot = a.slot[starts[group]];
    QueryBlock q;
    q.count = 0;
    for (int64_t t = starts[group]; t < starts[group + 1]; ++t) {
      for (int64_t g = first_g; g < last_g; ++g) {
        const int64_t row = (t * a.kv_heads + kv_head) * a.q_per_kv + g;
        char* const out_row = static_cast<char*>(out) + row * a.value_dim * element;
        if (slot < 0) {
          std::fill_n(out_row, a.value_dim * element, '\0');
          continue;
        }
        const int n = q.count++;
        clear_lane(q, n);
        const int64_t position = a.position[t];
        q.limit[n] = a.position[t];
        q.lower[n] = key_number(a.chunk > 0 ? position - position % a.chunk - 1 : a.window > 0 ? position - a.window : -1);
        if (a.sinks != nullptr) q.sink[n] = sink_of(a.sinks, a.sinks_type, kv_head * a.q_per_kv + g);
        q.q[n] = at(a.q, row * a.head_dim * element);
        q.out[n] = out_row;
        q.lse[n] = nullptr;
      }
    }
    if (q.count == 0) return;
    for (int n = q.count; n < kMostQueryLanes; ++n) clear_lane(q, n);
    const int64_t first_key = slot * a.cache_seq;
    const KeyValueHead head{.k = at(a.k_cache, (first_key * k_token + kv_head * a.head_dim) * element),
                            .v = at(values, (first_key * v_token + kv_head * v_head) * element),
                            .k_token = k_token,
                            .v_token = v_token,
                            .k_pairs = nullptr,
                            .v_pairs = nullptr,
                            .k_pairs_row = 0,
                            .v_pairs_row = 0,
                            .kv_seq = a.ring ? std::numeric_limits<int32_t>::max() : a.cache_seq,
                            .segments = nullptr,
                            .head_dim = a.head_dim,
                            .value_dim = a.value_dim,
                            .scale = a.scale,
                            .softcap = a.softcap,
                            .ring = a.ring ? a.cache_seq : 0};
    kernels.forward[a.type == DType::kBF16](head, q, scratch + worker * scratch_bytes);
  });
}

}  // namespace mw
