#include "collectives/compress/select.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "collectives/compress/arithmetic.h"

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/compress/select.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "hwy/cache_control.h"
#include "collectives/compress/vectors_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

HWY_INLINE hn::Mask<I32Tag> larger(F32 v, I32 threshold) {
  const I32Tag d;
  return hn::Gt(hn::And(hn::BitCast(d, v), hn::Set(d, 0x7FFFFFFF)), threshold);
}

// Compresses in a register and writes a whole vector: writing under a mask is slow where it is done in microcode.
HWY_INLINE std::size_t append(F32 v, U32 index, hn::Mask<I32Tag> mask, std::uint32_t* indices, float* values) {
  const F32Tag d;
  const U32Tag du;
  hn::StoreU(hn::Compress(index, hn::RebindMask(du, mask)), du, indices);
  hn::StoreU(hn::Compress(v, hn::RebindMask(d, mask)), d, values);
  return hn::CountTrue(I32Tag(), mask);
}

// Hardware does not look past the end of a page for what is read next.
constexpr std::size_t k_ahead = 1024;
// Values of which is noted, bit by bit, what is larger, before that is looked at: in the nearest cache.
constexpr std::size_t k_near = 2048;

// One bit for each lane, from the bit of the place `at` on.
HWY_INLINE void note(hn::Mask<I32Tag> mask, std::uint8_t* bits, std::size_t at) {
  const I32Tag d;
  if constexpr (hn::MaxLanes(d) >= 8) {
    hn::StoreMaskBits(d, mask, bits + at / 8);
  } else {
    std::uint8_t four[8] = {};
    hn::StoreMaskBits(d, mask, four);
    bits[at / 8] = at % 8 == 0 ? four[0] : static_cast<std::uint8_t>(bits[at / 8] | four[0] << (at % 8));
  }
}

// Appends the places of 64 bits. Guessing wrongly how many are set would cost more than writing two that do not count.
HWY_INLINE std::size_t append_places(std::uint64_t bits, std::uint32_t first, std::uint32_t* to) {
  const auto take = [&](std::size_t i) {
    to[i] = first + static_cast<std::uint32_t>(std::countr_zero(bits));
    bits &= bits - 1;
  };
  const auto found = static_cast<std::size_t>(std::popcount(bits));
  take(0);
  take(1);
  for (std::size_t i = 2; bits != 0; ++i) take(i);
  return found;
}

// Of x, or of its sums with `from`.
template <bool k_add>
HWY_INLINE std::size_t above_in(float* x, const float* from, std::size_t begin, std::size_t end, std::int32_t threshold,
                                std::uint32_t* indices, float* values) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d);
  const auto least = hn::Set(I32Tag(), threshold);
  std::uint8_t bits[k_near / 8];
  std::size_t found = 0, i = begin;
  while (i + 64 <= end) {
    const std::size_t near = std::min((end - i) / 64 * 64, k_near), before = found;
    for (std::size_t at = 0; at < near; at += n) {
      if (at % 16 == 0) {
        hwy::Prefetch(x + i + at + k_ahead);
        if constexpr (k_add) hwy::Prefetch(from + i + at + k_ahead);
      }
      auto v = hn::LoadU(d, x + i + at);
      if constexpr (k_add) {
        v = hn::Add(v, hn::LoadU(d, from + i + at));
        hn::StoreU(v, d, x + i + at);
      }
      note(larger(v, least), bits, at);
    }
    for (std::size_t at = 0; at < near; at += 64) {
      std::uint64_t word = 0;
      std::memcpy(&word, bits + at / 8, sizeof word);
      found += append_places(word, static_cast<std::uint32_t>(i + at), indices + found);
    }
    for (std::size_t j = before; j < found; ++j) values[j] = x[indices[j]];
    i += near;
  }
  for (; i < end; ++i) {
    if constexpr (k_add) x[i] += from[i];
    const auto size = static_cast<std::int32_t>(arithmetic::size_bits(x[i]));
    indices[found] = static_cast<std::uint32_t>(i);
    values[found] = x[i];
    found += size > threshold ? 1 : 0;
  }
  return found;
}

std::size_t above(const float* from, std::size_t begin, std::size_t end, std::int32_t threshold, std::uint32_t* indices,
                  float* values) {
  return above_in<false>(const_cast<float*>(from), nullptr, begin, end, threshold, indices, values);  // only read
}

std::size_t add_above(float* to, const float* from, std::size_t begin, std::size_t end, std::int32_t threshold,
                      std::uint32_t* indices, float* values) {
  return above_in<true>(to, from, begin, end, threshold, indices, values);
}

std::size_t keep(std::uint32_t* indices, float* values, std::size_t count, std::int32_t threshold) {
  const F32Tag d;
  const U32Tag du;
  const std::size_t n = hn::Lanes(d);
  const auto least = hn::Set(I32Tag(), threshold);
  std::size_t found = 0, i = 0;
  // What is overwritten was read before: the vector being read begins where writing ends at the latest.
  for (; i + n <= count; i += n) {
    const auto v = hn::LoadU(d, values + i);
    found += append(v, hn::LoadU(du, indices + i), larger(v, least), indices + found, values + found);
  }
  for (; i < count; ++i) {
    const float value = values[i];
    const bool larger_one = static_cast<std::int32_t>(arithmetic::size_bits(value)) > threshold;
    indices[found] = indices[i];
    values[found] = value;
    found += larger_one ? 1 : 0;
  }
  return found;
}

}  // namespace

SelectKernels choose_select_kernels() { return {&above, &add_above, &keep}; }

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {
namespace {

HWY_EXPORT(choose_select_kernels);

constexpr std::int32_t k_everything = -1;  // below every size
constexpr std::size_t k_sample = 8192;
constexpr std::size_t k_second_sample = 4096;
constexpr std::size_t k_stretch = 16384;  // values looked at between two looks at the room left

std::int32_t size_of_value(float value) { return static_cast<std::int32_t>(arithmetic::size_bits(value)); }

// One place in each of `samples` equal parts, not always at the same distance from its begin: data have periods.
template <class Take>
void for_sample(std::size_t count, std::size_t samples, Take take) {
  const std::size_t stride = count / samples;
  std::uint32_t state = 0x9E3779B9u;
  for (std::size_t i = 0; i < samples; ++i) {
    state = state * 1664525u + 1013904223u;
    take(i * stride + (std::uint64_t{state} * stride >> 32));
  }
}

}  // namespace

SelectKernels select_kernels() { return HWY_DYNAMIC_DISPATCH(choose_select_kernels)(); }

bool Selection::non_finite() const {
  bool found = false;
  for (const float value : pairs().values) found |= arithmetic::size_bits(value) >= arithmetic::k_infinity;
  return found;
}

// Of many, most are told apart by two sizes between which the wanted one lies, taken from a sample.
std::int32_t Selection::size_at(std::size_t rank) {
  const auto nth = [](std::vector<std::int32_t>& sizes, std::size_t at) {
    const auto place = sizes.begin() + static_cast<std::ptrdiff_t>(at);
    std::nth_element(sizes.begin(), place, sizes.end(), std::greater<>());
    return *place;
  };
  const std::size_t count = sizes_.size();
  if (count <= 8 * k_second_sample) return nth(sizes_, rank);
  between_.resize(k_second_sample);
  std::size_t i = 0;
  for_sample(count, k_second_sample, [&](std::size_t at) { between_[i++] = sizes_[at]; });
  constexpr auto k_samples = static_cast<double>(k_second_sample);
  const double share = static_cast<double>(rank) / static_cast<double>(count);
  // Five deviations of how many of a sample are larger.
  const double mean = share * k_samples, margin = 5 * std::sqrt(mean * (1 - share)) + 2;
  const std::int32_t most =
      mean < margin ? std::numeric_limits<std::int32_t>::max() : nth(between_, static_cast<std::size_t>(mean - margin));
  const std::int32_t least =
      mean + margin >= k_samples ? k_everything : nth(between_, static_cast<std::size_t>(mean + margin));
  between_.resize(count);
  std::size_t larger = 0, kept = 0;
  for (const std::int32_t size : sizes_) {
    between_[kept] = size;
    larger += size > most ? 1 : 0;
    kept += size >= least && size <= most ? 1 : 0;
  }
  if (rank < larger || rank - larger >= kept) return nth(sizes_, rank);
  between_.resize(kept);
  return nth(between_, rank - larger);
}

void Selection::keep_above(std::int32_t threshold) {
  found_ = select_kernels().keep(indices_.data(), values_.data(), found_, threshold);
}

void Selection::keep_largest(std::size_t wanted) {
  if (found_ <= wanted) return;
  if (wanted == 0) {
    found_ = 0;
    return;
  }
  sizes_.resize(found_);
  for (std::size_t i = 0; i < found_; ++i) sizes_[i] = size_of_value(values_[i]);
  const std::int32_t least = size_at(wanted - 1);
  keep_above(least - 1);
  // Of those that are just as large as the smallest one kept, the last ones are too many.
  std::size_t surplus = found_ - wanted;
  if (surplus == 0) return;
  std::size_t equal = 0;
  for (std::size_t i = 0; i < found_; ++i) equal += size_of_value(values_[i]) == least ? 1 : 0;
  std::size_t kept = 0;
  for (std::size_t i = 0, room = equal - surplus; i < found_; ++i) {
    const bool is_least = size_of_value(values_[i]) == least;
    if (is_least && room == 0) continue;
    room -= is_least ? 1 : 0;
    indices_[kept] = indices_[i];
    values_[kept++] = values_[i];
  }
  found_ = kept;
}

// Collects what is above the threshold; whenever that becomes too much, the threshold rises to what the wanted ones
// allow. False if in the end there were too few.
bool Selection::scan(const Source& from, std::size_t wanted, std::int32_t threshold) {
  const SelectKernels kernels = select_kernels();
  const std::size_t count = from.values.size();
  found_ = 0;
  for (std::size_t at = 0; at < count;) {
    if (room_ - found_ < 64) {
      keep_largest(wanted);
      // An equal one that comes later has a larger index.
      for (std::size_t i = 0; i < found_; ++i) {
        if (i == 0 || size_of_value(values_[i]) < threshold) threshold = size_of_value(values_[i]);
      }
    }
    const std::size_t end = std::min(count, at + std::min(k_stretch, room_ - found_));
    std::uint32_t* const indices = indices_.data() + found_;
    float* const values = values_.data() + found_;
    found_ += from.adding.empty()
                  ? kernels.above(from.values.data(), at, end, threshold, indices, values)
                  : kernels.add_above(from.sums.data(), from.adding.data(), at, end, threshold, indices, values);
    at = end;
  }
  return found_ >= wanted;
}

void Selection::collect(Source from, std::size_t wanted) {
  const std::size_t count = from.values.size();
  room_ = std::min(count, 2 * wanted + 2 * k_stretch) + 64;
  if (indices_.size() < room_ + k_select_slack) {
    indices_.resize(room_ + k_select_slack);
    values_.resize(room_ + k_select_slack);
  }
  std::int32_t threshold = k_everything;
  if (count > 4 * k_sample && wanted < count / 2) {
    sizes_.resize(k_sample);
    std::size_t i = 0;
    for_sample(count, k_sample, [&](std::size_t at) {
      sizes_[i++] = size_of_value(from.values[at] + (from.adding.empty() ? 0.0f : from.adding[at]));
    });
    // Four deviations of the number that a sample finds above the true threshold, so that too few are rare.
    const double share = static_cast<double>(wanted) / static_cast<double>(count);
    const double mean = share * static_cast<double>(k_sample);
    const auto rank = static_cast<std::size_t>(mean + 4 * std::sqrt(mean) + 8);
    if (rank < k_sample) threshold = size_at(rank) - 1;
  }
  if (scan(from, wanted, threshold) || threshold == k_everything) return;
  from.adding = {};  // that was done
  (void)scan(from, wanted, k_everything);
}

void Selection::exact(std::span<const float> from, std::size_t wanted) {
  collect({from, {}, {}}, wanted);
  keep_largest(wanted);
}
void Selection::exact_sums(std::span<float> to, std::span<const float> from, std::size_t wanted) {
  collect({to, to, from}, wanted);
  keep_largest(wanted);
}
void Selection::sampled(std::span<const float> from, std::size_t wanted) {
  collect({from, {}, {}}, wanted);
  thin_out(wanted);
}
void Selection::sampled_sums(std::span<float> to, std::span<const float> from, std::size_t wanted) {
  collect({to, to, from}, wanted);
  thin_out(wanted);
}

void Selection::thin_out(std::size_t wanted) {
  if (found_ > 4 * k_second_sample) {
    // A sample of what was collected says where the wanted ones end; it is far finer than one of all values.
    sizes_.resize(k_second_sample);
    std::size_t i = 0;
    for_sample(found_, k_second_sample, [&](std::size_t at) { sizes_[i++] = size_of_value(values_[at]); });
    const auto rank = static_cast<std::size_t>(static_cast<double>(wanted) / static_cast<double>(found_) *
                                               static_cast<double>(k_second_sample));
    if (rank < k_second_sample) {
      const std::int32_t threshold = size_at(rank);
      std::size_t left = 0;
      for (const float value : pairs().values) left += size_of_value(value) > threshold ? 1 : 0;
      if (left >= wanted - wanted / 12) keep_above(threshold);
    }
  }
  if (found_ > wanted + wanted / 12) keep_largest(wanted);
}

void Selection::zero(std::span<float> values) const {
  constexpr std::size_t k_ahead = 16;
  const auto indices = pairs().indices;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    __builtin_prefetch(values.data() + indices[std::min(i + k_ahead, indices.size() - 1)], 1);
    values[indices[i]] = 0.0f;
  }
}

}  // namespace gradrail
#endif
