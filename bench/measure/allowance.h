// Divides a time among what is to be measured in it, where an operation may take anything from a microsecond to a
// second: before each block, which of the selections it holds and how they are measured, so that what is expected to
// take longer than there is left is not begun. Given up first is care, then what is expected to be far behind, then the
// rest from the slowest on; what was measured at a size before is measured there again as a whole or not at all. Rank
// 0's, one thread. Pure: the clock is the caller's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/measure/block.h"
#include "bench/measure/race.h"
#include "collectives/schedule/cost.h"

namespace gradrail {

class Allowance {
 public:
  // Seconds of one operation, before anything was measured.
  using Expect = std::function<double(const Selection& selection, std::int64_t bytes)>;
  // A size, and about how many seconds an operation takes there.
  struct Part {
    std::int64_t bytes = 0;
    double operation = 0;
  };
  struct Plan {
    std::vector<std::size_t>
        which;  // of the selections, what is kept and then the fastest first; none: there is no time
    Pace pace;
    double time_per_point = 0;  // seconds
    double most_time = 0;       // MeasureRules::most_time
  };

  Allowance(std::function<double()> clock, Expect expect) : clock_(std::move(clock)), expect_(std::move(expect)) {}

  // A stage: until the clock says `end` these sizes are measured, in this order, each for its part of the time, what
  // one does not need going to the next; `more` times as much is kept for sizes that come in later.
  void begin(std::string stage, double end, std::vector<Part> parts, double more = 0);
  // Those of `keep` come first: without them the others are of no use.
  [[nodiscard]] Plan plan(std::int64_t bytes, std::span<const Selection> selections, double time_per_point,
                          std::span<const Selection> keep = {});
  void learn(std::int64_t bytes, std::span<const Selection> selections, const SelectionSamples& samples_us);
  // How many seconds the block planned last took with all that belongs to it.
  void took(double seconds) { overhead_ = (overhead_ + std::max(0.0, seconds - planned_)) / 2; }
  // Whether what took so long may be done once more.
  [[nodiscard]] bool again(double took) const { return clock_() + took <= size_end_; }
  void leave_out(std::int64_t bytes, std::size_t left, std::size_t of);
  // "fitting (14 of 27 at 1 MiB; twice not again), judging (4 MiB)"; empty: everything was measured.
  [[nodiscard]] std::string left_out() const;

 private:
  struct Known {
    Selection selection;
    std::map<std::int64_t, double> seconds;  // by bytes
  };
  struct Omission {
    std::string stage;
    std::int64_t bytes = 0;
    std::size_t left = 0;
    std::size_t of = 0;
  };
  [[nodiscard]] std::vector<Known>::const_iterator find(const Selection& selection) const;
  [[nodiscard]] double expected(const Selection& selection, std::int64_t bytes) const;
  void enter(std::int64_t bytes);

  std::function<double()> clock_;
  Expect expect_;
  std::string stage_;
  double end_ = 0;
  std::vector<Part> parts_;  // still to come
  double more_ = 0;          // weight
  std::int64_t current_ = -1;
  double size_end_ = 0;
  double planned_ = 0;   // seconds, of the block planned last
  double overhead_ = 0;  // of a block, beyond what was planned
  double bias_ = 0;      // ln of measured / expect_
  std::vector<Known> known_;
  std::vector<Omission> omissions_;
  std::map<std::string, int> repeats_left_out_;  // by stage
};

// Seconds of an operation on so many bytes, in order of magnitude.
[[nodiscard]] double rough_operation(const CostModel& model, double bytes);

// Where samples of so many microseconds do not fit into what is left, the dearest cases give theirs up first, down to
// three a case. Whether all fitted.
bool fit_samples(std::span<int> wanted, std::span<const double> sample_us, double left_us);

}  // namespace gradrail
