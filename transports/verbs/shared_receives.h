// Receive requests that the queue pairs of one device take from together (the verbs setting srq=1): shared receive
// queues, made as they are needed. Owned by the transport, on its one thread; the Device must outlive it, and it all
// shares.
//
// A queue pair takes a share, as many as its peer's window may consume, and that many more are posted; what it has
// consumed it posts again. So the sum of what all peers may send is there at any time, and the queue never runs empty.
#pragma once

#include <memory>
#include <vector>

#include "transports/verbs/device.h"

namespace gradrail::verbs {

class SharedReceives {
  struct Queue {
    explicit Queue(Calls& through) : calls(through) {}
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;
    ~Queue() {
      if (srq != nullptr) calls.destroy_srq(srq);
    }
    Calls& calls;
    ibv_srq* srq = nullptr;
    std::size_t capacity = 0;
    std::size_t posted = 0;
    std::size_t promised = 0;  // to shares
  };

 public:
  // Given back when it is destroyed; by then its owner has posted again what it consumed.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)), count_(other.count_) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(queue_, other.queue_);
      std::swap(count_, other.count_);
      return *this;
    }
    ~Share() {
      if (queue_ != nullptr) queue_->promised -= count_;
    }
    [[nodiscard]] explicit operator bool() const { return queue_ != nullptr; }
    [[nodiscard]] ibv_srq* queue() const { return queue_ != nullptr ? queue_->srq : nullptr; }
    // Posts again; 0 or an errno.
    [[nodiscard]] int post(ibv_recv_wr& requests) const { return queue_->calls.post_srq_recv(queue_->srq, requests); }

   private:
    friend class SharedReceives;
    Share(Queue& queue, std::size_t count) : queue_(&queue), count_(count) {}
    Queue* queue_ = nullptr;
    std::size_t count_ = 0;
  };

  // Errors: unsupported, where the device has no shared receive queues.
  [[nodiscard]] static Result<std::unique_ptr<SharedReceives>> make(const Device& device);
  // Errors: exhausted, system.
  [[nodiscard]] Result<Share> take(std::size_t count);

 private:
  explicit SharedReceives(const Device& device) : device_(device) {}
  [[nodiscard]] Result<Queue*> queue_with(std::size_t count);

  const Device& device_;
  std::vector<std::unique_ptr<Queue>> queues_;
};

}  // namespace gradrail::verbs
