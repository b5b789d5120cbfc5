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
// From prepared to ready for what comes, and on to sending: attributes and what they name.
struct PairStates {
  ibv_qp_attr ready{};
  int ready_mask = 0;
  ibv_qp_attr sending{};
  int sending_mask = 0;
};
// Errors: bad_usage (link layers or path MTU that do not fit), malformed, system.
[[nodiscard]] Result<void> connect_pair(const Device& device, ibv_qp* pair, const PairStart& start,
                                        const PairIntroduction& peer);

// The same by states that rdma_cm made for this peer; the device's settings go before its. Errors: the same.
[[nodiscard]] Result<void> connect_pair(const Device& device, ibv_qp* pair, const PairStates& states,
                                        const PairIntroduction& peer);

// What belongs to the device is filled in.
[[nodiscard]] PairIntroduction introduce_device(const Device& device);
[[nodiscard]] Result<std::uint32_t> new_packet_number();

}  // namespace gradrail::verbs
