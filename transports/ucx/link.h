// UCX's endpoint to one peer, shared by this rank's pipes to it (its lanes), and owned by the transport; or one for
// bare operations, owned by them. One thread.
//
// Between hosts, and wherever memory is not shared, it is made with UCX's handling of peer errors: what fails is told
// here, and not by ending the process. UCX's shared memory (as of 1.13) cannot do that, and would not be used at all;
// on one host the link is made without, and the death of the peer is noticed by the side channel alone.
#pragma once

#include <memory>
#include <string>

#include "transports/base/clock.h"
#include "transports/ucx/library.h"
#include "transports/ucx/wire.h"

namespace gradrail::ucx {

// How long the side channel may take to end after UCX noticed that the peer has gone.
inline constexpr Seconds k_better_reason{0.3};

class Link {
 public:
  // `plain`: without handling of errors, as ucx_perftest's. Errors: unavailable (no way that both have), system.
  [[nodiscard]] static Result<std::unique_ptr<Link>> open(Worker& worker, const Introduction& own,
                                                          const Introduction& peer, bool plain = false);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link();

  [[nodiscard]] ucp_ep_h id() const { return endpoint_; }
  [[nodiscard]] bool leads_to(const Introduction& peer) const { return peer.address == address_; }
  // What it goes over: "sysv/memory + cma/memory"; empty if UCX does not say.
  [[nodiscard]] std::string lanes() const;

  // Set once it failed.
  [[nodiscard]] bool failed() const { return failure_ != UCS_OK; }
  [[nodiscard]] ucs_status_t failure() const { return failure_; }
  [[nodiscard]] Clock::time_point failed_at() const { return failed_at_; }
  void fail_with(ucs_status_t status);
  // The peer will not answer any more, or what is under way is not wanted: it is closed as it is.
  void give_up() { given_up_ = true; }
  void take_up() { given_up_ = false; }

  // Before the end: what was sent, and answers to what was received, may be done here before they have left. Begins to
  // push them out; flushed() once they are, or cannot be.
  void begin_flush();
  [[nodiscard]] bool flushed() const { return flush_ == nullptr || ucp_request_check_status(flush_) != UCS_INPROGRESS; }

 private:
  Link(Worker& worker, Bytes address, bool handles_errors)
      : worker_(worker), address_(std::move(address)), handles_errors_(handles_errors) {}

  Worker& worker_;
  Bytes address_;
  bool handles_errors_;
  ucp_ep_h endpoint_ = nullptr;
  bool given_up_ = false;
  void* flush_ = nullptr;
  ucs_status_t failure_ = UCS_OK;
  Clock::time_point failed_at_;
};

// What tells apart machines, and containers on one, that share no memory. Empty if the kernel does not say.
[[nodiscard]] std::string host_identity();

}  // namespace gradrail::ucx
