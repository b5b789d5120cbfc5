// Finds the best selection for each size by measuring as little as that takes: a coarse grid of sizes first, on which
// what has become hopeless is not measured at larger sizes, then bisection around the crossings; and fits ranges of
// sizes. At each size candidates race (race.h). What the ranges are worth at other sizes: regret.h. Pure but for the
// measuring, which is a function that the caller hands in; so all of it is tested on times made up. Comparisons are
// only ever made inside one block of interleaved measurements. What is best changes with the machine's phase, so a
// table is to be of one: fit_again() brings it into the phase that the machine has come to be in.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/race.h"
#include "collectives/select/table.h"
#include "transports/base/result.h"

namespace gradrail {

struct TuneRules {
  double hopeless = 3;         // times slower than the best, at two sizes in a row (lanes and pieces: its root)
  double nearest_sizes = 1.3;  // crossings are bisected until the sizes around them are this near
  double tie = 1.03;           // medians nearer than this are a tie
  double switch_price = 0.05;  // a range must gain this much, as ln of time summed over its sizes, to be worth having
  std::function<bool()> out_of_time = [] { return false; };  // then finalists only, and no more bisection
  // Of the machine during all blocks of the size measured last, since it was asked last, by name (see Phase), and empty
  // if that changed. May be missing, as the next: then there are no phases.
  std::function<std::string()> phase;
  std::function<std::string()> phase_now;
  // Waits for the machine to come into a phase; whether it has. May be missing: nobody waits.
  std::function<Result<bool>(const std::string& wanted)> await_phase;
  // Told what is about to be measured, or why something no longer is. May be empty.
  std::function<void(const std::string&)> say;
};

// One block: candidates without a time were not measured there.
struct TunedSize {
  std::int64_t bytes = 0;
  std::vector<std::vector<double>> samples_us;  // by candidate
  std::string phase{};                          // TuneRules::phase; empty if it was measured in several
};

struct Dropped {
  Selection selection;
  std::int64_t bytes = 0;  // not measured above
  double ratio = 1;        // to the best, there
};

struct Tuned {
  std::vector<Selection> candidates;  // simplest first
  std::vector<TunedSize> sizes;       // ascending
  std::vector<Dropped> dropped;
  std::vector<TableRange> ranges;  // ascending, without gaps; empty if nothing could be measured
  bool hurried = false;            // the time ran out
};

// `question`: the case; its size is not looked at. `sizes`: the coarse grid, ascending, whole multiples of `unit`
// bytes. Errors: those of measuring.
[[nodiscard]] Result<Tuned> tune_sizes(const Question& question, std::span<const std::int64_t> sizes, std::int64_t unit,
                                       const MeasureSize& measure, const TuneRules& rules);

// Sizes that were measured in another phase than the machine is in now are measured again, as far as there is time:
// what was near the best there; the rest is brought to what that says of the machine. Then the ranges are fitted anew.
// Errors: those of measuring.
[[nodiscard]] Result<void> fit_again(Tuned& tuned, const MeasureSize& measure, const TuneRules& rules);

// The ranges that lose least time over the sizes measured, each change of selection at its price; of equals the
// simplest. Borders lie where the times of the two sides cross.
[[nodiscard]] std::vector<TableRange> fit_ranges(const std::vector<Selection>& candidates,
                                                 std::span<const TunedSize> sizes, const TuneRules& rules);

}  // namespace gradrail
