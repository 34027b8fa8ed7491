// Both ends of a language model: token ids to vectors, vectors to logits or to the loss.
#pragma once
#include "ir/builder.h"

namespace mw {

// table[vocab, embed], ids i32[batch, seq] -> [batch, seq, embed], times `multiplier` rounded to the table's dtype as Gemma's
// sqrt(embed) is (55.5 for 3072 in bf16). Scope: embedding.
Tensor embed_tokens(Tensor table, Tensor ids, double multiplier = 1);

// Learned positions (GPT-2): table[positions, embed], positions i32[batch, seq] -> [batch, seq, embed], to be added to the tokens'
// vectors. Scope: position_embedding.
Tensor embed_positions(Tensor table, Tensor positions);

// x[.., embed], head[vocab, embed] -> f32[.., vocab]; softcap > 0 (Gemma 2): softcap tanh(logit / softcap). Scope: head.
Tensor vocabulary_logits(Tensor x, Tensor head, double softcap = 0);

// The rows of x[batch, seq, embed] that stand at `rows` i32[slot] of the tokens counted row by row -> [slot, embed]; zeros for a
// negative row. Scope: head.
Tensor select_tokens(Tensor x, Tensor rows);

// sum of loss_weights * nll, times loss_scale: f32 without dims. x[batch, seq, embed], head[vocab, embed], targets i32[batch, seq]
// (negative: no target), loss_weights f32[batch, seq]; loss_scale f32 is 1 / the sum of the weights of the whole step; softcap as
// for the logits. Scope: loss.
Tensor next_token_loss(Tensor x, Tensor head, Tensor targets, Tensor loss_weights, Tensor loss_scale, double softcap = 0);

}  // namespace mw
