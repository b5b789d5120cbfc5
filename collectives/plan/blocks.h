// How planners cut a window: into n blocks, a block over lanes, a lane's part into pieces; and the runs of neighbouring
// blocks that travel in one message. Values only; every rank computes the same cuts, so both ends of a message agree.
//
// Block b of a lane is contiguous; a run of several blocks is contiguous only when the window has one lane. Planners
// that may lay out their blocks as they like (broadcast, reduce) give each lane a window of its own and cut that with
// one lane.
#pragma once

#include <algorithm>
#include <cstdint>

#include "collectives/schedule/builder.h"
#include "collectives/schedule/program.h"

namespace gradrail {

// i modulo n in 0..n-1, for i >= -n.
[[nodiscard]] inline int wrap(int i, int n) { return (i + n) % n; }

class Blocks {
 public:
  // window.count must be a multiple of n * lanes.
  Blocks(Window window, int n, int lanes) : window_(window), n_(n), lanes_(lanes) {}

  [[nodiscard]] int size() const { return n_; }
  // Whether neighbouring blocks of a lane can travel in one message.
  [[nodiscard]] bool contiguous() const { return lanes_ == 1; }

  // What `lane` has of block `block`.
  [[nodiscard]] Window part(int block, int lane) const {
    return window_.part(static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(n_))
        .part(static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(lanes_));
  }
  // The piece'th of `pieces` equal parts of it.
  [[nodiscard]] Window part(int block, int lane, int piece, int pieces) const {
    return part(block, lane).part(static_cast<std::uint32_t>(piece), static_cast<std::uint32_t>(pieces));
  }

  // Visits what `lane` has of the blocks first, first+1, ... (count of them, modulo n) as few windows as possible: one,
  // two where the run wraps, one a block where lanes keep blocks apart. The same order on every rank.
  template <class Visit>
  void for_each_run(int first, int count, int lane, Visit visit) const {
    while (count > 0) {
      const int length = contiguous() ? std::min(count, n_ - first) : 1;
      const Window head = part(first, lane);
      visit(Window{head.first, head.count * static_cast<std::uint32_t>(length)});
      first = (first + length) % n_;
      count -= length;
    }
  }

 private:
  Window window_;
  int n_;
  int lanes_;
};

}  // namespace gradrail
