#include "collectives/compress/regions.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "collectives/compress/arithmetic.h"

namespace gradrail {

void even_bounds(std::uint64_t places, std::span<std::uint32_t> bounds) {
  const std::uint64_t parts = bounds.size() - 1;
  for (std::uint64_t i = 0; i <= parts; ++i) bounds[i] = static_cast<std::uint32_t>(places * i / parts);
}

void propose_bounds(std::span<const std::uint32_t> indices, std::uint64_t places, std::span<std::uint32_t> bounds) {
  const std::uint64_t parts = bounds.size() - 1;
  if (indices.size() < parts) return even_bounds(places, bounds);  // too few to say anything
  bounds.front() = 0;
  for (std::uint64_t i = 1; i < parts; ++i) bounds[i] = indices[indices.size() * i / parts];
  bounds.back() = static_cast<std::uint32_t>(places);
}

bool agree_bounds(std::span<const std::uint32_t> proposals, std::uint64_t places, std::span<std::uint32_t> bounds) {
  const std::size_t length = bounds.size(), ranks = proposals.size() / length;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const auto one = proposals.subspan(rank * length, length);
    if (one.front() != 0 || one.back() != places || !std::is_sorted(one.begin(), one.end())) return false;
  }
  for (std::size_t i = 0; i < length; ++i) {
    std::uint64_t sum = 0;
    for (std::size_t rank = 0; rank < ranks; ++rank) sum += proposals[rank * length + i];
    bounds[i] = static_cast<std::uint32_t>(sum / ranks);
  }
  return true;
}

std::size_t tally_of(std::span<const float> values, std::span<std::uint32_t> sizes) {
  const std::size_t taken = std::min(values.size(), std::min(sizes.size(), k_tally_most));
  for (std::size_t i = 0; i < taken; ++i) sizes[i] = arithmetic::size_bits(values[values.size() * i / taken]);
  return taken;
}

std::uint32_t threshold_of(std::span<const Tally> tallies, std::vector<Weighed>& scratch) {
  scratch.clear();
  std::uint64_t all = 0, wanted = 0;
  for (const Tally& tally : tallies) {
    all += tally.count;
    wanted = std::max<std::uint64_t>(wanted, tally.wanted);
    for (const std::uint32_t size : tally.sizes) {
      scratch.push_back({size, static_cast<double>(tally.count) / static_cast<double>(tally.sizes.size())});
    }
  }
  if (all <= wanted || scratch.empty()) return 0;
  std::sort(scratch.begin(), scratch.end(), [](const Weighed& a, const Weighed& b) {
    return a.size != b.size ? a.size > b.size : a.weight > b.weight;
  });
  double above = 0;
  for (const Weighed& one : scratch) {
    above += one.weight;
    if (above >= static_cast<double>(wanted)) return one.size;
  }
  return 0;
}

bool is_uneven(std::span<const std::uint32_t> lengths) {
  const std::uint64_t total = std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0});
  const std::uint64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  return lengths.size() > 1 && longest * lengths.size() > 2 * total;
}

}  // namespace gradrail
