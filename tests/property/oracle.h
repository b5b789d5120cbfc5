// A second, slow proof of a plan, which shares nothing with verify(): the order of all events as an explicit graph,
// chunks as lists of who contributed, races by looking at every pair of steps. For small plans, to judge verify()
// itself.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "collectives/schedule/program.h"

namespace gradrail::test {

struct Verdict {
  bool right = false;
  std::string why;  // it is wrong
  // By (rank, chunk) of the outputs: the formula that it was computed by, operands in alphabetical order.
  std::map<std::tuple<int, std::uint32_t>, std::string> outputs;
};

// All fields of all steps must be in range, as verify() demands; this is checked too. Rendezvous (no credits).
[[nodiscard]] Verdict judge(const Schedule& schedule);

}  // namespace gradrail::test
