#include "collectives/compress/exchange_choice.h"

#include <algorithm>
#include <cmath>

namespace gradrail {
namespace {

constexpr double k_small_bytes = 4096;

// Of pairs at so many places: their values, and indices in the smallest encoding (a byte or two each, or a bit a
// place).
double message_bytes(double pairs, double places, double width) {
  return pairs * 4 * width + std::min(places / 8, pairs * (places > 128 * pairs ? 2 : 1));
}

}  // namespace

double received_bytes(SparseWay way, const SparseLoad& load) {
  const auto ranks = static_cast<double>(load.ranks), width = static_cast<double>(load.width);
  const double places = std::max(1.0, std::ceil(static_cast<double>(load.count) / width));
  const double pairs = std::min(static_cast<double>(load.pairs), places);
  const double others = (ranks - 1) / ranks;
  const double message = message_bytes(pairs, places, width);
  if (way == SparseWay::gather) return (ranks - 1) * message;
  const double all = places * (1 - std::pow(1 - pairs / places, ranks));
  const double sums = std::min(message_bytes(all, places, width), 4 * static_cast<double>(load.count));
  return others * (message + sums);
}

SparseWay cheaper_way(const SparseLoad& load) {
  const double gather = received_bytes(SparseWay::gather, load);
  if (gather <= k_small_bytes * (load.ranks - 1)) return SparseWay::gather;
  return received_bytes(SparseWay::split, load) < gather ? SparseWay::split : SparseWay::gather;
}

}  // namespace gradrail
