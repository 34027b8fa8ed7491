// What a Plan does, as text: its Programs, the collectives that partition made, the memory that place gave.
//
//   forward  all_gather seq over tensor=2  f32[batch=8, seq=4, embed=16] -> f32[batch=8, seq=8, embed=16]  2048 bytes
//   layers.0.attention.query
#pragma once
#include <string>

#include "ir/plan.h"

namespace mw {

enum class Sources : uint8_t { kWithout, kWith };

// Every piece as program text.
std::string list_programs(const Plan& plan, Sources sources = Sources::kWith);

// One line per collective: piece, op, dims and axes, what one rank gives and gets, the bytes it gives, scope, source line, and the pass
// when it is not partition's own placing (recomputed); of one that runs beside compute the op where it starts and the one it is finished
// in front of. Ops that send nothing (shard_slice, shard_offset) are left out.
std::string list_collectives(const Plan& plan, Sources sources = Sources::kWith);

// Kept, carried, scratch and result bytes by role, and the peak of one rank.
std::string list_memory(const Plan& plan);

// "forward", "backward (first)"
std::string piece_title(const Piece& piece);

// Whether the op sends anything.
bool communicates(const Op& op);

}  // namespace mw
