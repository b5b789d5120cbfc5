// Which exchange of sparse messages moves fewer bytes. Pure functions of what all ranks know.
//
// gather: everyone's message goes to everyone. split: each rank owns a part of the vector and sums what the others send
// it of that; the sums go to everyone (Renggli et al., "SparCML: high-performance sparse communication for machine
// learning" (SC 2019), section 5). How much the ranks' indices overlap is not known beforehand; it is taken that they
// are drawn independently, which is the least that gradients of one model have in common.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradrail {

enum class SparseWay : std::uint8_t { gather, split };

struct SparseLoad {
  int ranks = 1;            // that have a message
  std::uint64_t count = 0;  // values of the vector
  std::size_t pairs = 0;    // of each rank's message
  std::size_t width = 1;
};

// Bytes that a rank receives, about.
[[nodiscard]] double received_bytes(SparseWay way, const SparseLoad& load);
// The one with fewer; gather where that is a tie, and below 4 KiB a message, as it has one round instead of two.
[[nodiscard]] SparseWay cheaper_way(const SparseLoad& load);

}  // namespace gradrail
