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
};

struct Problem {
  Case t;
  int64_t rows, keys;
  Tensor q, k, v, dout;
  std::vector<int32_t> q_segments, kv_segments;

  explicit Problem(const Case& c)
      : t(c),
        rows(c.batch * c.seq * c.kv_heads * c.q_per_kv),
        keys(c.batch * c.kv_seq * c.kv_heads),
        q(Tensor::random(c.type, rows * c.head_dim, 1, 2)),
        k(Tensor::random(c.type, keys * c.head_dim, 2, 2)),
        v(Tensor::random(c.type, keys * c.value_dim, 3)),
        dout(Tensor::random(c.type, rows * c.value_dim, 4)) {
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
            .scale = 0.3f,
            .causal = t.causal,
            .offset = t.offset,
            .window = t.window,
            .q_segments = t.segments ? q_segments.data() : nullptr,
            .kv_segments = t.segments ? kv_segments.data() : nullptr};
  }
  bool sees(int64_t b, int64_t i, int64_t j) const {
    if (t.causal && j > i + t.offset) return false;
    if (t.window > 0 && j <= i + t.offset - t.window) return false;
    return !t.segments || q_segments[b * t.seq + i] == kv_segments[b * t.kv_seq + j];
  }
};

struct Results {
  std::vector<double> out, lse, dq, dk, dv;
  bool operator==(const Results&) const = default;
};

// `out` given: the rounded one that the kernel's backward reads.
Results naive(const Problem& p) {
  const Case& t = p.t;
  const int64_t d = t.head_dim, dv = t.value_dim;
  Results r{std::vector<double>(p.rows * dv), std::vector<double>(p.rows), std::vector<double>(p.rows * d), std::vector<double>(p.keys * d),
            std::vector<double>(p.keys * dv)};
  std::vector<double> probability(t.kv_seq);
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t h = row / t.q_per_kv % t.kv_heads, i = row / t.q_per_kv / t.kv_heads % t.seq, b = row / t.q_per_kv / t.kv_heads / t.seq;
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    const auto key = [&](int64_t j) { return (b * t.kv_seq + j) * t.kv_heads + h; };
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      probability[j] = -std::numeric_limits<double>::infinity();
      if (!p.sees(b, i, j)) continue;
      probability[j] = 0;
      for (int64_t e = 0; e < d; ++e) probability[j] += 0.3f * p.q.values[row * d + e] * p.k.values[key(j) * d + e];
      largest = std::max(largest, probability[j]);
    }
    r.lse[row] = largest;
    if (!std::isfinite(largest)) continue;
    for (double& x : probability) sum += x = std::exp(x - largest);
    r.lse[row] += std::log(sum);
    double delta = 0;
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      probability[j] /= sum;
      for (int64_t e = 0; e < dv; ++e) r.out[row * dv + e] += probability[j] * p.v.values[key(j) * dv + e];
    }
    for (int64_t e = 0; e < dv; ++e) delta += r.out[row * dv + e] * p.dout.values[row * dv + e];
    for (int64_t j = 0; j < t.kv_seq; ++j) {
      double dp = 0;
      for (int64_t e = 0; e < dv; ++e) {
        dp += p.dout.values[row * dv + e] * p.v.values[key(j) * dv + e];
        r.dv[key(j) * dv + e] += probability[j] * p.dout.values[row * dv + e];
      }
      const double ds = 0.3f * probability[j] * (dp - delta);
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
      dv(t.type, p.keys * t.value_dim);
  Workspace forward(attention_forward_workspace_bytes(a, isa, threads)), backward(attention_backward_workspace_bytes(a, isa, threads));
  attention_forward(a, out.data(), lse.floats(), isa, forward.data(), pool);
  attention_backward(a, {out.data(), lse.floats(), p.dout.data(), dq.data(), dk.data(), dv.data()}, isa, backward.data(), pool);
  std::vector<double> lses = lse.loaded();
  for (double& x : lses) x = x == kNothingSeen ? -std::numeric_limits<double>::infinity() : x;  // else the tolerance would be of 1e30
  return {out.loaded(), lses, dq.loaded(), dk.loaded(), dv.loaded()};
}

std::string describe(const Case& t, Isa isa, const char* what) {
  return concat_text("attention ", what, " ", isa_name(isa), " ", dtype_name(t.type), " batch ", t.batch, " seq ", t.seq, " kv ", t.kv_seq,
                     " heads ", t.kv_heads, "x", t.q_per_kv, " dims ", t.head_dim, " ", t.value_dim, t.causal ? " causal" : "", " offset ",
                     t.offset, " window ", t.window, t.segments ? " segments" : "");
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

// Tokens of four slots against a cache: a prefill, single tokens, padding.
struct CachedProblem {
  static constexpr int64_t kSlots = 4, kSeq = 200, kHeads = 2;
  int64_t g, d;
  DType type;
  int64_t window;
  std::vector<int32_t> slot, position;
  Tensor q, k, v;

  CachedProblem(int64_t q_per_kv, int64_t dim, DType t, int64_t w) : g(q_per_kv), d(dim), type(t), window(w), q(t, 0), k(t, 0), v(t, 0) {
    const auto add = [&](int s, int first, int count) {
      for (int i = 0; i < count; ++i) slot.push_back(s), position.push_back(first + i);
    };
    add(2, 0, 50), add(0, 199, 1), add(1, 130, 1), add(-1, 0, 2), add(3, 127, 3), add(3, 0, 1);
    q = Tensor::random(t, static_cast<int64_t>(slot.size()) * kHeads * g * d, 1, 2);
    k = Tensor::random(t, kSlots * kSeq * kHeads * d, 2, 2);
    v = Tensor::random(t, kSlots * kSeq * kHeads * d, 3);
  }
  CachedAttention arguments(int64_t first, int64_t count) const {
    const int64_t row = kHeads * g * d * dtype_bytes(type);
    return {.tokens = count,
            .kv_heads = kHeads,
            .q_per_kv = g,
            .head_dim = d,
            .value_dim = d,
            .slots = kSlots,
            .cache_seq = kSeq,
            .type = type,
            .q = q.bytes.data() + first * row,
            .k_cache = k.data(),
            .v_cache = v.data(),
            .slot = slot.data() + first,
            .position = position.data() + first,
            .scale = 0.3f,
            .window = window};
  }
  std::vector<double> run(int64_t first, int64_t count, Isa isa, int threads) const {
    const CachedAttention a = arguments(first, count);
    Workspace workspace(cached_attention_workspace_bytes(a, isa, threads));
    ThreadPool pool(threads);
    Tensor out(type, count * kHeads * g * d);
    cached_attention(a, out.data(), isa, workspace.data(), pool);
    return out.loaded();
  }
  std::vector<double> naive() const {
    std::vector<double> out(q.values.size());
    for (size_t t = 0; t < slot.size(); ++t) {
      for (int64_t n = 0; n < kHeads * g && slot[t] >= 0; ++n) {
        const int64_t row = static_cast<int64_t>(t) * kHeads * g + n;
        std::vector<double> p;
        double sum = 0;
        const int first = window > 0 ? std::max<int>(0, position[t] - static_cast<int>(window) + 1) : 0;
        const auto key = [&](int j) { return ((slot[t] * kSeq + j) * kHeads + n / g) * d; };
        for (int j = first; j <= position[t]; ++j) {
          double s = 0;
          for (int64_t e = 0; e < d; ++e) s += 0.3f * q.values[row * d + e] * k.values[key(j) + e];
          p.push_back(std::exp(s));
          sum += p.back();
        }
        for (int j = first; j <= position[t]; ++j) {
          for (int64_t e = 0; e < d; ++e) out[row * d + e] += p[j - first] / sum * v.values[key(j) + e];
        }
      }
    }
    return out;
  }
};

TEST(cached_attention, equals_naive_loops_and_no_token_depends_on_its_neighbours) {
  const CachedProblem problems[] = {{3, 16, kF32, 0}, {1, 64, kF32, 40}, {40, 8, kF32, 0}, {3, 16, kBF16, 0}, {2, 13, kBF16, 33}};
  for (const CachedProblem& p : problems) {
    const int64_t tokens = static_cast<int64_t>(p.slot.size()), row = CachedProblem::kHeads * p.g * p.d;
    const std::vector<double> expected = p.naive();
    for (Isa isa : available_isas()) {
      const std::vector<double> all = p.run(0, tokens, isa, 2);
      testing::expect_close(all, expected, testing::tolerance_of(p.type), concat_text("cached attention ", isa_name(isa)));
      EXPECT(p.run(0, tokens, isa, 3) == all);
      for (int64_t t = 0; t < tokens; ++t) {
        EXPECT(p.run(t, 1, isa, 1) == std::vector<double>(all.begin() + t * row, all.begin() + (t + 1) * row));
      }
    }
  }
}

TEST(cached_attention, a_position_outside_the_cache_is_an_error) {
  CachedProblem p(1, 8, kF32, 0);
  p.position[3] = 200;
  EXPECT_ERROR(UserError, { p.run(0, 10, chosen_isa(), 1); }, "token 3", "position 200", "4 slots of 200 positions");
}

}  // namespace
}  // namespace mw
