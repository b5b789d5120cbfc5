#include "collectives/compress/select.h"

#include <algorithm>
#include <cstring>

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

std::size_t above(const float* from, std::size_t begin, std::size_t end, std::int32_t threshold, std::uint32_t* indices,
                  float* values) {
  const F32Tag d;
  const I32Tag di;
  const U32Tag du;
  const std::size_t n = hn::Lanes(d);
  const auto least = hn::Set(di, threshold);
  std::size_t found = 0, i = begin;
  for (; i + 4 * n <= end; i += 4 * n) {
    for (std::size_t line = 0; line < 4 * n; line += 16) hwy::Prefetch(from + i + k_ahead + line);
    const auto v0 = hn::LoadU(d, from + i), v1 = hn::LoadU(d, from + i + n);
    const auto v2 = hn::LoadU(d, from + i + 2 * n), v3 = hn::LoadU(d, from + i + 3 * n);
    const auto m0 = larger(v0, least), m1 = larger(v1, least), m2 = larger(v2, least), m3 = larger(v3, least);
    if (hn::AllFalse(di, hn::Or(hn::Or(m0, m1), hn::Or(m2, m3)))) continue;
    const auto at = hn::Iota(du, static_cast<std::uint32_t>(i));
    const auto step = hn::Set(du, static_cast<std::uint32_t>(n));
    const auto at2 = hn::Add(at, hn::Add(step, step));
    found += append(v0, at, m0, indices + found, values + found);
    found += append(v1, hn::Add(at, step), m1, indices + found, values + found);
    found += append(v2, at2, m2, indices + found, values + found);
    found += append(v3, hn::Add(at2, step), m3, indices + found, values + found);
  }
  for (; i < end; ++i) {
    const auto size = static_cast<std::int32_t>(arithmetic::size_bits(from[i]));
    indices[found] = static_cast<std::uint32_t>(i);
    values[found] = from[i];
    found += size > threshold ? 1 : 0;
  }
  return found;
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

SelectKernels choose_select_kernels() { return {&above, &keep}; }

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

std::int32_t Selection::size_at(std::size_t rank) {
  const auto at = sizes_.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(sizes_.begin(), at, sizes_.end(), std::greater<>());
  return *at;
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
bool Selection::scan(std::span<const float> from, std::size_t wanted, std::int32_t threshold) {
  const SelectKernels kernels = select_kernels();
  found_ = 0;
  for (std::size_t at = 0; at < from.size();) {
    if (room_ - found_ < 64) {
      keep_largest(wanted);
      // An equal one that comes later has a larger index.
      for (std::size_t i = 0; i < found_; ++i) {
        if (i == 0 || size_of_value(values_[i]) < threshold) threshold = size_of_value(values_[i]);
      }
    }
    const std::size_t end = std::min(from.size(), at + std::min(k_stretch, room_ - found_));
    found_ += kernels.above(from.data(), at, end, threshold, indices_.data() + found_, values_.data() + found_);
    at = end;
  }
  return found_ >= wanted;
}

void Selection::collect(std::span<const float> from, std::size_t wanted) {
  room_ = std::min(from.size(), 2 * wanted + 2 * k_stretch) + 64;
  if (indices_.size() < room_ + k_select_slack) {
    indices_.resize(room_ + k_select_slack);
    values_.resize(room_ + k_select_slack);
  }
  std::int32_t threshold = k_everything;
  if (from.size() > 4 * k_sample && wanted < from.size() / 2) {
    sizes_.resize(k_sample);
    std::size_t i = 0;
    for_sample(from.size(), k_sample, [&](std::size_t at) { sizes_[i++] = size_of_value(from[at]); });
    // Four deviations of the number that a sample finds above the true threshold, so that too few are rare.
    const double share = static_cast<double>(wanted) / static_cast<double>(from.size());
    const double mean = share * static_cast<double>(k_sample);
    const auto rank = static_cast<std::size_t>(mean + 4 * std::sqrt(mean) + 8);
    if (rank < k_sample) threshold = size_at(rank) - 1;
  }
  if (scan(from, wanted, threshold) || threshold == k_everything) return;
  (void)scan(from, wanted, k_everything);
}

void Selection::exact(std::span<const float> from, std::size_t wanted) {
  collect(from, wanted);
  keep_largest(wanted);
}

void Selection::sampled(std::span<const float> from, std::size_t wanted) {
  collect(from, wanted);
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

}  // namespace gradrail
#endif
