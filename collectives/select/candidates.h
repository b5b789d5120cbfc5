// What a question could be answered with: every algorithm that supports the shape, each with a few lanes and pieces.
// One list for the cost model, which simulates it, and for tuning, which measures it.
#pragma once

#include <vector>

#include "collectives/select/selector.h"

namespace gradrail {

struct Variety {
  bool lanes = true;  // more than one lane as well
  int pieces = 2;     // steps of the ladder 4, 16, 64 beyond one piece
};

// Algorithms in the order of collectives/list.cc; of one algorithm, the plain one first. Lanes and pieces are from
// fixed ladders, the same for all sizes; a piece is at least k_least_piece_bytes. Never empty.
inline constexpr std::uint64_t k_least_piece_bytes = 16 << 10;
[[nodiscard]] std::vector<Selection> candidates(const Question& question, Variety variety = {});

}  // namespace gradrail
