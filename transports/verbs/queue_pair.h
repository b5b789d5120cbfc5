// One reliable queue pair with its completion queue, from birth to death. Owned by an endpoint, on its thread; uses a
// Device, which must outlive it, and where receives are shared, the device's SharedReceives, which must too. Counts
// send queue entries: a request has a number, from 1, and all numbers up to acked() are done with. Completions are
// asked for where the caller wants one, and often enough that the queue never fills with silent requests.
#pragma once

#include <memory>

#include "transports/verbs/device.h"
#include "transports/verbs/pair_states.h"
#include "transports/verbs/shared_receives.h"
#include "transports/verbs/wire.h"

namespace gradrail::verbs {

class QueuePair {
 public:
  static constexpr std::size_t k_sends = 128;  // entries of the send queue

  // Ready to be introduced, with so many receives posted (a multiple of k_repost_batch): its own, or from `shared`
  // where that is not null. `rail`: the device's number among the transport's. Errors: exhausted, unsupported, system.
  [[nodiscard]] static Result<std::unique_ptr<QueuePair>> make(Device& device, std::size_t rail, std::size_t receives,
                                                               SharedReceives* shared);
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;
  ~QueuePair();

  [[nodiscard]] PairIntroduction introduce() const;
  // Ready to send and receive. Errors: bad_usage (link layers or MTU that do not fit), system.
  [[nodiscard]] Result<void> connect(const PairIntroduction& peer);
  // The same by states that rdma_cm made.
  [[nodiscard]] Result<void> connect(const PairIntroduction& peer, const PairStates& states) {
    return connect_pair(device_, pair_, states, peer);
  }
  // Nothing moves any more, and the peer cannot write here.
  void stop();

  [[nodiscard]] std::size_t rail() const { return rail_; }
  [[nodiscard]] std::uint32_t number() const { return pair_->qp_num; }
  [[nodiscard]] bool shares_receives() const { return bool(share_); }
  [[nodiscard]] std::size_t inline_bytes() const { return inline_bytes_; }
  [[nodiscard]] std::size_t largest_write() const { return largest_write_; }
  [[nodiscard]] const ibv_qp* id() const { return pair_; }
  [[nodiscard]] Device& device() const { return device_; }

  struct Write {
    const void* from = nullptr;
    std::size_t bytes = 0;
    std::uint32_t local_key = 0;  // unless in line
    std::uint64_t to = 0;
    std::uint32_t remote_key = 0;
    std::optional<std::uint32_t> immediate = std::nullopt;
    bool complete = false;     // ask for a completion
    bool out_of_line = false;  // whatever its size, as the CPU cannot read it
  };
  // Entries of the send queue that are free.
  [[nodiscard]] std::size_t room() const { return k_sends - static_cast<std::size_t>(posted_ - acked_); }
  // Posts one write; there must be room. Up to inline_bytes() go in line. Returns 0 or an errno.
  [[nodiscard]] int write(const Write& write);
  [[nodiscard]] std::uint64_t posted() const { return posted_; }
  [[nodiscard]] std::uint64_t acked() const { return acked_; }

  // The device's channel is to say when there is something new to poll.
  void ask_notification() { static_cast<void>(calls_.ask_notification(completions_)); }
  // Calls `arrived(immediate)` for each that has; stops at the first failure, which it returns. True in `moved` if
  // there was anything.
  template <class Arrived>
  [[nodiscard]] const ibv_wc* poll(const Arrived& arrived, bool& moved) {
    for (;;) {
      const int count = calls_.poll_cq(completions_, results_);
      if (count <= 0) return count < 0 ? &broken() : nullptr;
      moved = true;
      for (int i = 0; i < count; ++i) {
        const ibv_wc& one = results_[static_cast<std::size_t>(i)];
        if (one.status != IBV_WC_SUCCESS) {
          // The rest is of no use, but for what it took of shared receives.
          for (int left = i; left < count; ++left) to_repost_ += results_[static_cast<std::size_t>(left)].wr_id == 0;
          return &one;
        }
        if (one.wr_id != 0) {
          acked_ = one.wr_id;
          continue;
        }
        if (++to_repost_ == k_repost_batch && repost() != 0) return &broken();
        arrived(one.imm_data);
      }
      if (static_cast<std::size_t>(count) < results_.size()) return nullptr;
    }
  }

 private:
  QueuePair(Device& device, std::size_t rail) : device_(device), calls_(device.calls()), rail_(rail) {}
  [[nodiscard]] Result<void> create(std::size_t receives, SharedReceives* shared);
  [[nodiscard]] Result<void> create_pair(std::size_t receives);
  [[nodiscard]] int repost();
  void return_receives();
  const ibv_wc& broken();

  Device& device_;
  Calls& calls_;
  std::size_t rail_;
  SharedReceives::Share share_;
  ibv_cq* completions_ = nullptr;
  ibv_qp* pair_ = nullptr;
  std::size_t inline_bytes_ = 0;
  std::size_t largest_write_ = 0;
  std::uint32_t packet_number_ = 0;

  std::uint64_t posted_ = 0;
  std::uint64_t acked_ = 0;
  std::uint64_t asked_ = 0;  // the last one that a completion was asked for
  std::size_t to_repost_ = 0;
  std::array<ibv_recv_wr, k_repost_batch> receives_{};
  std::array<ibv_wc, 16> results_{};
};

}  // namespace gradrail::verbs
