// cut: from a differentiated Program and an update Program to a Plan of pieces and their run order.
//
//   forward, backward (variants first, middle, last, first_last), update        F0 B0 F1 B1 ... update
//
// A value that the backward reads and the forward makes crosses the boundary: it is carried, one copy per microbatch in flight. Views
// and constants are made again instead. Gradients are added up in the states "accumulator.NAME": the first microbatch writes them, the
// last leaves the sum in "gradient.NAME" (the layout of the optimizer), each as soon as it is final. Other f32 results (loss,
// counts) are summed over the microbatches likewise.
#pragma once
#include <string>

#include "ir/builder.h"
#include "ir/plan.h"
#include "passes/edit.h"

namespace mw {

inline constexpr const char* kAccumulatorPrefix = "accumulator.";
inline constexpr const char* kMetricPrefix = "metric.";

Plan cut(const Program& training, Program update, int microbatches);

// What this cut and the one into stages share.
bool is_remade(const Op& op);  // cheaper to make again than to keep: views, constants
// "layers.0.attention.query/dot#17": scope and op say what it is, the number makes it unique.
std::string crossing_name(const Program& program, ValueId id);
// The parameters, batch fields and states of a Program that is to be cut.
void declare_inputs(const Program& program, Builder& builder, Copier& copier);
// Makes `id` again, and what it needs, where that is not there. InternalError for what is not remade.
void remake(const Program& program, Copier& copier, ValueId id);
// A result of one microbatch, added to those before it: written where it is the first, handed on where it is the last.
void sum_up(Builder& builder, const ProgramOutput& output, Tensor value, bool first, bool last);
std::string variant_name(bool first, bool last);  // "first", "middle", "last", "first_last"

// One piece `name`, run once: decoding, evaluation, gradients without an update.
Plan cut_single(Program program, const std::string& name);

}  // namespace mw
