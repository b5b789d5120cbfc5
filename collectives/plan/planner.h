// An algorithm: one file in this folder that defines one constant Planner (or a few that share code), and one line in
// collectives/list.cc. Verification, simulation, benchmarking and selection then work without another word.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "collectives/schedule/builder.h"
#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

struct Planner {
  std::string_view name;  // as users type it: "ring"
  Collective collective;
  std::string_view summary;  // one line, for help and plots
  // Refuses politely what the algorithm is not defined for; unsupported, with a sentence.
  Result<void> (*supports)(const Shape& shape);
  // Chunks that emit() needs its window to be a multiple of, for a group of n members.
  std::uint32_t (*grain)(const Shape& shape, int n);
  // Writes this rank's steps of the collective over `group` on the data of `window`.
  void (*emit)(Builder& builder, const Group& group, Window window);
  // Closed form: chunks that the member sends in all, for a window of `chunks`. Tests hold plans against it.
  std::uint64_t (*chunks_sent)(const Shape& shape, int n, int member, std::uint32_t chunks);
  // Whatever a rank receives (recv) over chunks that it has sent before comes from the one rank that it sent them to,
  // which computed each element of it from the same element of them. Such a message may be received while they are
  // still on their way: no byte of it exists before the byte that it overwrites was read.
  bool answers = false;
};

// All planners, defined in collectives/list.cc.
[[nodiscard]] std::span<const Planner* const> planners();
// Errors: bad_usage naming the known ones for that collective.
[[nodiscard]] Result<const Planner*> find_planner(Collective collective, std::string_view name);

// An algorithm as written: "ring", "hierarchical", "hierarchical:ring+tree" (inner+outer). Sets shape.inner and outer.
[[nodiscard]] Result<const Planner*> parse_algorithm(std::string_view text, Shape& shape);

// One rank's program, without building any other's. Errors: unsupported, from supports().
[[nodiscard]] Result<Program> plan(const Planner& planner, const Shape& shape, int rank);
// All ranks' programs.
[[nodiscard]] Result<Schedule> plan_all(const Planner& planner, const Shape& shape);

}  // namespace gradrail
