// The sum of any number of sparse vectors, in one pass: the vectors are walked block of indices by block, so that what
// is added to lies in the nearest cache. Values of one index are added to +0 in the order of the vectors, so that the
// bits are those of adding one message after the other to zeros (but for which NaN one is).
//
// Owns scratch memory and the result; allocates when it meets a larger sum than reserve() made room for. For one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "collectives/compress/sparse.h"

namespace gradrail {

class SparseSum {
 public:
  explicit SparseSum(std::size_t width = 1);
  void reserve(std::size_t pairs);

  // Of what is left of the vectors, whose indices are below `places` and stay what they are. The number of the first
  // vector that turned out to be damaged, or nothing if all were read.
  [[nodiscard]] std::optional<std::size_t> sum(std::span<SparseReader> vectors, std::uint64_t places);
  // The result, until the next sum.
  [[nodiscard]] SparseView pairs() const {
    return {std::span(indices_).first(found_), std::span(values_).first(found_ * width_), width_};
  }

 private:
  void take_out(std::uint64_t base);

  std::size_t width_;
  std::size_t block_;                // places a block
  std::vector<float> block_values_;  // zeros between blocks
  std::vector<std::uint64_t> touched_;
  std::vector<std::uint32_t> indices_;
  std::vector<float> values_;
  std::size_t found_ = 0;
};

}  // namespace gradrail
