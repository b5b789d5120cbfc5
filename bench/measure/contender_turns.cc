#include "bench/measure/contender_turns.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/measure/statistics.h"

namespace gradrail {

namespace {

// What a contender's rank holds, as a multiple of its data: input, output, and what libraries take for sums and keep.
constexpr std::uint64_t k_contender_copies = 5;
constexpr Seconds k_longest_turn{60};  // beyond what every operation may take

}  // namespace

Deadline ContenderTurns::patience(double expected_us) const {
  return Deadline::after(patience_ + Seconds(std::min(3 * expected_us * 1e-6, k_longest_turn.count())));
}

// Our ranks sleep in this until rank 0 comes. Rank 0's end is noticed at once; the deadline is for one that was
// stopped.
Result<void> ContenderTurns::everyone_has_waited() {
  return bootstrap_.barrier(Deadline::after(patience_ * 2 + k_longest_turn));
}

Result<void> ContenderTurns::prepare(std::uint64_t seed) {
  for (std::size_t i = 0; i < theirs_.size(); ++i) {
    if (contenders_[i] != nullptr) {
      make_room(i);
      const auto trial = contenders_[i]->prepare(first_.call, first_.buffers->cache(), rules_.warmup, rules_.check,
                                                 seed + i, patience(0));
      if (trial) {
        theirs_[i].outcome.wrong = trial->wrong;
        theirs_[i].estimate_us = trial->operation_us;
        theirs_[i].barrier_us = trial->barrier_us;
      } else {
        theirs_[i].outcome.refused = trial.error();
      }
    }
    GRADRAIL_TRY(everyone_has_waited());
  }
  return {};
}

// For the contender that comes next, on rank 0. Without it the kernel would end some process.
void ContenderTurns::make_room(std::size_t next) {
  const std::uint64_t wanted =
      k_contender_copies * static_cast<std::uint64_t>(ranks_) *
      std::max(Buffers::in_bytes(first_.call, 0, ranks_), Buffers::out_bytes(first_.call, 0, ranks_));
  for (std::uint64_t free = rules_.free_memory(); free > 0 && free < wanted; free = rules_.free_memory()) {
    std::size_t slowest = next;
    for (std::size_t i = 0; i < next; ++i)
      if (!theirs_[i].outcome.refused && (slowest == next || theirs_[i].estimate_us > theirs_[slowest].estimate_us))
        slowest = i;
    if (slowest == next) return;
    contenders_[slowest]->release(Deadline::after(patience_));
    theirs_[slowest].outcome.refused =
        Error{Code::exhausted,
              fmt::format("left out after a trial of {:.0f} us, as there is no memory for the ranks of all libraries; "
                          "measure fewer of them (--against) or smaller messages (-e)",
                          theirs_[slowest].estimate_us),
              Error::k_no_peer, 0};
  }
}

Result<void> ContenderTurns::give_turn(std::size_t i, int until) {
  Entrant& one = theirs_[i];
  const int more = until - static_cast<int>(one.own_us.size());
  if (contenders_[i] != nullptr && !one.outcome.refused && one.outcome.wrong == 0 && more > 0) {
    const double expected_us = (one.estimate_us * one.outcome.batch + one.barrier_us) * more;
    auto taken = contenders_[i]->measure(more, one.outcome.batch, patience(expected_us));
    if (taken)
      one.own_us.insert(one.own_us.end(), taken->begin(), taken->end());
    else
      one.outcome.refused = std::move(taken).error();
  }
  return everyone_has_waited();
}

void ContenderTurns::drop_hopeless() {
  double best = 0;
  for (const Entrant& one : theirs_)
    if (!one.own_us.empty() && (best == 0 || median(one.own_us) < best)) best = median(one.own_us);
  for (std::size_t i = 0; i < theirs_.size(); ++i) {
    if (theirs_[i].own_us.empty() || median(theirs_[i].own_us) <= k_hopeless * best) continue;
    theirs_[i].wanted = 0;
    contenders_[i]->release(Deadline::after(patience_));
  }
}

void ContenderTurns::release() {
  for (Contender* const one : contenders_)
    if (one != nullptr) one->release(Deadline::after(patience_));
}

}  // namespace gradrail
