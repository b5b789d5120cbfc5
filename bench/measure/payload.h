// Fresh data for a check, and the answer to expect. Every rank's input repeats a short random pattern whose period is
// prime, so that a block that lands in the wrong place, or twice, is seen, while filling and comparing 256 MiB costs no
// more than copying it. Values are small integers: sums of them are exact in every type, in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "collectives/types.h"

namespace gradrail {

class Payload {
 public:
  // `count` as in Call: the elements of the data, or of one block where the collective is blocked. The same data on all
  // ranks for the same arguments.
  Payload(Collective collective, std::uint64_t count, Type type, ReduceOp op, int ranks, int root, std::uint64_t seed);

  // Fills this rank's input: the whole buffer, of whole elements.
  void fill(int rank, std::span<std::byte> input) const;
  // Elements of this rank's output that differ from the right answer. An output that the rank does not have is empty
  // and right.
  [[nodiscard]] std::uint64_t count_wrong(int rank, std::span<const std::byte> output) const;

 private:
  static constexpr std::size_t k_period = 65521;  // the largest prime below 2^16

  using Pattern = std::vector<std::byte>;
  [[nodiscard]] Pattern make_pattern(int rank) const;
  [[nodiscard]] Pattern make_reduced() const;
  // Compares `bytes` with the repeated pattern from its element `first` on.
  [[nodiscard]] std::uint64_t differences(const Pattern& pattern, std::uint64_t first,
                                          std::span<const std::byte> bytes) const;

  Collective collective_;
  std::uint64_t count_;
  std::size_t period_;
  Type type_;
  ReduceOp op_;
  int ranks_;
  int root_;
  std::uint64_t seed_;
  std::size_t element_bytes_;
  Pattern reduced_;  // of all ranks, where the collective reduces
};

}  // namespace gradrail
