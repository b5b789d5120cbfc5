// Ours against other libraries: from points of one block to one comparison a size, and the closing table of all. The
// peer at a size is the best of all configurations of all libraries there; ours is what a user gets, auto. Pure
// functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "results/record.h"

namespace gradrail {

// One for each case that has both; points of one block only, for others do not compare. Ours on registered buffers is a
// comparison of its own, against the same peer on plain ones.
[[nodiscard]] std::vector<Comparison> compare_with_peers(std::span<const Point> points);

enum class Standing { faster, even, slower };  // even: the interval of the ratio holds 1
[[nodiscard]] Standing standing_of(const Comparison& comparison);

// Of one case by size: how often ours is how much faster.
struct Score {
  std::size_t sizes = 0;
  double geometric_mean = 1;
  double least = 1;  // ratio
  std::int64_t least_bytes = 0;
  std::size_t slower = 0;  // sizes at which the interval lies below 1
};
// Not empty.
[[nodiscard]] Score score_of(std::span<const Comparison> comparisons);

// Comparisons of one case, in order of sizes; cases in the order in which they first appear.
[[nodiscard]] std::vector<std::vector<Comparison>> by_case(std::span<const Comparison> comparisons);

// "allreduce of f32 sum, 2 ranks, shm, plain buffers, in place"
[[nodiscard]] std::string case_name(const Comparison& comparison);

// Lines that start with '#', one table a case; empty without comparisons.
[[nodiscard]] std::string against_table(std::span<const Comparison> comparisons);

}  // namespace gradrail
