// What every reliable queue pair goes through before it moves anything: made; prepared, it may post receives;
// connected, it reaches the one that the peer introduced. Owns nothing; on the thread of the pair's owner.
#pragma once

#include "transports/verbs/device.h"
#include "transports/verbs/wire.h"

namespace gradrail::verbs {

// Makes one as `wish` says, but that it takes in line what the device can up to options().inline_bytes; what it came to
// stands in wish.cap then. Errors: exhausted, system.
[[nodiscard]] Result<ibv_qp*> make_pair(const Device& device, ibv_qp_init_attr& wish);

// Errors: system.
[[nodiscard]] Result<void> prepare_pair(const Device& device, ibv_qp* pair, int access);

struct PairStart {
  std::uint32_t packet_number = 0;
  int reads = 1;      // RDMA reads under way at once, each way
  int rnr_retry = 6;  // so often a message is sent again that met no receive; 7 is for ever
};
// Errors: bad_usage (link layers that differ), malformed, system.
[[nodiscard]] Result<void> connect_pair(const Device& device, ibv_qp* pair, const PairStart& start,
                                        const Introduction& peer);

// Fills in what belongs to the device.
void introduce_device(const Device& device, Introduction& self);
[[nodiscard]] Result<std::uint32_t> new_packet_number();

}  // namespace gradrail::verbs
