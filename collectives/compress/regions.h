// Who sums which part of a sparse vector, and what of the sum is worth sending: the decisions of Ok-Topk, Li and
// Hoefler, "Near-optimal sparse allreduce for distributed deep learning" (PPoPP 2022), section 3. Pure functions of
// what all ranks know, so that all come to the same.
//
// Bounds are parts + 1 indices, ascending from 0 to the number of places; part i is [bounds[i], bounds[i + 1]).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace gradrail {

// Parts of (nearly) the same length.
void even_bounds(std::uint64_t places, std::span<std::uint32_t> bounds);
// Bounds that cut this rank's indices (ascending) into parts with (nearly) the same number of them.
void propose_bounds(std::span<const std::uint32_t> indices, std::uint64_t places, std::span<std::uint32_t> bounds);
// The mean of all ranks' proposals, which stand one behind the other; false if one does not ascend or goes beyond.
[[nodiscard]] bool agree_bounds(std::span<const std::uint32_t> proposals, std::uint64_t places,
                                std::span<std::uint32_t> bounds);

// What one rank says of the sizes (float bits without the sign) of its part's sums: how many there are, and up to
// k_tally_most of them, evenly from all of them.
struct Tally {
  std::uint32_t count = 0;  // of the sums
  std::uint32_t wanted = 0;
  std::span<const std::uint32_t> sizes;
};
inline constexpr std::size_t k_tally_most = 1024;
[[nodiscard]] std::size_t tally_of(std::span<const float> values, std::span<std::uint32_t> sizes);
// A size that about `wanted` (the most that a rank wants) of all sums have or exceed; exact where nobody has more than
// k_tally_most. 0 if there are no more. `scratch` is overwritten.
struct Weighed {
  std::uint32_t size = 0;
  double weight = 0;
};
[[nodiscard]] std::uint32_t threshold_of(std::span<const Tally> tallies, std::vector<Weighed>& scratch);

// Where part `part` of `parts` begins in a list of `total`, when all are to have (nearly) the same.
[[nodiscard]] constexpr std::uint64_t share_begin(std::uint64_t total, std::uint64_t parts, std::uint64_t part) {
  return total * part / parts;
}
// Whether lists of these lengths are worth evening out before everyone sends its own to everyone: the longest takes
// more than twice as long as the mean.
[[nodiscard]] bool is_uneven(std::span<const std::uint32_t> lengths);

}  // namespace gradrail
