// Tracing and planning of a training step of an 80-layer model (llama3-70b), pass by pass: the target is under one second.
//
//   ./build/release/bench_trace_and_plan [repeats]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "models/programs.h"
#include "models/registry.h"
#include "optim/optimizer.h"
#include "passes/pipeline.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

// The sizes of llama3-70b.
mw::ModelConfig llama3_70b() {
  mw::ModelConfig config;
  config.name = "llama3-70b";
  config.embedding_dim = 8192;
  config.mlp_dim = 28672;
  config.num_layers = 80;
  config.num_query_heads = 64;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 128256;
  config.max_position_embeddings = 8192;
  mw::check_model_config(config);
  return config;
}

struct Times {
  double total = 0;
  std::vector<std::pair<std::string, double>> passes;
};

Times plan_once(const mw::ModelConfig& config, const mw::Mesh& mesh, int microbatches, const std::string& remat, size_t& num_ops) {
  Times times;
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  const auto lap = [&](std::string_view name) {
    times.passes.emplace_back(name, milliseconds_since(last));
    last = Clock::now();
  };
  mw::Program forward = mw::trace_loss(config, {.batch = 8, .seq = 8192, .dtype = mw::DType::kBF16});
  std::vector<mw::TrainedParameter> trained;
  for (const mw::ParameterSpec& p : mw::model_parameters(config, mw::DType::kBF16)) trained.push_back({p.name, p.type, p.decays()});
  mw::Program update = mw::trace_update({.kind = "adamw", .clip = 1.0}, trained);
  lap("trace");
  mw::PlanOptions options;
  options.mesh = mesh;
  options.microbatches = microbatches;
  options.remat = mw::parse_remat(remat);
  options.observer = [&](std::string_view pass, const mw::Plan&) { lap(pass == "cut" ? "differentiate, cut" : pass); };
  const mw::Plan plan = mw::plan_training(std::move(forward), std::move(update), {}, options);
  times.total = milliseconds_since(start);
  num_ops = 0;
  for (const mw::Piece& piece : plan.pieces) num_ops += piece.program.ops.size();
  return times;
}

void report(const char* title, const mw::Mesh& mesh, int microbatches, const std::string& remat, int repeats) {
  const mw::ModelConfig config = llama3_70b();
  size_t num_ops = 0;
  Times best;
  for (int i = 0; i < repeats; ++i) {
    const Times times = plan_once(config, mesh, microbatches, remat, num_ops);
    if (best.passes.empty() || times.total < best.total) best = times;
  }
  std::printf("%s: %.0f ms, %zu ops\n", title, best.total, num_ops);
  for (const auto& [pass, time] : best.passes) std::printf("  %-20s %7.1f ms\n", pass.c_str(), time);
}

}  // namespace

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 3;
  report("one rank", mw::Mesh(), 1, "none", repeats);
  report("fsdp=8 tensor=8", mw::Mesh({{"fsdp", 8}, {"tensor", 8}}), 1, "none", repeats);
  report("fsdp=8 tensor=8, 4 microbatches, remat=full", mw::Mesh({{"fsdp", 8}, {"tensor", 8}}), 4, "full", repeats);
  return 0;
}
