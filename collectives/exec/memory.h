// Memory that collectives work on: one buffer, registered with every transport of a communicator. Made by
// Communicator::allocate (memory in the form the transports move best) or Communicator::adopt (memory the caller owns
// and keeps alive). Must not outlive its communicator, nor die while an operation uses it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "transports/memory.h"

namespace gradrail {

// A communicator has one transport inside a host and one between hosts; either may be absent.
enum class Reach : std::uint8_t { inside, between };
inline constexpr std::size_t k_reaches = 2;

class Memory {
 public:
  Memory() = default;
  Memory(Buffer buffer, std::array<std::unique_ptr<Region>, k_reaches> regions)
      : buffer_(buffer), regions_(std::move(regions)) {}

  [[nodiscard]] std::byte* data() const { return buffer_.data; }
  [[nodiscard]] std::size_t size() const { return buffer_.size; }
  [[nodiscard]] const Region* region(Reach reach) const { return regions_[static_cast<std::size_t>(reach)].get(); }

 private:
  Buffer buffer_;
  std::array<std::unique_ptr<Region>, k_reaches> regions_;
};

// Part of a Memory: from `offset` bytes on, as long as the operation needs.
struct MemoryView {
  const Memory* memory = nullptr;
  std::size_t offset = 0;
  [[nodiscard]] std::byte* data() const { return memory == nullptr ? nullptr : memory->data() + offset; }
};

}  // namespace gradrail
