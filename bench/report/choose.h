// Which algorithm wins: decided where confidence intervals part, and otherwise left with the simplest. Pure functions.
//
// Rivals are the points that differ in nothing but their algorithm. Only gradrail's own algorithms compete (other
// libraries are what they are compared with), those whose data is encoded do not (their results are others), "auto"
// does not (it is one of them already), and neither does a point that was wrong or could not be run. Figures of
// different phases of the machine do not compare: between them nothing is confident.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "results/record.h"

namespace gradrail {

enum class Mark : std::uint8_t {
  none,    // beaten, or without a rival
  winner,  // its interval parts from all others'
  tie,     // kept as the simplest of those that cannot be told apart
};

// One choice for each case among the points, in the order in which cases first appear. Simplicity is the place in
// `simplest_first`; algorithms that are not named there follow in the order in which they appear.
[[nodiscard]] std::vector<Choice> choose(std::span<const Point> points,
                                         std::span<const std::string> simplest_first = {});

// The same decision, as a mark for each of the points.
[[nodiscard]] std::vector<Mark> marks(std::span<const Point> points, std::span<const std::string> simplest_first = {});

// Neighbouring sizes with the same winner.
struct SizeRange {
  Choice first;  // of the smallest size; the case that all have in common
  std::int64_t last_bytes = 0;
  int sizes = 0;
  int confident_sizes = 0;
  double least_margin = 1;
  double largest_margin = 1;
  std::vector<std::string> runners_up = {};  // each once, in the order of sizes
};
// Choices of one case by size, whatever the order they come in.
[[nodiscard]] std::vector<SizeRange> merge_sizes(std::span<const Choice> choices);

}  // namespace gradrail
