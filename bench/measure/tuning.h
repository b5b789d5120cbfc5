// Finds the best selection for each size by measuring as little as that takes: a coarse grid of sizes first, on which
// what has become hopeless is not measured at larger sizes, then bisection around the crossings; fits ranges of sizes;
// and measures the ranges on sizes that they were not fitted on. At each size all candidates are measured for a short
// time, and those that may be the best afterwards a second time and longer, against each other: what decides are their
// second samples, which had no part in choosing them. Pure but for the measuring, which is a function that the caller
// hands in; so all of it is tested on times made up. Comparisons are only ever made inside one block of interleaved
// measurements.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "collectives/select/table.h"
#include "transports/base/result.h"

namespace gradrail {

// Measures the selections against each other at one size, each for `effort` times the usual time; samples in
// microseconds, by selection. Empty for one that is not defined there, or came out wrong.
using MeasureSize = std::function<Result<std::vector<std::vector<double>>>(
    std::int64_t bytes, std::span<const Selection> selections, double effort)>;

struct TuneRules {
  double hopeless = 3;         // times slower than the best, at two sizes in a row (lanes and pieces: its root)
  double nearest_sizes = 1.3;  // crossings are bisected until the sizes around them are this near
  double tie = 1.03;           // medians nearer than this are a tie
  double switch_price = 0.05;  // a range must gain this much, as ln of time summed over its sizes, to be worth having
  std::function<bool()> out_of_time = [] { return false; };  // then finalists only, and no more bisection
  // Of the machine during the block measured last, by name (see Phase); what was fitted in one phase may be wrong in
  // another. May be empty.
  std::function<std::string()> phase;
  // Told what is about to be measured, or why something no longer is. May be empty.
  std::function<void(const std::string&)> say;
};

// One block: candidates without a time were not measured there.
struct TunedSize {
  std::int64_t bytes = 0;
  std::vector<std::vector<double>> samples_us;  // by candidate
  std::string phase{};                          // TuneRules::phase
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

// The ranges that lose least time over the sizes measured, each change of selection at its price; of equals the
// simplest. Borders lie where the times of the two sides cross.
[[nodiscard]] std::vector<TableRange> fit_ranges(const std::vector<Selection>& candidates,
                                                 std::span<const TunedSize> sizes, const TuneRules& rules);

struct HeldOutSize {
  std::int64_t bytes = 0;
  Selection best;  // of everything measured there: the oracle
  double best_us = 0;
  Selection table;
  double table_us = 0;
  double table_regret = 1;  // see below
  Selection model;
  double model_us = 0;
  double model_regret = 1;
  double fixed_regret = 1;  // of the best single selection
  bool same_phase = true;   // as that of the nearest size that was fitted
};

struct Spread {
  double mean = 1;  // geometric
  double worst = 1;
  // 95 % interval of the time at the worst size over the oracle's, as far as the samples say.
  double worst_low = 1;
  double worst_high = 1;
};

// Regret: time / the oracle's time. The oracle is picked on one half of the samples and judged on the other, both ways,
// and so is the best single selection: a minimum over noisy medians, judged by the same samples, would be too good to
// be true, and everything else look worse than it is. What may be the best, what the table says and what the model says
// are measured longer than the rest (see above), so that the halves agree.
struct Regret {
  std::vector<HeldOutSize> sizes;
  Spread table;
  Spread model;
  Spread table_same_phase;  // over the sizes that were judged in the phase in which the table was fitted there
  Selection fixed;  // the selection, of those measured at every size, with the least regret when used for all sizes
  Spread fixed_spread;
};

// Sizes between those fitted, off powers of two, multiples of `unit`, none of them in `tuned.sizes`.
[[nodiscard]] std::vector<std::int64_t> held_out_sizes(std::span<const std::int64_t> grid, std::int64_t unit,
                                                       const Tuned& tuned);
[[nodiscard]] Result<Regret> measure_regret(const Question& question, const Tuned& tuned,
                                            std::span<const std::int64_t> sizes, const Selector& table,
                                            const Selector& model, const MeasureSize& measure, const TuneRules& rules);

}  // namespace gradrail
