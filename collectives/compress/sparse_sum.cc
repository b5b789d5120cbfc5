#include "collectives/compress/sparse_sum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace gradrail {
namespace {
constexpr std::size_t k_block_values = 8192;  // 32 KiB
}  // namespace

SparseSum::SparseSum(std::size_t width)
    : width_(width),
      block_(std::max<std::size_t>(64, k_block_values / width / 64 * 64)),
      block_values_(block_ * width),
      touched_(block_ / 64) {}

void SparseSum::reserve(std::size_t pairs) {
  if (indices_.size() >= pairs) return;
  indices_.resize(pairs);
  values_.resize(pairs * width_);
}

std::optional<std::size_t> SparseSum::sum(std::span<SparseReader> vectors, std::uint64_t places) {
  found_ = 0;
  while (true) {
    std::uint64_t first = places;
    for (const SparseReader& vector : vectors) first = std::min(first, vector.index());
    if (first >= places) break;
    const std::uint64_t base = first / block_ * block_;
    for (SparseReader& vector : vectors) {
      if (width_ == 1) {
        (void)vector.take_below(base + block_, [&](std::uint32_t index, const std::byte* bytes) {
          float value = 0;
          std::memcpy(&value, bytes, sizeof value);
          const std::size_t at = index - base;
          touched_[at / 64] |= std::uint64_t{1} << at % 64;
          block_values_[at] += value;
        });
      } else {
        (void)vector.take_below(base + block_, [&](std::uint32_t index, const std::byte* bytes) {
          const std::size_t at = index - base;
          touched_[at / 64] |= std::uint64_t{1} << at % 64;
          float* const to = block_values_.data() + at * width_;
          for (std::size_t i = 0; i < width_; ++i, bytes += 4) {
            float value = 0;
            std::memcpy(&value, bytes, sizeof value);
            to[i] += value;
          }
        });
      }
    }
    take_out(base);
  }
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    if (!vectors[i].sound()) return i;
  }
  return std::nullopt;
}

void SparseSum::take_out(std::uint64_t base) {
  std::size_t more = 0;
  for (const std::uint64_t word : touched_) more += static_cast<std::size_t>(std::popcount(word));
  if (indices_.size() < found_ + more) reserve(std::max(found_ + more, 2 * indices_.size()));
  std::uint32_t* const indices = indices_.data();
  float* const values = values_.data();
  for (std::size_t at = 0; at < touched_.size(); ++at) {
    for (std::uint64_t word = touched_[at]; word != 0; word &= word - 1) {
      const std::size_t place = at * 64 + static_cast<std::size_t>(std::countr_zero(word));
      indices[found_] = static_cast<std::uint32_t>(base + place);
      float* const from = block_values_.data() + place * width_;
      if (width_ == 1) {
        values[found_] = *from;
        *from = 0;
      } else {
        std::memcpy(values + found_ * width_, from, width_ * sizeof(float));
        std::memset(from, 0, width_ * sizeof(float));
      }
      ++found_;
    }
    touched_[at] = 0;
  }
}

}  // namespace gradrail
