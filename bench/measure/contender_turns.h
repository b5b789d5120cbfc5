// The contenders' part of a block (block.h): what they are told to do, and that all ranks wait for it.
//
// Every rank has one; rank 0's drives the contenders, which it alone has, while the others sleep until it comes. What
// goes wrong with a contender is its own affair, and ends its part; errors are those of waiting for each other. One
// thread. The entrants are the block's.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "bench/measure/block.h"

namespace gradrail {

// One of what is measured in a block, ours or a contender.
struct Entrant {
  Outcome outcome;
  double estimate_us = 0;      // of an operation; at the slowest rank once all have told each other
  double barrier_us = 0;       // contenders only, whose barriers may cost more than what they enclose
  Traffic sent{};              // by the warm-up; all ranks' once they have told each other
  int wanted = 0;              // samples
  std::vector<double> own_us;  // this rank's samples
};

class ContenderTurns {
 public:
  // `theirs`: an entrant each. They are given the call of `first`, one of our cases. `patience`: with ranks that are
  // busy on their own.
  ContenderTurns(Bootstrap& bootstrap, int ranks, const Contenders& contenders, std::span<Entrant> theirs,
                 const BlockCase& first, const MeasureRules& rules, Seconds patience)
      : bootstrap_(bootstrap),
        ranks_(ranks),
        contenders_(contenders),
        theirs_(theirs),
        first_(first),
        rules_(rules),
        patience_(patience) {}

  // They check and warm up, one after the other. Their data has the seeds from `seed` on.
  [[nodiscard]] Result<void> prepare(std::uint64_t seed);
  // The i-th takes samples until it has so many.
  [[nodiscard]] Result<void> give_turn(std::size_t i, int until);
  // After the first round: those that are beaten. Rank 0 alone knows; the others wait for their turns all the same.
  void drop_hopeless();
  // They give their memory back.
  void release();

 private:
  void make_room(std::size_t next);
  [[nodiscard]] Result<void> everyone_has_waited();
  // What one may take for work that we expect to take so long.
  [[nodiscard]] Deadline patience(double expected_us) const;

  Bootstrap& bootstrap_;
  int ranks_;
  const Contenders& contenders_;
  std::span<Entrant> theirs_;
  const BlockCase& first_;
  const MeasureRules& rules_;
  Seconds patience_;
};

}  // namespace gradrail
