// Update rules as traced ops. The update Program reads the gradients of a step and writes weights and optimizer state in place.
//
//   Program update = trace_update({.kind = "adamw", .clip = 1.0}, parameters);
//
// Inputs: states "gradient.NAME" (f32), parameters NAME, "master.NAME" (f32, where the stored dtype is not f32), the rule's own states
// ("first_moment.NAME", ...), and f32 scalars that the trainer fills each step: "lr", and for AdamW "correction1", "correction2".
// Results: "grad_norm" (before clipping).
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ir/program.h"

namespace mw {

struct OptimizerConfig {
  std::string kind = "adamw";  // "adamw", "sgd"
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double momentum = 0.0;  // sgd
  double clip = 0.0;      // largest global L2 norm of the gradient; 0: no clipping

  bool operator==(const OptimizerConfig&) const = default;
};

struct TrainedParameter {
  std::string name;
  Type type;          // as stored; the master is f32
  bool decay = true;  // takes part in weight decay
};

// A parameter that no gradient moves: the selection bias of a router, whose "gradient.NAME" is the load f32[experts] of its experts. It
// moves by `rate` towards the experts with less than the mean load (DeepSeek-V3 2024, section 2.1.2).
struct BalancedBias {
  std::string name;
  Type type;
  double rate = 0;
};

inline constexpr const char* kMasterPrefix = "master.";

// Names of the f32 states that the rule keeps per parameter: {"first_moment.", "second_moment."}, {"momentum."}, {}.
std::vector<std::string> optimizer_state_prefixes(const OptimizerConfig& config);

// UserError for an unknown kind or a value out of range.
void check_optimizer(const OptimizerConfig& config);

// Where every stage of a pipeline updates the parameters it has: what the stages have to tell each other.
struct OverStages {
  std::string axis;  // part of a mesh axis over which the stages lie, "stage:1:4"; empty: there is one stage
  int64_t stages = 1;
  // Parameters that this stage and another one use, each with its own part of the gradient (a tied embedding), and the part of the mesh
  // axis that holds the two, "stage:3:2": their gradients are summed over it.
  std::map<std::string, std::string> summed{};
  // Of these, the ones whose gradient another stage counts in the norm, and those of whose gradient this stage has no part.
  std::set<std::string> counted_elsewhere{}, without_gradient{};
};

Program trace_update(const OptimizerConfig& config, const std::vector<TrainedParameter>& parameters,
                     const std::vector<BalancedBias>& balanced = {}, const OverStages& over = {});

}  // namespace mw
