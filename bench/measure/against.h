// The other libraries of a sweep: starts the ranks of every configuration that compares with a transport, and keeps
// them for as long as that transport is measured. One that cannot be started stays in the list and says why at every
// point, so that nothing is silently missing.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/contender.h"
#include "results/record.h"

namespace gradrail {

struct AgainstOptions {
  std::vector<std::string> libraries;
  std::string runner_folder;
  std::string transport;
  int ranks = 0;
  std::vector<int> cores;  // that the ranks may use, together
  std::vector<int> cpus;   // by rank, if each is to be bound to one
  std::vector<Collective> collectives;
  Seconds start_wait{20};  // for the ranks of one configuration
};

struct Rivals {
  std::vector<std::unique_ptr<Contender>> contenders;
  // One for each: what was started, in which version, or why not; and one for each library that has no way to compare.
  std::vector<PeerRecord> records;
};

// Takes about a second a configuration.
[[nodiscard]] Rivals start_rivals(const AgainstOptions& options);

// How many start_rivals() will make, without starting anything.
[[nodiscard]] std::size_t count_rivals(const AgainstOptions& options);

}  // namespace gradrail
