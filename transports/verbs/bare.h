// transports/bare.h over queue pairs of their own, which share one completion queue. The peer is met like a pipe's
// (transports/introductions.h), once for each queue pair. What the two say is the operation, its largest size, how many
// reads the device answers at once, and an Introduction whose landing area is the buffer that the peer's operations
// reach.
//
// A request's wr_id is its number on its queue pair, with the queue pair above k_number_bits; a receive's has
// k_receive_bit besides. Receives are many, all of the one buffer, and posted again in batches; a sender that finds
// none is told to try again by the device, for ever, and the caller's deadline ends that.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "transports/bare.h"
#include "transports/base/pages.h"
#include "transports/transport.h"
#include "transports/verbs/device.h"
#include "transports/verbs/wire.h"

namespace gradrail::verbs {

class VerbsBare final : public Bare {
 public:
  // The buffers, the completion queue and the queue pairs, not yet connected. Errors: bad_usage (what the device
  // cannot), exhausted, system.
  [[nodiscard]] static Result<std::unique_ptr<VerbsBare>> make(Device& device, const Peer& peer,
                                                               const BareOptions& options);
  ~VerbsBare() override;

  // Of the `pair`-th queue pair, to be said to its peer; then what that said. Errors: refused, bad_usage, malformed,
  // system.
  [[nodiscard]] Bytes introduce(std::size_t pair, int rank) const;
  [[nodiscard]] Result<void> connect(std::size_t pair, std::span<const std::byte> introduction);

  Result<void> post(std::size_t pair, std::size_t bytes, bool last) override;
  Result<void> poll() override;

 private:
  static constexpr int k_number_bits = 48;
  static constexpr std::uint64_t k_receive_bit = std::uint64_t(1) << 63;

  struct One {
    ibv_qp* pair = nullptr;
    std::uint32_t packet_number = 0;
    std::uint64_t asked = 0;  // the last request that a completion was asked for
    std::size_t to_repost = 0;
    ibv_sge piece{};
    ibv_send_wr request{};
    ibv_sge landing{};
    std::vector<ibv_recv_wr> receives;  // one batch
  };

  VerbsBare(Device& device, const Peer& peer, const BareOptions& options);
  [[nodiscard]] Result<void> create();
  [[nodiscard]] Result<void> create_pair(std::size_t pair);
  [[nodiscard]] Result<void> repost(One& one);
  [[nodiscard]] tl::unexpected<Error> broke(const ibv_wc& completion);
  [[nodiscard]] int reads_answered() const;

  Device& device_;
  Calls& calls_;
  BareOptions options_;
  std::size_t receives_ = 0;  // posted on each queue pair
  Pages pages_;
  Registered memory_;
  ibv_cq* completions_ = nullptr;
  std::vector<One> ones_;
  std::array<ibv_wc, 16> results_{};
};

}  // namespace gradrail::verbs
