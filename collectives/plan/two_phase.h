// An allreduce as its two phases: a reduce-scatter that leaves each member with the reduction of its share, and the
// all-gather that spreads the shares. Hierarchical puts another allreduce between the two. Both phases work in the lane
// that the builder is confined to, and on the builder's current versions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "collectives/schedule/builder.h"

namespace gradrail {

struct TwoPhase {
  std::string_view name;  // of the allreduce that is made of these phases
  // Chunks that the window must be a multiple of, for n members and one lane, so that each share is a multiple of
  // `share` chunks.
  std::uint32_t (*grain)(const Shape& shape, int n, std::uint32_t share);
  // The runs of chunks that the member has reduced between the phases; together the members' shares are the window.
  std::vector<Window> (*shares)(int n, int member, Window window);
  void (*reduce_scatter)(Builder& builder, const Group& group, Window window);
  void (*all_gather)(Builder& builder, const Group& group, Window window);
  // Chunks that the member sends in each of the phases (as many in the one as in the other).
  std::uint64_t (*chunks_sent)(int n, int member, std::uint32_t chunks);
};

extern const TwoPhase k_ring_phases;
extern const TwoPhase k_two_shot_phases;
extern const TwoPhase k_halving_doubling_phases;

}  // namespace gradrail
