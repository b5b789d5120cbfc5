// Statistics of samples: pure functions, same answer for the same samples on every machine (the bootstrap's random
// numbers are a function of a counter). Samples are taken to be independent; where the machine's phase moves under them
// they are not, which is why phases are probed around every block and only samples of one phase get here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "results/record.h"

namespace gradrail {

// Fewer samples than this cannot bound a median with 95 % confidence (for 5, even [min, max] misses it in 6 % of
// cases).
inline constexpr std::size_t k_least_samples_for_interval = 6;

struct Interval {
  double low = 0;
  double high = 0;
};

// Linear interpolation between order statistics (type 7 of Hyndman and Fan 1996, the default of R and NumPy).
// `sorted` ascending and not empty, 0 <= q <= 1.
[[nodiscard]] double quantile(std::span<const double> sorted, double q);

[[nodiscard]] double median(std::span<const double> samples);  // any order, not empty

// Standard deviation (n - 1) / mean; 0 for a single sample or a mean of 0.
[[nodiscard]] double coefficient_of_variation(std::span<const double> samples);

// 95 % confidence interval of the median. Up to 1000 samples: percentile bootstrap with 1000 resamples (Efron and
// Tibshirani 1993, section 13.3). More: the order statistics at n/2 -+ 0.98 sqrt(n), which the bootstrap converges to
// and which cost nothing. Fewer than k_least_samples_for_interval: [min, max], which promises nothing (see parted()).
[[nodiscard]] Interval median_interval(std::span<const double> sorted);

// Everything a record says about the samples of a point. `batch` operations made one sample. Not empty.
[[nodiscard]] Timing summarise(std::span<const double> samples_us, std::int64_t batch = 1);

// Whether two medians differ beyond doubt: both intervals rest on enough samples, and do not touch. (Two 95 % intervals
// that part say more than p < 0.05: about p < 0.006 where the spreads are alike.)
[[nodiscard]] bool parted(const Timing& a, const Timing& b);

struct Ratio {
  double value = 1;  // median(a) / median(b)
  Interval interval;
};
// How many times slower a is than b, with a 95 % bootstrap interval. Neither empty, medians above 0.
[[nodiscard]] Ratio ratio_of_medians(std::span<const double> a, std::span<const double> b);

// Two-sided p-value of the Mann-Whitney U test that neither tends to be larger, with tie and continuity corrections;
// the normal approximation, good from about 8 samples each. 1 if either is empty.
[[nodiscard]] double mann_whitney_p(std::span<const double> a, std::span<const double> b);

// How far each value lies from the median, in standard deviations estimated from the median absolute deviation
// (Iglewicz and Hoaglin 1993); where more than half of the values are equal, from the mean absolute deviation; 0 if all
// are.
[[nodiscard]] std::vector<double> robust_z_scores(std::span<const double> values);

// Per iteration, the slowest rank's time: an operation is over when the last rank has it. Iterations that not all ranks
// have are dropped.
[[nodiscard]] std::vector<double> slowest_rank(std::span<const std::vector<double>> samples_by_rank);

}  // namespace gradrail
