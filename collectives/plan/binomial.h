// The binomial tree on 0..n-1 with root 0, for any n: the parent of v is v without its lowest set bit, its children are
// v+1, v+2, v+4, ... below that bit, and its subtree is the run v, v+1, ... Planners with another root renumber the
// members first (`rooted`). Pure values.
#pragma once

#include <algorithm>
#include <bit>

#include "collectives/plan/blocks.h"
#include "collectives/schedule/builder.h"

namespace gradrail {

struct BinomialTree {
  int n = 1;

  [[nodiscard]] int parent(int v) const { return v & (v - 1); }
  // Members of the subtree v..v+subtree(v)-1, v included.
  [[nodiscard]] int subtree(int v) const { return v == 0 ? n : std::min(v & -v, n - v); }
  // How many children v has; the k-th is child(v, k), and the later ones have the larger subtrees.
  [[nodiscard]] int children(int v) const {
    return static_cast<int>(std::bit_width(static_cast<unsigned>(subtree(v) - 1)));
  }
  [[nodiscard]] int child(int v, int k) const { return v + (1 << k); }
};

// The same members counted from `root`: member 0 is the root, member 1 the one after it, and so on around.
[[nodiscard]] inline Group rooted(const Group& group, int root) {
  const int n = group.size();
  Group turned;
  turned.ranks.reserve(group.ranks.size());
  for (int v = 0; v < n; ++v) turned.ranks.push_back(group.ranks[static_cast<std::size_t>((v + root) % n)]);
  turned.me = wrap(group.me - root, n);
  return turned;
}

}  // namespace gradrail
