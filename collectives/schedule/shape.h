// What a plan depends on, and nothing else: no sizes in bytes, no addresses, no transport. Two calls of one shape share
// one plan, whatever their counts.
#pragma once

#include <cstdint>
#include <string>

#include "collectives/types.h"

namespace gradrail {

struct Shape {
  Collective collective = Collective::allreduce;
  int ranks = 1;
  int ranks_per_host = 1;  // hosts are blocks of consecutive ranks; ranks is a multiple of it
  int root = 0;            // for collectives that have one
  bool in_place = false;   // input and output are one buffer (blocked collectives: one block of the other)
  int lanes = 1;           // independent pipes the data is divided over, 1..64
  int pieces = 1;          // parts a lane's block is pipelined in, 1..1024
  std::string inner;       // hierarchical only: algorithm inside a host; empty for its default
  std::string outer;       // hierarchical only: algorithm between hosts; empty for its default

  [[nodiscard]] int hosts() const { return ranks / ranks_per_host; }
  friend bool operator==(const Shape&, const Shape&) = default;
};

}  // namespace gradrail
