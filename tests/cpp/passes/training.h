// A tiny decoder and one optimizer step of it on any mesh, run with the references: what the tests of the passes compare.
#pragma once
#include <map>
#include <string>

#include "models/model_config.h"
#include "optim/optimizer.h"
#include "passes/pipeline.h"
#include "passes/spmd_evaluator.h"

namespace mw::testing {

struct TinyOptions {
  int64_t num_layers = 2;
  bool qk_norm = false;
  bool tied = false;
  bool biases = false;
  int64_t window = 0;
};

// embed 16, mlp 24, 8 query and 2 key heads of 4, vocabulary 32: divides over 2 x 2 x 2 ranks.
ModelConfig tiny_llama(const TinyOptions& options = {});

struct StepOptions {
  TinyOptions model{};
  int64_t batch = 8, seq = 8;
  int microbatches = 1;
  DType dtype = DType::kF32;
  OptimizerConfig optimizer{.kind = "adamw", .weight_decay = 0.1, .clip = 1.0};
};

// Random weights, optimizer state at zero, and a batch with padding, several segments and unequal loss weights.
std::map<std::string, HostArray> initial_states(const StepOptions& step);
std::map<std::string, HostArray> batch_inputs(const StepOptions& step);

Plan plan_step(const StepOptions& step, const PlanOptions& options);

struct StepNumbers {
  double loss = 0, grad_norm = 0;
  std::map<std::string, HostArray> gradients, weights;  // by parameter
  std::map<std::string, Traffic> traffic;
};

StepNumbers run_step(const StepOptions& step, const Plan& plan, const Mesh& mesh, ReferenceOptions reference = {.round_results = false});
StepNumbers run_step(const StepOptions& step, const PlanOptions& options, ReferenceOptions reference = {.round_results = false});

// Failure naming the tensor when one differs by more than `tolerance` of its largest element.
void expect_equal_numbers(const StepNumbers& numbers, const StepNumbers& expected, double tolerance);

HostArray random_array(const Type& type, uint64_t seed, double scale = 1.0, double mean = 0.0);
HostArray scalar(double value);

}  // namespace mw::testing
