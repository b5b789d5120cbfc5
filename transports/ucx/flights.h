// Fragments that UCX was given and that are not done. UCX keeps pointers into this until then, so it lies on the heap,
// and where an endpoint goes first, its transport keeps it until the worker has gone.
#pragma once

#include <ucp/api/ucp.h>

#include <array>
#include <cstdint>

#include "transports/ucx/wire.h"

namespace gradrail::ucx {

struct Flights;

struct Flight {
  Flights* of = nullptr;
  void* request = nullptr;  // UCX's, while it is under way
  ucs_status_t status = UCS_OK;
  std::uint64_t tag = 0;  // a receive's: as sent
  std::size_t size = 0;
  std::size_t landing = 0;  // a receive's in place: where in the landing ring, and where the ring goes on
  std::uint64_t landing_end = 0;
  bool done = false;
  bool in_place = false;
  bool first = false;  // of its message
  bool last = false;
  bool looked_at = false;
};

struct Flights {
  std::array<Flight, k_flights> sends, recvs;
  Flight hello_send, hello_recv;
  std::uint64_t arrived = 0;  // receives done, hellos apart
  unsigned under_way = 0;

  Flights() {
    for (auto& one : sends) one.of = this;
    for (auto& one : recvs) one.of = this;
    hello_send.of = hello_recv.of = this;
  }
  Flights(const Flights&) = delete;
  Flights& operator=(const Flights&) = delete;

  // Around the call that gives it to UCX: sets what UCX calls, and takes what it returned.
  void begin_send(Flight& flight, ucp_request_param_t& how);
  void begin_recv(Flight& flight, ucp_request_param_t& how);
  void began(Flight& flight, void* request);
  // Asks UCX to end what has not begun to arrive.
  void cancel_recvs(ucp_worker_h worker);
};

}  // namespace gradrail::ucx
