// Choosing the values of largest size: exactly, or about as many as wanted. One pass over the data: a threshold taken
// from a small sample lets few enough through, and the choice is made among those.
//
// A NaN is larger than everything, an infinity larger than every number: neither is ever left behind by a smaller
// value. Of values of the same size, exact selection takes those with the smallest indices.
//
// A Selection owns its scratch memory and the result, and is used by one thread; it allocates when it meets a larger
// tensor than before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "collectives/compress/sparse.h"

namespace gradrail {

class Selection {
 public:
  // Just `wanted` pairs, 0 to from.size().
  void exact(std::span<const float> from, std::size_t wanted);
  // Between nine and eleven tenths of `wanted`, or a difference of one: DGC (Lin et al., ICLR 2018), section 3.1.
  void sampled(std::span<const float> from, std::size_t wanted);
  // The same of sums, which are made in the pass that chooses: to[i] += from[i].
  void exact_sums(std::span<float> to, std::span<const float> from, std::size_t wanted);
  void sampled_sums(std::span<float> to, std::span<const float> from, std::size_t wanted);
  // Sets to zero what was chosen from `values`.
  void zero(std::span<float> values) const;

  [[nodiscard]] SparseView pairs() const {
    return {std::span(indices_.data(), found_), std::span(values_.data(), found_)};
  }
  [[nodiscard]] bool non_finite() const;

 private:
  // What is chosen from; `adding`, if not empty, is added to it first.
  struct Source {
    std::span<const float> values;
    std::span<float> sums;  // the same values, if something is added
    std::span<const float> adding;
  };
  void collect(Source from, std::size_t wanted);
  [[nodiscard]] bool scan(const Source& from, std::size_t wanted, std::int32_t threshold);
  void thin_out(std::size_t wanted);
  void keep_largest(std::size_t wanted);
  void keep_above(std::int32_t threshold);
  // The size of the `rank`-th largest of what stands in sizes_, counted from 0.
  [[nodiscard]] std::int32_t size_at(std::size_t rank);

  std::vector<std::uint32_t> indices_;
  std::vector<float> values_;
  std::vector<std::int32_t> sizes_, between_;
  std::size_t found_ = 0;
  std::size_t room_ = 0;
};

// --- The kernels. Sizes are float bits without the sign, ordered as integers.

struct SelectKernels {
  // Pairs of from[begin..end) with a size above the threshold, appended; each index is its place in `from`. May write
  // k_select_slack pairs further.
  std::size_t (*above)(const float* from, std::size_t begin, std::size_t end, std::int32_t threshold,
                       std::uint32_t* indices, float* values);
  // The same of to[begin..end), to which from[begin..end) is added first.
  std::size_t (*add_above)(float* to, const float* from, std::size_t begin, std::size_t end, std::int32_t threshold,
                           std::uint32_t* indices, float* values);
  // The same among pairs, in place.
  std::size_t (*keep)(std::uint32_t* indices, float* values, std::size_t count, std::int32_t threshold);
};
inline constexpr std::size_t k_select_slack = 64;
[[nodiscard]] SelectKernels select_kernels();

}  // namespace gradrail
