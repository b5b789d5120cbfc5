// Reduce-scatter by recursive halving, as a part that other planners use too (reduce: reduce_scatter_gather.cc). The
// algorithm and its source are described in recursive_halving.cc.
#pragma once

#include "collectives/plan/blocks.h"
#include "collectives/schedule/builder.h"

namespace gradrail {

// Writes the steps of one lane: afterwards block group.me of `blocks` holds the sum over the group. The caller has
// chosen the lane in the builder; `lane` is the one to take from `blocks`. Sends blocks.size() - 1 blocks.
void halve(Builder& builder, const Group& group, const Blocks& blocks, int lane);

}  // namespace gradrail
