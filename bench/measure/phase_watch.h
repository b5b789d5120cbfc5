// Rank 0's eye on the machine's phase between blocks. It looks before and after every one, so it looks shortly: at what
// a cache line takes from core to core, which tells phases apart best and which decision tables go by; at memory
// bandwidth where there is one core only. The other ranks wait asleep. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure/probe.h"
#include "transports/bootstrap.h"

namespace gradrail {

class PhaseWatch {
 public:
  // `cores`: to look at; empty: those that may be used. `timeout`: the job's.
  PhaseWatch(Bootstrap& bootstrap, std::vector<int> cores, Seconds timeout);

  // Errors: those of the bootstrap, and of making a probe.
  [[nodiscard]] Result<void> look(Seconds after = Seconds(0));
  [[nodiscard]] const std::optional<Phase>& seen() const { return seen_; }
  // By its name, as it was seen last.
  [[nodiscard]] std::string now();
  // Looks until the machine is in the phase, or `left` seconds are used up, from which that takes. Whether it is.
  [[nodiscard]] Result<bool> await(const std::string& wanted, double& left);
  // A cache line took, when the phase was seen last; 0: not known.
  [[nodiscard]] double core_to_core_ns(const std::string& phase) const;

  // A block was measured between two looks; its phase by name, "unsettled" if they differ.
  [[nodiscard]] std::string between(const Phase& before, const Phase& after);
  void measured(std::int64_t bytes, const std::string& phase);
  // Of all blocks of the size measured last, since this was asked last; empty if they differ.
  [[nodiscard]] std::string of_blocks();

 private:
  Bootstrap& bootstrap_;
  std::vector<int> cores_;
  Seconds timeout_;
  std::optional<Probe> probe_;  // with one core
  std::optional<Phase> seen_;
  PhaseNames names_;
  std::map<std::string, double> core_to_core_ns_;
  std::vector<std::string> of_blocks_;
  std::int64_t bytes_ = 0;
};

}  // namespace gradrail
