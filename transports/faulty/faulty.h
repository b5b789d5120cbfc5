// A transport that misbehaves on purpose, around any other, for tests: it cuts, delays, truncates or damages at the
// n-th operation of a chosen endpoint, as a script says. Operations are counted per endpoint from 1: each send, recv,
// recv_in_place and send_in_place that is posted is one. Everything else goes through to the inner transport, whose
// regions it shares: a slice of a region made by a FaultyTransport is passed on as one of the inner transport's.
//
// The decorator owns the inner transport. It belongs to one thread, like any transport, and must outlive its endpoints
// and regions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "transports/base/clock.h"
#include "transports/transport.h"

namespace gradrail {

struct Fault {
  enum class Kind : std::uint8_t {
    cut,       // the connection ends before the operation: this side fails, and the peer finds it gone
    delay,     // the operation, and all after it on this endpoint, are held back for `delay`
    truncate,  // the operation is posted with `bytes` fewer than asked for (not below zero): the receiver sees the
               // difference
    damage,    // the first of the bytes that are sent is another one than was asked for; of send() only
  };
  Kind kind = Kind::cut;
  int peer = 0;
  int lane = 0;
  std::uint64_t operation = 1;  // which of the endpoint's operations, from 1
  Seconds delay{0};
  std::size_t bytes = 1;
};

using FaultScript = std::vector<Fault>;

// Wraps `inner`. More than one fault may name one endpoint.
[[nodiscard]] std::unique_ptr<Transport> make_faulty(std::unique_ptr<Transport> inner, FaultScript script);

}  // namespace gradrail
