// How a pipe carries memory of a GPU that its device does not reach: by copies through host memory that both reach,
// which overlap the wire. Owned by an endpoint, on its thread. The owner sees to it that nothing it copies from or to
// ends before a copy does: destroying either object waits for its copies.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "transports/base/pages.h"
#include "transports/verbs/gpu.h"
#include "transports/verbs/queue_pair.h"

namespace gradrail::verbs {

// The sending side: a few chunks, each in turn filled by a copy from the GPU, sent in one or more writes, and free
// again once the last of them is acknowledged. While one is under way, the next are being filled.
class Outgoing {
 public:
  static constexpr std::size_t k_chunks = 4;
  // Errors: exhausted (memory, locked memory), unavailable.
  [[nodiscard]] static Result<std::unique_ptr<Outgoing>> make(Gpu& gpu,
                                                              const std::vector<std::unique_ptr<Device>>& rails,
                                                              std::size_t chunk_bytes);

  // Starts to fill the next chunk with up to its size of `source`: how much, 0 if all are taken. Errors: system.
  [[nodiscard]] Result<std::size_t> fill(std::span<const std::byte> source);
  // Sees how far copies and writes are; true if anything moved. Errors: system.
  [[nodiscard]] Result<bool> look();
  // What is left to send of the oldest chunk; empty while its copy is under way.
  [[nodiscard]] std::span<const std::byte> ready() const;
  [[nodiscard]] std::uint32_t key(std::size_t rail) const { return memory_[rail]->lkey; }
  // The first `bytes` of ready() were posted as the last write of `pair`, which must outlive this; or, where that is
  // null, the device has them already.
  void sent(std::size_t bytes, const QueuePair* pair);
  [[nodiscard]] bool busy() const { return copied_ < filled_; }

 private:
  struct Chunk {
    std::size_t bytes = 0;
    std::size_t sent = 0;
    const QueuePair* pair = nullptr;
    std::uint64_t last_write = 0;
  };
  Outgoing(Gpu& gpu, std::size_t chunk_bytes) : gpu_(gpu), chunk_bytes_(chunk_bytes) {}
  [[nodiscard]] std::byte* at(std::uint64_t chunk) const { return pages_.data() + chunk % k_chunks * chunk_bytes_; }

  Gpu& gpu_;
  std::size_t chunk_bytes_;
  Pages pages_;
  std::unique_ptr<Gpu::Pin> pin_;
  std::vector<Registered> memory_;    // one a rail
  std::unique_ptr<CopyQueue> queue_;  // goes first
  std::array<Chunk, k_chunks> chunks_;
  // Chunks, counted since the beginning: that a copy was started for, that were filled, sent, and are free again.
  std::uint64_t filled_ = 0;
  std::uint64_t copied_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t free_ = 0;
};

// The receiving side: copies from where messages land, each of some parts that adjoin.
class Incoming {
 public:
  // Errors: unavailable.
  [[nodiscard]] static Result<std::unique_ptr<Incoming>> make(Gpu& gpu, std::span<std::byte> landing);

  [[nodiscard]] bool room() const { return started_ - ended_ < CopyQueue::k_most; }
  // Errors: system.
  [[nodiscard]] Result<void> start(std::byte* to, std::span<const std::byte> from, std::size_t parts);
  // Parts of the oldest copy, once it has ended and only once; 0 if there is none. Errors: system.
  [[nodiscard]] Result<std::size_t> ended();
  [[nodiscard]] bool busy() const { return ended_ < started_; }

 private:
  Incoming(Gpu& gpu, std::span<std::byte> landing) : gpu_(gpu), pin_(gpu, landing.data(), landing.size()) {}

  Gpu& gpu_;
  Gpu::Pin pin_;
  std::unique_ptr<CopyQueue> queue_;  // goes first
  std::array<std::size_t, CopyQueue::k_most> parts_{};
  std::uint64_t started_ = 0;
  std::uint64_t ended_ = 0;
};

}  // namespace gradrail::verbs
