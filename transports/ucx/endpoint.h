// One end of a pipe over UCX. The protocol is in wire.h. Owned by its user, known to the transport that made it, on the
// one thread of both.
//
// Messages are numbered from 0 in each direction, and so are fragments. Fragments are given to UCX in their order, as
// far as there are flights; they may be done in any order, and are counted as done in theirs. A receive in place lands
// in a ring of two fragments, which is made for the first one.
//
// The side channel over which the two met stays open. Its end says that the peer is gone; what the peer had said to
// have sent before (wire.h) is still received. What goes wrong within UCX is reported only after a moment in which that
// end did not come, as it is the better reason.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "transports/base/fd.h"
#include "transports/transport.h"
#include "transports/ucx/flights.h"
#include "transports/ucx/link.h"

namespace gradrail::ucx {

class UcxTransport;

class UcxRegion;

class UcxEndpoint final : public Endpoint {
 public:
  // `own` and `other`: numbers of the pipe here and there. `flights` has been used for the hellos.
  UcxEndpoint(UcxTransport& owner, const Peer& peer, Link& link, std::unique_ptr<Flights> flights, std::uint64_t own,
              std::uint64_t other, Fd lifeline);
  ~UcxEndpoint() override;

  Result<void> send(Slice source) override;
  Result<void> recv(Slice destination) override;
  Result<void> recv_in_place(std::size_t bytes) override;
  std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;

  // For the transport. True if anything moved.
  bool progress();
  [[nodiscard]] bool busy() const {
    return !failure_ && (sends_done_ < sends_posted_ || recvs_done_ < recvs_posted_ || peer_closed_);
  }
  // Looks for the end of the side channel, and for failures of the link.
  void check_life();
  [[nodiscard]] int lifeline() const { return lifeline_.get(); }

 private:
  struct Send {
    const std::byte* data = nullptr;
    std::size_t size = 0;
    const UcxRegion* region = nullptr;
  };
  struct Recv {
    std::byte* data = nullptr;
    std::size_t size = 0;
    const UcxRegion* region = nullptr;
    bool in_place = false;
  };

  [[nodiscard]] Result<void> refuse(const Slice& slice) const;
  [[nodiscard]] Result<void> post(const Recv& recv);
  bool give_sends();
  bool give_recvs();
  bool count_sends();
  bool count_recvs();
  [[nodiscard]] bool fits(const Flight& flight);
  void done_with(const Flight& recv);
  [[nodiscard]] Flight* oldest();

  void break_off(Code code, std::string message);
  void read_lifeline();
  void end_if_over();

  UcxTransport& owner_;
  std::string who_;  // "rank 3 on host b"
  Link& link_;
  std::unique_ptr<Flights> flights_;
  std::uint64_t own_;
  std::uint64_t other_;
  Fd lifeline_;

  std::array<std::byte, sizeof(std::uint64_t)> goodbye_{};  // as far as it has come
  std::size_t goodbye_bytes_ = 0;
  bool peer_closed_ = false;
  Clock::time_point moved_at_;  // once the peer has closed: when something arrived last

  // Sending
  std::uint64_t sends_posted_ = 0;
  std::uint64_t sends_given_ = 0;    // to UCX, whole
  std::size_t given_bytes_ = 0;      // of message sends_given_
  std::uint64_t fragments_out_ = 0;  // given to UCX
  std::uint64_t fragments_sent_ = 0;
  std::array<Send, k_depth> sends_;

  // Receiving
  std::uint64_t recvs_posted_ = 0;
  std::uint64_t recvs_given_ = 0;
  std::size_t wanted_bytes_ = 0;    // of message recvs_given_, that UCX was asked for
  std::uint64_t fragments_in_ = 0;  // asked for
  std::uint64_t fragments_received_ = 0;
  std::size_t consumed_ = 0;  // of the oldest fragment, in place
  std::array<Recv, k_depth> recvs_;

  std::unique_ptr<Region> landing_;
  std::uint64_t landing_used_ = 0;  // positions that only grow
  std::uint64_t landing_free_ = 0;
};

}  // namespace gradrail::ucx
