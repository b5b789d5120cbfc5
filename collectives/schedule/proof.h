// The parts of verify(), for its own sources only. check_form() and check_order() look at one program at a time,
// check_lengths() at both ends of a message, check_outcome() at all programs running on symbols.
//
// Nothing here shares code with Builder: a mistake there must not excuse itself here.
#pragma once

#include <cstdint>
#include <string>

#include "collectives/schedule/matching.h"
#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail::proof {

// Buffers of a rank by number: the input, the output (the same one in place), then the scratch planes.
[[nodiscard]] inline std::uint32_t buffer_of(const Place& place, bool in_place) {
  if (place.store == Store::in) return 0;
  if (place.store == Store::out) return in_place ? 0 : 1;
  return 2u + place.plane;
}

// "rank 3, step 12 (recv_reduce from rank 2, lane 0)".
[[nodiscard]] std::string name_of(const Program& program, std::size_t step);
[[nodiscard]] tl::unexpected<Error> wrong(const Program& program, std::size_t step, std::string what);

// Shape, ranks, grid, and each step on its own.
[[nodiscard]] Result<void> check_form(const Schedule& schedule);
// Conflicting steps of one rank are ordered by their watermarks alone; no chunk is touched by two lanes.
[[nodiscard]] Result<void> check_order(const Program& program);

// The ends of each message, and the operands of each local step, are equally long for even and ragged counts.
[[nodiscard]] Result<void> check_lengths(const Schedule& schedule, const Matching& matching);

// Runs the programs with `credits`; checks that they end and that the outputs hold what the collective promises.
[[nodiscard]] Result<void> check_outcome(const Schedule& schedule, const Matching& matching, int credits);

}  // namespace gradrail::proof
