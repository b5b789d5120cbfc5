// The parts of verify(), for its own sources only. check_form() and check_order() look at one program at a time;
// Matching pairs the messages of all programs; check_outcome() runs them on symbols.
//
// Nothing here shares code with Builder: a mistake there must not excuse itself here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

// Which message each talking step sends or receives: the k-th send of a pipe meets its k-th receive. Message k of a
// pipe is number pipe.first + k of all.
struct Pipe {
  std::uint32_t from = 0, to = 0;  // ranks
  std::uint32_t lane = 0;
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};
struct Message {
  std::uint32_t pipe = 0;
  std::uint32_t send = 0;     // step of pipe.from
  std::uint32_t receive = 0;  // step of pipe.to
};
struct Matching {
  std::vector<Pipe> pipes;
  std::vector<Message> messages;
  std::vector<std::vector<std::uint32_t>> message_of;  // by rank, by step; meaningless for steps that do not talk
};
// Errors: a message left over, or ends that disagree on its length for some count.
[[nodiscard]] Result<Matching> match(const Schedule& schedule);

// Runs the programs with `credits`; checks that they end and that the outputs hold what the collective promises.
[[nodiscard]] Result<void> check_outcome(const Schedule& schedule, const Matching& matching, int credits);

}  // namespace gradrail::proof
