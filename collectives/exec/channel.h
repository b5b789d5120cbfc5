// An endpoint with the counts of what was posted on it, which turn the endpoint's completion counters into answers
// about single operations. Owned by the communicator; used by one execution at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "collectives/exec/memory.h"
#include "transports/transport.h"

namespace gradrail {

struct Channel {
  std::unique_ptr<Endpoint> endpoint;
  Reach reach = Reach::inside;
  std::size_t depth = 0;  // outstanding posts the endpoint takes, in each direction
  bool writes_in_place = false;
  bool copies_out = false;
  std::size_t attached_from = SIZE_MAX;  // Endpoint::attached_from()
  std::uint64_t sends = 0;               // posted
  std::uint64_t recvs = 0;               // posted
  std::uint64_t streams = 0;             // in-place sends posted
  std::uint64_t streams_done = 0;        // in-place sends wholly written
  std::uint64_t staged = 0;              // bytes sent that one side copied from or to plain memory (binding.h)

  [[nodiscard]] bool idle() const { return sends == endpoint->sends_done() && recvs == endpoint->recvs_done(); }
  [[nodiscard]] bool can_send() const { return sends - endpoint->sends_done() < depth; }
  [[nodiscard]] bool can_recv() const { return recvs - endpoint->recvs_done() < depth; }
};

}  // namespace gradrail
