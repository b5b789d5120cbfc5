// What a decision table is worth: at sizes that nothing was fitted on, the time that its choices lose against the best
// of all that is measured there; and beside it what the cost model's choices lose, and the best single selection.
//
// Regret: time / the oracle's time. The oracle is picked on one half of the samples and judged on the other, both ways,
// and so is the best single selection: a minimum over noisy medians, judged by the same samples, would be too good to
// be true, and everything else look worse than it is. What may be the best, what the table says and what the model says
// are measured longer than the rest (race.h), so that the halves agree. What is best changes with the machine's phase,
// so before a size is judged the phase in which it was fitted is waited for; where it has not come, the table is fitted
// again in the one that there is, and judged there. What is left when there is no time for that is judged all the same,
// and told apart. Pure, as tuning.h.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bench/measure/tuning.h"

namespace gradrail {

struct HeldOutSize {
  std::int64_t bytes = 0;
  Selection best;  // of everything measured there: the oracle
  double best_us = 0;
  Selection table;
  double table_us = 0;
  double table_regret = 1;
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

struct Regret {
  std::vector<HeldOutSize> sizes;
  Spread table;
  Spread model;
  // Over the sizes that were judged in the phase in which the table was fitted there.
  Spread table_same_phase;
  Spread model_same_phase;
  Selection fixed;  // the selection, of those measured at every size, with the least regret when used for all sizes
  Spread fixed_spread;
};

// Sizes between those fitted, off powers of two, multiples of `unit`, none of them in `tuned.sizes`.
[[nodiscard]] std::vector<std::int64_t> held_out_sizes(std::span<const std::int64_t> grid, std::int64_t unit,
                                                       const Tuned& tuned);
// Fits the table again, and changes `tuned` and what `table` answers; false if there is no time for that.
using FitAgain = std::function<Result<bool>()>;
// `fit_again` may be missing.
[[nodiscard]] Result<Regret> measure_regret(const Question& question, const Tuned& tuned,
                                            std::span<const std::int64_t> sizes, const Selector& table,
                                            const Selector& model, const MeasureSize& measure, const TuneRules& rules,
                                            const FitAgain& fit_again = {});

}  // namespace gradrail
