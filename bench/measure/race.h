// Selections measured against each other at one size: all for a short time, and what may be the best once more and
// longer, so that what decides are samples that had no part in choosing the finalists. What fitting a table (tuning.h)
// and judging it (regret.h) share. Pure but for the measuring, which is a function that the caller hands in.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "collectives/select/selector.h"
#include "transports/base/result.h"

namespace gradrail {

// By selection, in microseconds; empty for one that is not defined there, came out wrong, or for which there was no
// time.
using SelectionSamples = std::vector<std::vector<double>>;

// Measures the selections against each other at one size, each for `effort` times the usual time.
using MeasureSize =
    std::function<Result<SelectionSamples>(std::int64_t bytes, std::span<const Selection> selections, double effort)>;

inline constexpr double k_first_effort = 0.5;  // of the usual time at a point, for all
inline constexpr double k_may_be_best =
    1.15;  // within this factor of the best, or with an interval that touches its own
inline constexpr double k_never = std::numeric_limits<double>::infinity();  // the time of what has no samples

[[nodiscard]] std::vector<double> medians(std::span<const std::vector<double>> samples_us);
[[nodiscard]] std::size_t best_of(std::span<const double> times);  // the first of the least

// A whole multiple of the unit near `share` of the way from low to high, in logarithms; strictly between, else nothing.
[[nodiscard]] std::optional<std::int64_t> between(std::int64_t low, std::int64_t high, double share, std::int64_t unit);

// `which` were measured again: `later` takes the place of their samples where there was time for it, and the samples of
// the others are brought to the machine as it was then.
void take_the_later(SelectionSamples& samples, const std::vector<std::size_t>& which, SelectionSamples later);

// Measures them in a few blocks, whose samples count together: how ranks that share cores lie on them may favour one
// throughout a block.
[[nodiscard]] Result<SelectionSamples> measure_in_blocks(std::int64_t bytes, std::span<const Selection> selections,
                                                         double effort, const MeasureSize& measure);

// Measures all for a short time, and then what may be the best, and those of `always`, again.
[[nodiscard]] Result<SelectionSamples> race(std::int64_t bytes, std::span<const Selection> selections,
                                            const std::vector<std::size_t>& always, const MeasureSize& measure);

}  // namespace gradrail
