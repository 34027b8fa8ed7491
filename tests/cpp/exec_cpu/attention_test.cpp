#include "exec/cpu/kernels/attention.h"

#include <cmath>
#include <limits>

#include "exec/cpu/kernels/attention_kernels.h"
#include "kernel_testing.h"

namespace mw {
namespace {

using testing::Tensor;
using testing::Workspace;
constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;

struct Case {
  int64_t batch, seq, kv_seq, kv_heads, q_per_kv, head_dim, value_dim;
  DType type;
  bool causal;
  int64_t offset, window;
  bool segments;
  double softcap = 0;
  bool sinks = false, lse_gradient = false;
  float scale = 0.3f;
};

struct Problem {
  Case t;
  int64_t rows, keys;
  Tensor q, k, v, dout, sinks, dlse;
  std::vector<int32_t> q_segments, kv_segments;

  explicit Problem(const Case& c)
      : t(c),
        rows(c.batch * c.seq * c.kv_heads * c.q_per_kv),
        keys(c.batch * c.kv_seq * c.kv_heads),
        q(Tensor::random(c.type, rows * c.head_dim, 1, 2)),
        k(Tensor::random(c.type, keys * c.head_dim, 2, 2)),
        v(Tensor::random(c.type, keys * c.value_dim, 3)),
        dout(Tensor::random(c.type, rows * c.value_dim, 4)),
        sinks(Tensor::random(c.type, c.kv_heads * c.q_per_kv, 5, 3)),
        dlse(Tensor::random(kF32, rows, 6)) {
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t i = 0; i < c.seq; ++i) q_segments.push_back(static_cast<int32_t>(i * 5 / c.seq + b));
      for (int64_t j = 0; j < c.kv_seq; ++j) kv_segments.push_back(static_cast<int32_t>(j * 5 / c.kv_seq + b));
    }
    if (c.segments && c.seq > 2) q_segments[2] = 99;  // sees nothing
  }
  Attention arguments() const {
    return {.batch = t.batch,
            .seq = t.seq,
            .kv_seq = t.kv_seq,
            .kv_heads = t.kv_heads,
            .q_per_kv = t.q_per_kv,
            .head_dim = t.head_dim,
            .value_dim = t.value_dim,
            .type = t.type,
            .q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .scale = t.scale,
            .causal = t.causal,
            .queries = {.offset = t.offset},
            .window = t.window,
            .q_segments = t.segments ? q_segments.data() : nullptr,
            .kv_segments = t.segments ? kv_segments.data() : nullptr,
            .softcap = static_cast<float>(t.softcap),
            .has_sinks = t.sinks,
            .sinks = sinks.data(),
            .sinks_type = t.type};
  }
  double capped(double s) const { return t.softcap > 0 ? t.softcap * std::tanh(s / t.softcap) : s; }
  bool sees(int64_t b, int64_t i, int64_t j) const {
    if (t.causal && j > i + t.offset) return false;
    if (t.window > 0 && j <= i + t.offset - t.window) return false;
    return !t.segments || q_segments[b * t.seq + i] == kv_segments[b * t.kv_seq + j];
  }
};

struct Results {
  std::vector<double> out, lse, dq, dk, dv, dsinks;
  bool operator==(const Results&) const = default;
};

Results naive(const Problem& p) {
  const Case& t = p.t;
  const int64_t d = t.head_dim, dv = t.value_dim;
  Results r{std::vector<double>(p.rows * dv), std::vector<double>(p.rows),      std::vector<double>(p.rows * d),
            std::vector<double>(p.keys * d),  std::vector<double>(p.keys * dv), std::vector<double>(t.sinks ? p.sinks.values.size() : 0)};
  std::vector<double> probability(t.kv_seq);
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t h = row / t.q_per_kv % t.kv_heads, i = row / t.q_per_kv / t.kv_heads % t.seq, b = row / t.q_per_kv / t.kv_heads / t.seq;
    const size_t head = static_cast<size_t>(row % (t.kv_heads * t.q_per_kv));
    double largest = t.sinks ? p.sinks.values[head] : -std::numeric_limits<double>::infinity();
    const auto key = [&](int64_t j) { return (b * t.kv_seq + j) * t.kv_heads + h; };
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      probability[j] = -std::numeric_limits<double>::infinity();
      if (!p.sees(b, i, j)) continue;
      probability[j] = 0;
      for (int64_t e = 0; e < d; ++e) probability[j] += t.scale * p.q.values[row * d + e] * p.k.values[key(j) * d + e];
      probability[j] = p.capped(probability[j]);
      largest = std::max(largest, probability[j]);
    }
    r.lse[row] = largest;
    if (!std::isfinite(largest)) continue;
    double sum = t.sinks ? std::exp(p.sinks.values[head] - largest) : 0;
    for (double& x : probability) sum += x = std::exp(x - largest);
    r.lse[row] += std::log(sum);
    double delta = 0;
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      probability[j] /= sum;
      for (int64_t e = 0; e < dv; ++e) r.out[row * dv + e] += probability[j] * p.v.values[key(j) * dv + e];
    }
    for (int64_t e = 0; e < dv; ++e) delta += r.out[row * dv + e] * p.dout.values[row * dv + e];
    if (t.lse_gradient) delta -= p.dlse.values[row];
    if (t.sinks) r.dsinks[head] -= std::exp(p.sinks.values[head] - r.lse[row]) * delta;
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      double dp = 0;
      for (int64_t e = 0; e < dv; ++e) {
        dp += p.dout.values[row * dv + e] * p.v.values[key(j) * dv + e];
        r.dv[key(j) * dv + e] += probability[j] * p.dout.values[row * dv + e];
      }
      double slope = 1;
      if (t.softcap > 0 && probability[j] > 0) {
        const double tanh = (std::log(probability[j]) + r.lse[row]) / t.softcap;
        slope = 1 - tanh * tanh;
      }
      const double ds = t.scale * probability[j] * (dp - delta) * slope;
      for (int64_t e = 0; e < d; ++e) {
        r.dq[row * d + e] += ds * p.k.values[key(j) * d + e];
        r.dk[key(j) * d + e] += ds * p.q.values[row * d + e];
      }
    }
  }
  return r;
}

Results run(const Problem& p, Isa isa, int threads) {
  const Case& t = p.t;
  const Attention a = p.arguments();
  ThreadPool pool(threads);
  Tensor out(t.type, p.rows * t.value_dim), lse(kF32, p.rows), dq(t.type, p.rows * t.head_dim), dk(t.type, p.keys * t.head_dim),
      dv(t.type, p.keys * t.value_dim), dsinks(kF32, t.sinks ? t.kv_heads * t.q_per_kv : 0);
  Workspace forward(attention_forward_workspace_bytes(a, isa, threads)), backward(attention_backward_workspace_bytes(a, isa, threads));
  attention_forward(a, out.data(), lse.floats(), isa, forward.data(), pool);
  attention_backward(a,
                     {.out = out.data(),
                      .lse = lse.floats(),
                      .dout = p.dout.data(),
                      .dq = dq.data(),
                      .dk = dk.data(),
                      .dv = dv.data(),
                      .dlse = t.lse_gradient ? p.dlse.floats() : nullptr,
                      .dsinks = dsinks.data()},
                     isa, backward.data(), pool);
  std::vector<double> lses = lse.loaded();
  for (double& x : lses) x = x == kNothingSeen ? -std::numeric_limits<double>::infinity() : x;  // else the tolerance would be of 1e30
  return {out.loaded(), lses, dq.loaded(), dk.loaded(), dv.loaded(), dsinks.loaded()};
}

std::string describe(const Case& t, Isa isa, const char* what) {
  return concat_text("attention ", what, " ", isa_name(isa), " ", dtype_name(t.type), " batch ", t.batch, " seq ", t.seq, " kv ", t.kv_seq,
                     " heads ", t.kv_heads, "x", t.q_per_kv, " dims ", t.head_dim, " ", t.value_dim, t.causal ? " causal" : "", " offset ",
                     t.offset, " window ", t.window, t.segments ? " segments" : "", " softcap ", t.softcap, " scale ", t.scale,
                     t.sinks ? " sinks" : "");
}

const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, kF32, false, 0, 0, false},
    {2, 40, 40, 2, 3, 16, 16, kF32, true, 0, 0, false},
    {1, 33, 70, 1, 2, 48, 48, kF32, false, 0, 0, false},
    {1, 150, 150, 1, 1, 64, 64, kF32, true, 0, 20, false},
    {2, 100, 100, 1, 2, 13, 11, kF32, true, 0, 0, true},
    {1, 300, 300, 2, 1, 80, 40, kF32, true, 0, 0, true},
    {1, 20, 50, 1, 2, 96, 96, kF32, true, 30, 0, false},
    {1, 20, 50, 1, 2, 24, 24, kF32, true, -7, 0, false},  // the first queries see nothing
    {1, 30, 30, 1, 1, 128, 128, kF32, false, 0, 9, false},
    {1, 5, 0, 1, 1, 8, 8, kF32, false, 0, 0, false},
    {2, 40, 40, 2, 3, 16, 16, kBF16, true, 0, 0, false},
    {1, 150, 151, 1, 2, 64, 64, kBF16, true, 0, 25, false},
    {1, 67, 67, 2, 1, 13, 11, kBF16, true, 0, 0, true},
    {1, 20, 53, 1, 2, 48, 80, kBF16, false, 0, 0, false},
    // softcap, sinks, the log-sum-exp's gradient
    {2, 40, 40, 2, 2, 16, 16, kF32, true, 0, 0, false, 2.5},
    {1, 150, 150, 1, 1, 64, 64, kF32, true, 0, 20, false, 50},
    {2, 40, 40, 2, 2, 16, 16, kBF16, true, 0, 0, true, 4},
    {2, 70, 70, 2, 3, 16, 16, kF32, true, 0, 0, false, 0, true},
    {2, 100, 100, 1, 2, 13, 11, kF32, true, 0, 9, true, 3, true, true},
    {2, 67, 67, 2, 1, 16, 24, kBF16, true, 0, 0, true, 0, true},
    {1, 40, 40, 1, 2, 16, 16, kF32, true, 0, 0, false, 0, false, true},
    // so many heads that none is cut into pieces
    {6, 70, 70, 3, 2, 16, 16, kF32, true, 0, 0, false},
    {6, 70, 70, 3, 2, 16, 24, kBF16, true, 0, 9, true, 0, true},
    // scales that are not positive
    {1, 40, 40, 1, 2, 16, 16, kF32, true, 0, 9, false, 0, false, false, -0.3f},
    {1, 40, 40, 1, 2, 16, 16, kBF16, true, 0, 0, true, 0, true, false, -0.3f},
    {1, 40, 40, 1, 2, 16, 16, kF32, true, 0, 0, true, 0, false, false, 0},
    // so many keys that a block has 48 queries where the kernels like that
    {1, 75, 1100, 1, 2, 16, 13, kF32, true, 1025, 0, false, 0, true},
    {1, 110, 1100, 1, 1, 16, 16, kF32, true, 990, 1050, true, 3},
    // so many that float32 reads copies of keys and values
    {2, 41, 2100, 2, 2, 16, 13, kF32, true, 2059, 0, false, 0, true},
    {1, 70, 2150, 1, 1, 24, 24, kF32, true, 2080, 2070, true, 3},
    // multi-head latent attention, as it trains and as it decodes
    {2, 40, 40, 3, 1, 24, 16, kF32, true, 0, 0, true},
    {2, 40, 40, 3, 1, 24, 16, kBF16, true, 0, 0, true},
    {1, 70, 70, 2, 1, 192, 128, kF32, true, 0, 0, false},
    {1, 70, 70, 2, 1, 192, 128, kBF16, true, 0, 0, false},
    {1, 33, 66, 1, 2, 576, 512, kF32, false, 0, 0, false, 3, true},
    {1, 33, 66, 1, 2, 576, 512, kBF16, false, 0, 0, false},
};

TEST(attention, equals_naive_loops_at_every_isa) {
  for (const Case& t : kCases) {
    const Problem p(t);
    const Results expected = naive(p);
    const double tolerance = testing::tolerance_of(t.type);
    for (Isa isa : available_isas()) {
      const Results r = run(p, isa, 2);
      testing::expect_close(r.out, expected.out, tolerance, describe(t, isa, "out"));
      testing::expect_close(r.lse, expected.lse, 1e-5, describe(t, isa, "lse"));
      testing::expect_close(r.dq, expected.dq, tolerance, describe(t, isa, "dq"));
      testing::expect_close(r.dk, expected.dk, tolerance, describe(t, isa, "dk"));
      testing::expect_close(r.dv, expected.dv, tolerance, describe(t, isa, "dv"));
      // A sum of differences over all rows, each of which reads `out` as rounded.
      testing::expect_close(r.dsinks, expected.dsinks, 2 * tolerance, describe(t, isa, "dsinks"));
    }
  }
}

TEST(attention, same_bits_for_any_number_of_threads) {
  for (const Case& t : kCases) {
    const Problem p(t);
    for (Isa isa : available_isas()) {
      const Results one = run(p, isa, 1);
      for (int threads : {2, 3}) EXPECT(run(p, isa, threads) == one);
    }
  }
}

TEST(attention, strided_tokens_read_a_fused_projection) {
  const int64_t seq = 20, d = 8, token = 3 * d;  // q, k and v of one head side by side
  const Tensor fused = Tensor::random(kF32, seq * token, 5);
  Tensor q(kF32, seq * d), k(kF32, seq * d), v(kF32, seq * d);
  for (int64_t i = 0; i < seq; ++i) {
    for (Tensor* part : {&q, &k, &v}) {
      std::copy_n(fused.floats() + i * token + (part == &q ? 0 : part == &k ? d : 2 * d), d, part->floats() + i * d);
    }
  }
  Attention a{.batch = 1,
              .seq = seq,
              .kv_seq = seq,
              .kv_heads = 1,
              .q_per_kv = 1,
              .head_dim = d,
              .value_dim = d,
              .type = kF32,
              .q = q.data(),
              .k = k.data(),
              .v = v.data(),
              .causal = true};
  const Isa isa = chosen_isa();
  ThreadPool pool(1);
  Workspace workspace(attention_forward_workspace_bytes(a, isa, 1));
  Tensor dense(kF32, seq * d), strided(kF32, seq * d);
  attention_forward(a, dense.data(), nullptr, isa, workspace.data(), pool);
  a.q = fused.floats(), a.k = fused.floats() + d, a.v = fused.floats() + 2 * d;
  a.q_token = a.k_token = a.v_token = token;
  attention_forward(a, strided.data(), nullptr, isa, workspace.data(), pool);
  EXPECT(dense.bytes == strided.bytes);
}

// How tokens see their slot.
struct View {
  int64_t window = 0, chunk = 0;
  double softcap = 0;
  bool sinks = false;
  int64_t value_prefix = 0;
  float scale = 0.3f;
};

// Tokens of four slots against a cache: a prefill, single tokens, padding.
struct CachedProblem {
  static constexpr int64_t kSlots = 4, kSeq = 200, kHeads = 2;
  int64_t g, d, dv;
  DType type;
  View view;
  std::vector<int32_t> slot, position;
  Tensor q, k, v, sinks;

  CachedProblem(int64_t q_per_kv, int64_t dim, DType t, View how)
      : g(q_per_kv),
        d(dim),
        dv(how.value_prefix > 0 ? how.value_prefix : dim),
        type(t),
        view(how),
        q(t, 0),
        k(Tensor::random(t, kSlots * kSeq * kHeads * d, 2, 2)),
        v(Tensor::random(t, kSlots * kSeq * kHeads * d, 3)),
        sinks(Tensor::random(kBF16, kHeads * g, 4, 3)) {
    const auto add = [&](int s, int first, int count) {
      for (int i = 0; i < count; ++i) slot.push_back(s), position.push_back(first + i);
    };
    add(2, 0, 50), add(0, 199, 1), add(1, 130, 1), add(-1, 0, 2), add(3, 127, 3), add(3, 0, 1);
    q = Tensor::random(t, static_cast<int64_t>(slot.size()) * kHeads * g * d, 1, 2);
  }
  CachedAttention arguments(int64_t first, int64_t count) const {
    const int64_t row = kHeads * g * d * dtype_bytes(type);
    return {.tokens = count,
            .kv_heads = kHeads,
            .q_per_kv = g,
            .head_dim = d,
            .value_dim = dv,
            .slots = kSlots,
            .cache_seq = kSeq,
            .type = type,
            .q = q.bytes.data() + first * row,
            .k_cache = k.data(),
            .v_cache = view.value_prefix > 0 ? nullptr : v.data(),
            .slot = slot.data() + first,
            .position = position.data() + first,
            .scale = view.scale,
            .window = view.window,
            .chunk = view.chunk,
            .softcap = static_cast<float>(view.softcap),
            .sinks = view.sinks ? sinks.data() : nullptr,
            .sinks_type = kBF16};
  }
  std::vector<double> run(const CachedAttention& a, Isa isa, int threads) const {
    Workspace workspace(cached_attention_workspace_bytes(a, isa, threads));
    ThreadPool pool(threads);
    Tensor out(type, a.tokens * kHeads * g * dv);
    cached_attention(a, out.data(), isa, workspace.data(), pool);
    return out.loaded();
  }
  std::vector<double> run(int64_t first, int64_t count, Isa isa, int threads) const { return run(arguments(first, count), isa, threads); }

  // A cache in rows that go round: of each slot the last `rows` positions up to `last[slot]`.
  Tensor ring(const Tensor& cache, int64_t rows, const std::vector<int>& last) const {
    const int64_t row = kHeads * d;
    Tensor ring(type, kSlots * rows * row);
    for (int64_t s = 0; s < kSlots; ++s) {
      for (int64_t p = std::max<int64_t>(0, last[s] - rows + 1); p <= last[s]; ++p)
        std::copy_n(cache.bytes.data() + (s * kSeq + p) * row * dtype_bytes(type), row * dtype_bytes(type),
                    ring.bytes.data() + (s * rows + p % rows) * row * dtype_bytes(type));
    }
    return ring;
  }

  int first_seen(int p) const {
    if (view.chunk > 0) return p - p % static_cast<int>(view.chunk);
    return view.window > 0 ? std::max<int>(0, p - static_cast<int>(view.window) + 1) : 0;
  }
  std::vector<double> naive() const {
    std::vector<double> out(slot.size() * static_cast<size_t>(kHeads * g * dv));
    for (size_t t = 0; t < slot.size(); ++t) {
      for (int64_t n = 0; n < kHeads * g && slot[t] >= 0; ++n) {
        const int64_t row = static_cast<int64_t>(t) * kHeads * g + n;
        std::vector<double> p;
        double sum = view.sinks ? std::exp(sinks.values[n]) : 0;
        const int first = first_seen(position[t]);
        const auto key = [&](int j) { return ((slot[t] * kSeq + j) * kHeads + n / g) * d; };
        for (int j = first; j <= position[t]; ++j) {
          double s = 0;
          for (int64_t e = 0; e < d; ++e) s += view.scale * q.values[row * d + e] * k.values[key(j) + e];
          if (view.softcap > 0) s = view.softcap * std::tanh(s / view.softcap);
          p.push_back(std::exp(s));
          sum += p.back();
        }
        const Tensor& from = view.value_prefix > 0 ? k : v;
        for (int j = first; j <= position[t]; ++j) {
          for (int64_t e = 0; e < dv; ++e) out[row * dv + e] += p[j - first] / sum * from.values[key(j) + e];
        }
      }
    }
    return out;
  }
};

TEST(cached_attention, equals_naive_loops_and_no_token_depends_on_its_neighbours) {
  const CachedProblem problems[] = {{3, 16, kF32, {}},
                                    {1, 64, kF32, {.window = 40}},
                                    {40, 8, kF32, {}},
                                    {3, 16, kBF16, {}},
                                    {2, 13, kBF16, {.window = 33}},
                                    {3, 16, kF32, {.chunk = 48, .softcap = 3}},
                                    {3, 16, kBF16, {.chunk = 7}},
                                    {2, 16, kF32, {.window = 9, .sinks = true}},
                                    {3, 16, kBF16, {.softcap = 5, .sinks = true}},
                                    {3, 24, kF32, {.value_prefix = 16}},
                                    {5, 21, kBF16, {.value_prefix = 13}},
                                    {40, 576, kF32, {.value_prefix = 512, .scale = 0.05f}},
                                    {40, 576, kBF16, {.value_prefix = 512, .scale = 0.05f}}};
  for (const CachedProblem& p : problems) {
    const int64_t tokens = static_cast<int64_t>(p.slot.size()), row = CachedProblem::kHeads * p.g * p.dv;
    const std::vector<double> expected = p.naive();
    for (Isa isa : available_isas()) {
      const std::vector<double> all = p.run(0, tokens, isa, 2);
      testing::expect_close(all, expected, testing::tolerance_of(p.type), concat_text("cached attention ", isa_name(isa), " of ", p.d));
      EXPECT(p.run(0, tokens, isa, 3) == all);
      for (int64_t t = 0; t < tokens; t += p.d > 100 ? 9 : 1) {
        EXPECT(p.run(t, 1, isa, 1) == std::vector<double>(all.begin() + t * row, all.begin() + (t + 1) * row));
      }
    }
  }
}

// Slot 2 has 50 tokens and slot 0 its 200th: 128 rows hold the 70 that are in sight of any of them.
TEST(cached_attention, a_ring_gives_the_bits_of_a_cache_without_end) {
  const std::vector<int> last{199, 130, 49, 129};
  const int64_t rows = 128;
  for (const DType type : {kF32, kBF16}) {
    for (const View view : {View{.window = 20}, View{.chunk = 64}, View{.window = 70, .softcap = 4, .sinks = true}}) {
      CachedProblem p(3, 16, type, view);
      p.slot.pop_back(), p.position.pop_back();  // slot 3 is far beyond its first token
      const int64_t tokens = static_cast<int64_t>(p.slot.size());
      const Tensor keys = p.ring(p.k, rows, last), values = p.ring(p.v, rows, last);
      for (Isa isa : available_isas()) {
        CachedAttention a = p.arguments(0, tokens);
        a.ring = true, a.cache_seq = rows, a.k_cache = keys.data(), a.v_cache = values.data();
        EXPECT(p.run(a, isa, 2) == p.run(0, tokens, isa, 2));
      }
    }
  }
}

TEST(cached_attention, a_position_outside_the_cache_is_an_error) {
  CachedProblem p(1, 8, kF32, {});
  p.position[3] = 200;
  EXPECT_ERROR(UserError, { p.run(0, 10, chosen_isa(), 1); }, "token 3", "position 200", "4 slots of 200 positions");
}

}  // namespace
}  // namespace mw
