#include "bench/measure/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "transports/base/check.h"

namespace gradrail {
namespace {

constexpr std::size_t k_resamples = 1000;
constexpr std::size_t k_most_samples_for_bootstrap = 1000;
constexpr double k_confidence = 0.95;
constexpr double k_z = 1.959963984540054;  // of the normal distribution, for k_confidence on two sides

std::vector<double> sorted_copy(std::span<const double> samples) {
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// splitmix64 (Steele, Lea and Flood 2014) of a counter: a random number by its place, without state.
std::uint64_t random_at(std::uint64_t counter) {
  std::uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Medians of resamples. Because `sorted` is sorted, a resample is known by how often each place was drawn, and its
// median is found by counting up to the middle: no sorting.
class MedianResampler {
 public:
  MedianResampler(std::span<const double> sorted, std::uint64_t stream)
      : sorted_(sorted), drawn_(sorted.size()), counter_(stream << 40) {}

  double operator()() {
    const std::size_t n = sorted_.size();
    std::fill(drawn_.begin(), drawn_.end(), 0);
    for (std::size_t i = 0; i < n; ++i) {
      // The high half of a 32 x 32-bit product is uniform below n, without a division.
      ++drawn_[(random_at(counter_++) >> 32) * n >> 32];
    }
    const std::size_t upper_rank = n / 2;
    const std::size_t lower_rank = (n - 1) / 2;
    std::size_t at = 0;
    std::size_t seen = drawn_[0];
    while (seen <= lower_rank) seen += drawn_[++at];
    const double lower = sorted_[at];
    while (seen <= upper_rank) seen += drawn_[++at];
    return (lower + sorted_[at]) / 2;
  }

 private:
  std::span<const double> sorted_;
  std::vector<std::uint32_t> drawn_;
  std::uint64_t counter_;
};

Interval percentile_interval(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return {quantile(values, (1 - k_confidence) / 2), quantile(values, (1 + k_confidence) / 2)};
}

}  // namespace

double quantile(std::span<const double> sorted, double q) {
  GRADRAIL_CHECK(!sorted.empty() && q >= 0 && q <= 1);
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

double median(std::span<const double> samples) { return quantile(sorted_copy(samples), 0.5); }

double coefficient_of_variation(std::span<const double> samples) {
  if (samples.size() < 2) return 0;
  const auto n = static_cast<double>(samples.size());
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / n;
  double squares = 0;
  for (const double sample : samples) squares += (sample - mean) * (sample - mean);
  return mean == 0 ? 0 : std::sqrt(squares / (n - 1)) / mean;
}

Interval median_interval(std::span<const double> sorted) {
  GRADRAIL_CHECK(!sorted.empty());
  const std::size_t n = sorted.size();
  if (n < k_least_samples_for_interval) return {sorted.front(), sorted.back()};
  if (n > k_most_samples_for_bootstrap) {
    const double half_width = k_z / 2 * std::sqrt(static_cast<double>(n));
    const auto low = static_cast<std::size_t>(std::floor(static_cast<double>(n) / 2 - half_width));
    return {sorted[low], sorted[n - 1 - low]};
  }
  MedianResampler resample(sorted, /*stream=*/0);
  std::vector<double> medians(k_resamples);
  for (double& value : medians) value = resample();
  return percentile_interval(medians);
}

Timing summarise(std::span<const double> samples_us, std::int64_t batch) {
  const std::vector<double> sorted = sorted_copy(samples_us);
  const Interval interval = median_interval(sorted);
  return {.median = quantile(sorted, 0.5),
          .ci = {interval.low, interval.high},
          .p95 = quantile(sorted, 0.95),
          .p99 = quantile(sorted, 0.99),
          .min = sorted.front(),
          .max = sorted.back(),
          .cv = coefficient_of_variation(sorted),
          .n = static_cast<std::int64_t>(sorted.size()),
          .batch = batch};
}

bool parted(const Timing& a, const Timing& b) {
  constexpr auto k_least = static_cast<std::int64_t>(k_least_samples_for_interval);
  return a.n >= k_least && b.n >= k_least && (a.ci[1] < b.ci[0] || b.ci[1] < a.ci[0]);
}

Ratio ratio_of_medians(std::span<const double> a, std::span<const double> b) {
  const std::vector<double> sorted_a = sorted_copy(a);
  const std::vector<double> sorted_b = sorted_copy(b);
  MedianResampler resample_a(sorted_a, /*stream=*/1);
  MedianResampler resample_b(sorted_b, /*stream=*/2);
  std::vector<double> ratios(k_resamples);
  for (double& ratio : ratios) ratio = resample_a() / resample_b();
  return {quantile(sorted_a, 0.5) / quantile(sorted_b, 0.5), percentile_interval(ratios)};
}

double mann_whitney_p(std::span<const double> a, std::span<const double> b) {
  if (a.empty() || b.empty()) return 1;
  struct Tagged {
    double value;
    bool of_a;
  };
  std::vector<Tagged> all;
  all.reserve(a.size() + b.size());
  for (const double value : a) all.push_back({value, true});
  for (const double value : b) all.push_back({value, false});
  std::sort(all.begin(), all.end(), [](const Tagged& x, const Tagged& y) { return x.value < y.value; });

  double rank_sum_a = 0;
  double tie_sum = 0;  // of t^3 - t over groups of t equal values
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i;
    std::size_t of_a = 0;
    for (; end < all.size() && all[end].value == all[i].value; ++end) of_a += all[end].of_a;
    const auto t = static_cast<double>(end - i);
    rank_sum_a += static_cast<double>(of_a) * (static_cast<double>(i + end) + 1) / 2;  // the group's mean rank, from 1
    tie_sum += t * t * t - t;
    i = end;
  }
  const auto n_a = static_cast<double>(a.size());
  const auto n_b = static_cast<double>(b.size());
  const double n = n_a + n_b;
  const double u = rank_sum_a - n_a * (n_a + 1) / 2;
  const double variance = n_a * n_b / 12 * (n + 1 - tie_sum / (n * (n - 1)));
  if (variance <= 0) return 1;  // all values are equal
  const double distance = std::max(0.0, std::abs(u - n_a * n_b / 2) - 0.5);
  return std::erfc(distance / std::sqrt(2 * variance));
}

std::vector<double> robust_z_scores(std::span<const double> values) {
  constexpr double k_of_median = 1.482602218505602;  // standard deviation / median absolute deviation, if normal
  constexpr double k_of_mean = 1.2533141373155;      // standard deviation / mean absolute deviation, if normal
  std::vector<double> scores(values.size());
  if (values.empty()) return scores;
  const double middle = median(values);
  std::vector<double> deviations;
  for (const double value : values) deviations.push_back(std::abs(value - middle));
  double spread = k_of_median * median(deviations);
  if (!(spread > 0))
    spread =
        k_of_mean * std::accumulate(deviations.begin(), deviations.end(), 0.0) / static_cast<double>(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) scores[i] = spread > 0 ? (values[i] - middle) / spread : 0;
  return scores;
}

std::vector<double> slowest_rank(std::span<const std::vector<double>> samples_by_rank) {
  if (samples_by_rank.empty()) return {};
  std::vector<double> slowest = samples_by_rank.front();
  for (const auto& samples : samples_by_rank.subspan(1)) {
    slowest.resize(std::min(slowest.size(), samples.size()));
    for (std::size_t i = 0; i < slowest.size(); ++i) slowest[i] = std::max(slowest[i], samples[i]);
  }
  return slowest;
}

}  // namespace gradrail
