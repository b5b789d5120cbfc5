// The cost of a schedule from link parameters: a discrete simulation, no clocks. Used for `auto` where no decision
// table exists, for "model against measurement", and for ranking candidates before measuring them.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/schedule/program.h"

namespace gradrail {

// The Hockney model with a term for reducing: a message of m bytes occupies its link for alpha + m * beta, and reducing
// m bytes takes m * gamma of the receiver's time. Seconds and seconds per byte.
struct Link {
  double alpha = 1e-6;
  double beta = 1e-10;
};

struct CostModel {
  Link inside;                  // between ranks of one host
  Link between;                 // between hosts; each host's port is shared by its ranks
  double gamma = 1e-10;         // reduce, per byte
  double step = 50e-9;          // overhead a step
  double oversubscription = 1;  // ranks a core, at least 1: work and messages inside a host slow down by it
  int credits = 4;              // messages that a pipe takes before their receives have started; 0: all wait for them
  bool shared_medium = true;    // ranks of a host share one memory system: bytes inside a host queue behind each other
};

struct Cost {
  double seconds = 0;            // when the last rank ends
  std::uint64_t bytes_sent = 0;  // by all ranks
  std::uint64_t bytes_between_hosts = 0;
  std::uint64_t messages = 0;
};

// What the model assumes, beside the above:
//  - A message moves once its send has started, in the order of its pipe, at most `credits` ahead of the receives that
//    have started. The send is done when it has arrived; the receive, when both have. alpha is spent on the pipe (two
//    ranks, one lane) alone; the bytes then occupy all that they share at once: the link of the two ranks, and inside a
//    host its memory if shared_medium, between hosts the sending host's port and the receiving host's (full duplex).
//  - A rank is one thread: the overhead of each step, reductions and copies are done one at a time. A copy of m bytes
//    costs m * inside.beta, and queues for the host's memory if shared_medium.
//  - Whoever asks first is served first, lower ranks first at the start. Where several queue for one thing, more bytes
//    may make a plan slightly faster.
//  - Chunks are cut at single bytes; empty ones cost nothing, as at run time.
//
// `total_bytes` is the size of the collective's data (see program.h). The schedule must be one that verify() accepts.
[[nodiscard]] Cost simulate(const Schedule& schedule, std::uint64_t total_bytes, const CostModel& model);

}  // namespace gradrail
