// Terms that keep the experts of a mixture evenly loaded, and what they are measured by. Each is a scalar of one batch over all ranks;
// token_weights f32[batch, seq] is 1 for the tokens that count and 0 for padding.
#pragma once
#include <string>
#include <vector>

#include "layers/moe.h"

namespace mw {

// As transformers' load_balancing_loss_func, all layers together (Switch Transformer, Fedus et al. 2021, eq. 4-6, with top-k choices):
// experts * sum_e (choices of e per token) (mean of softmax_e). No gradient goes through the choices.
Tensor load_balance_loss(const std::vector<RouterOutput>& layers, Tensor token_weights);

// DeepSeek-V3 2024, eq. 17-20, without its factor: the mean over sequences (rows of the batch that have tokens) of sum_e f_e P_e, where
// f_e = experts / k * (share of the tokens that chose e) and P_e = the mean of score_e / sum of scores. score: softmax or sigmoid.
Tensor sequence_balance_loss(const RouterOutput& layer, Tensor token_weights, const std::string& score);

// The mean over tokens of logsumexp(logits)^2 (ST-MoE, Zoph et al. 2022, eq. 5).
Tensor router_z_loss(const RouterOutput& layer, Tensor token_weights);

// f32[experts]: how many choices fell on each expert. Without gradient.
Tensor expert_load(const RouterOutput& layer, Tensor token_weights);

// The selection bias behind a step in which the experts had this load: bias + rate * sign(mean load - load) (DeepSeek-V3, section 2.1.2).
Tensor balanced_selection_bias(Tensor bias, Tensor load, double rate);

}  // namespace mw
