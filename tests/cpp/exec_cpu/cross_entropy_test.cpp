#include "exec/cpu/kernels/cross_entropy.h"

#include <cmath>

#include "kernel_testing.h"

namespace mw {
namespace {

using testing::Tensor;
using testing::Workspace;
constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;

struct Case {
  int64_t tokens, vocab, embed, chunk;
  DType x, w, dx;
  double scale;  // of x and w: large ones make exponents that pass the limit
  bool accumulate;
  int64_t offset = 0;
  float softcap = 0;
};

struct Results {
  std::vector<double> lse, target_logit, nll, dx, dw;
  bool operator==(const Results&) const = default;
};

struct Problem {
  Case t;
  Tensor x, w;
  std::vector<int32_t> targets;
  std::vector<float> scale;

  explicit Problem(const Case& c)
      : t(c), x(Tensor::random(c.x, c.tokens * (c.embed + 3), 1, c.scale)), w(Tensor::random(c.w, c.vocab * c.embed, 2, c.scale)) {
    for (int64_t i = 0; i < c.tokens; ++i) {
      targets.push_back(i % 7 == 3 ? -100 : static_cast<int32_t>((i * i * 31 + i) % (c.vocab + (c.offset > 0 ? 50 : 0))));
      scale.push_back(static_cast<float>(0.01 * (1 + i % 5)));
    }
  }
  bool mine(int64_t i) const { return targets[i] >= t.offset && targets[i] < t.offset + t.vocab; }
  CrossEntropy arguments() const {
    return {.tokens = t.tokens,
            .vocab = t.vocab,
            .embed = t.embed,
            .x = {x.data(), t.x, t.embed + 3},
            .w = {w.data(), t.w, t.embed},
            .targets = targets.data(),
            .vocab_offset = t.offset,
            .softcap = t.softcap,
            .chunk = t.chunk};
  }
};

constexpr double kOldGradient = 0.25;  // what dW holds before an accumulation

Results naive(const Problem& p) {
  const Case& t = p.t;
  Results r{std::vector<double>(t.tokens), std::vector<double>(t.tokens), std::vector<double>(t.tokens),
            std::vector<double>(t.tokens * t.embed), std::vector<double>(t.vocab * t.embed, t.accumulate ? kOldGradient : 0.0)};
  std::vector<double> logits(t.vocab);
  for (int64_t i = 0; i < t.tokens; ++i) {
    double largest = -1e300, sum = 0;
    for (int64_t v = 0; v < t.vocab; ++v) {
      logits[v] = 0;
      for (int64_t d = 0; d < t.embed; ++d) logits[v] += p.x.values[i * (t.embed + 3) + d] * p.w.values[v * t.embed + d];
      if (t.softcap > 0) logits[v] = t.softcap * std::tanh(logits[v] / t.softcap);
      largest = std::max(largest, logits[v]);
    }
    for (double l : logits) sum += std::exp(l - largest);
    r.lse[i] = largest + std::log(sum);
    r.target_logit[i] = p.mine(i) ? logits[p.targets[i] - t.offset] : 0.0;
    const bool ignored = p.targets[i] < 0;
    r.nll[i] = ignored ? 0.0 : r.lse[i] - r.target_logit[i];
    for (int64_t v = 0; v < t.vocab; ++v) {
      const double share = t.softcap > 0 ? logits[v] / t.softcap : 0;
      const double onehot = p.mine(i) && v == p.targets[i] - t.offset ? 1.0 : 0.0;
      const double g = p.scale[i] * (std::exp(logits[v] - r.lse[i]) - onehot) * (1 - share * share);
      for (int64_t d = 0; d < t.embed; ++d) {
        r.dx[i * t.embed + d] += g * p.w.values[v * t.embed + d];
        r.dw[v * t.embed + d] += g * p.x.values[i * (t.embed + 3) + d];
      }
    }
  }
  return r;
}

Results forward(const Problem& p, Isa isa, int threads) {
  const CrossEntropy c = p.arguments();
  Workspace workspace(cross_entropy_workspace_bytes(c, CrossEntropyPass::kForward, isa));
  ThreadPool pool(threads);
  Tensor lse(kF32, p.t.tokens), logit(kF32, p.t.tokens), nll(kF32, p.t.tokens);
  cross_entropy_forward(c, {.lse = lse.floats(), .target_logit = logit.floats(), .nll = nll.floats()}, isa, workspace.data(), pool);
  return {lse.loaded(), logit.loaded(), nll.loaded(), {}, {}};
}

// With lse: the gradients alone.
Results gradients(const Problem& p, Isa isa, int threads, const float* lse_in) {
  const CrossEntropy c = p.arguments();
  const CrossEntropyPass pass = lse_in != nullptr ? CrossEntropyPass::kGradients : CrossEntropyPass::kWithGradients;
  Workspace workspace(cross_entropy_workspace_bytes(c, pass, isa));
  ThreadPool pool(threads);
  Tensor lse(kF32, p.t.tokens), nll(kF32, p.t.tokens), dx(p.t.dx, p.t.tokens * p.t.embed), dw(kF32, p.t.vocab * p.t.embed);
  std::fill_n(dw.floats(), dw.values.size(), p.t.accumulate ? static_cast<float>(kOldGradient) : NAN);
  const CrossEntropyGradients g{.scale = p.scale.data(),
                                .lse_in = lse_in,
                                .lse = lse.floats(),
                                .nll = nll.floats(),
                                .dx = {dx.data(), p.t.dx, p.t.embed},
                                .dw = dw.floats(),
                                .dw_row = p.t.embed,
                                .accumulate_dw = p.t.accumulate};
  if (lse_in != nullptr) {
    cross_entropy_gradients(c, g, isa, workspace.data(), pool);
  } else {
    cross_entropy_with_gradients(c, g, isa, workspace.data(), pool);
  }
  return {lse.loaded(), {}, nll.loaded(), dx.loaded(), dw.loaded()};
}

std::string describe(const Case& t, Isa isa, const char* what) {
  return concat_text("cross_entropy ", what, " ", isa_name(isa), " tokens ", t.tokens, " vocab ", t.vocab, " embed ", t.embed, " chunk ",
                     t.chunk, " ", dtype_name(t.x), " ", dtype_name(t.w), " scale ", t.scale, " offset ", t.offset, " softcap ", t.softcap);
}

const Case kCases[] = {
    {40, 300, 48, 16, kF32, kF32, kF32, 1, false},
    {37, 2500, 33, 20, kF32, kF32, kF32, 1, true},
    {1, 2, 1, 4, kF32, kF32, kF32, 1, false},
    {70, 131, 64, 512, kF32, kF32, kBF16, 1, false},
    {21, 140, 40, 8, kF32, kF32, kF32, 6, false},  // exponents beyond the limit
    {33, 2200, 32, 17, kBF16, kBF16, kF32, 1, false},
    {29, 301, 37, 512, kBF16, kBF16, kBF16, 1, true},
    {21, 141, 40, 9, kBF16, kBF16, kF32, 6, false},
    {25, 200, 30, 10, kBF16, kF32, kF32, 1, false},
    {25, 200, 32, 10, kF32, kBF16, kBF16, 1, false},
    {40, 300, 48, 64, kF32, kF32, kF32, 1, false, 20},  // a shard of a larger vocabulary
    {40, 300, 48, 16, kF32, kF32, kF32, 1, false, 0, 3},
    {37, 2500, 33, 20, kF32, kF32, kBF16, 2, true, 20, 5},
    {21, 140, 40, 8, kF32, kF32, kF32, 6, false, 0, 40},  // capped beyond the exponents' limit
    {29, 301, 37, 512, kBF16, kBF16, kF32, 1, true, 0, 4},
    {1, 2, 1, 4, kF32, kBF16, kF32, 1, false, 0, 30},
};

TEST(cross_entropy, equals_naive_loops_at_every_isa) {
  for (const Case& t : kCases) {
    const Problem p(t);
    const Results expected = naive(p);
    // Logits of some hundreds carry an absolute FP32 error of some 1e-5 each, and e^that is what the gradients see.
    const double tolerance = t.x == kF32 && t.w == kF32 ? (t.scale > 1 ? 1e-4 : 1e-5) : 1e-2;
    for (Isa isa : available_isas()) {
      const Results f = forward(p, isa, 2);
      testing::expect_close(f.lse, expected.lse, 1e-5, describe(t, isa, "lse"));
      testing::expect_close(f.target_logit, expected.target_logit, 1e-5, describe(t, isa, "target logit"));
      testing::expect_close(f.nll, expected.nll, 1e-5, describe(t, isa, "nll"));
      std::vector<float> lse(expected.lse.begin(), expected.lse.end());
      for (const float* known : {static_cast<const float*>(nullptr), static_cast<const float*>(lse.data())}) {
        const Results g = gradients(p, isa, 2, known);
        testing::expect_close(g.dx, expected.dx, std::max(tolerance, testing::tolerance_of(t.dx)),
                              describe(t, isa, known ? "dx from lse" : "dx"));
        testing::expect_close(g.dw, expected.dw, tolerance, describe(t, isa, known ? "dw from lse" : "dw"));
        if (known == nullptr) {
          testing::expect_close(g.lse, expected.lse, 1e-5, describe(t, isa, "lse with gradients"));
          testing::expect_close(g.nll, expected.nll, 1e-5, describe(t, isa, "nll with gradients"));
        }
      }
    }
  }
}

TEST(cross_entropy, same_bits_for_any_number_of_threads) {
  for (const Case& t : kCases) {
    const Problem p(t);
    for (Isa isa : available_isas()) {
      const Results one = forward(p, isa, 1), one_g = gradients(p, isa, 1, nullptr);
      for (int threads : {2, 3}) {
        EXPECT(forward(p, isa, threads) == one);
        EXPECT(gradients(p, isa, threads, nullptr) == one_g);
      }
    }
  }
}

TEST(cross_entropy, lse_does_not_depend_on_the_chunk) {
  Case t{50, 2300, 24, 512, kF32, kF32, kF32, 1, false};
  const Results whole = forward(Problem(t), chosen_isa(), 2);
  for (int64_t chunk : {1, 7, 16, 49}) {
    t.chunk = chunk;
    EXPECT(forward(Problem(t), chosen_isa(), 2) == whole);
  }
}

TEST(cross_entropy, shards_combine_to_the_whole) {
  const Case whole{30, 300, 24, 16, kF32, kF32, kF32, 1, false};
  const Problem p(whole);
  const Isa isa = chosen_isa();
  const Results all = forward(p, isa, 2);
  std::vector<double> sum(30), logit(30);
  for (int64_t shard : {0, 1, 2}) {
    CrossEntropy c = p.arguments();
    c.vocab = 100;
    c.vocab_offset = 100 * shard;
    c.w.data = p.w.floats() + 100 * shard * 24;
    Workspace workspace(cross_entropy_workspace_bytes(c, CrossEntropyPass::kForward, isa));
    ThreadPool pool(1);
    std::vector<float> lse(30), target(30);
    cross_entropy_forward(c, {.lse = lse.data(), .target_logit = target.data()}, isa, workspace.data(), pool);
    for (int i = 0; i < 30; ++i) sum[i] += std::exp(static_cast<double>(lse[i])), logit[i] += target[i];
  }
  for (double& s : sum) s = std::log(s);
  testing::expect_close(sum, all.lse, 1e-6, "lse of shards");
  testing::expect_close(logit, all.target_logit, 1e-6, "target logit of shards");
}

TEST(cross_entropy, no_tokens) {
  const Problem p({0, 20, 8, 16, kF32, kF32, kF32, 1, false});
  forward(p, chosen_isa(), 2);
  for (double x : gradients(p, chosen_isa(), 2, nullptr).dw) EXPECT_EQ(x, 0.0);
}

TEST(cross_entropy, other_types_are_an_error) {
  CrossEntropy c{.tokens = 1, .vocab = 1, .embed = 1, .x = {nullptr, DType::kF16, 1}, .w = {nullptr, kF32, 1}, .targets = nullptr};
  EXPECT_ERROR(UserError, { cross_entropy_workspace_bytes(c, CrossEntropyPass::kForward, chosen_isa()); }, "x is f16", "f32 and bf16");
}

}  // namespace
}  // namespace mw
