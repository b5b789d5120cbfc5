// By which way an RDMA device reaches a buffer, and what speaks against each better one: a value that the transport
// that tries (transports/verbs/), the doctor who only looks, and each row of results say in the same words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "transports/memory.h"

namespace gradrail {

// From the best for memory of a GPU to the worst.
enum class MemoryPath : std::uint8_t {
  host,         // memory of the host: registered as it is
  dma_buf,      // the GPU's driver exports its memory, the kernel hands that to the device's
  peer_memory,  // a module of the GPU's vendor lets the device's driver look the address up (nvidia-peermem)
  staged,       // copied through host memory that is locked for both
  staged_slow,  // copied through host memory that is not locked for the GPU
};
[[nodiscard]] std::string_view to_string(MemoryPath path);

struct PathChoice {
  MemoryPath path = MemoryPath::host;
  struct Against {
    MemoryPath path = MemoryPath::host;  // a better one
    std::string why;
  };
  std::vector<Against> against;

  [[nodiscard]] bool staged() const { return path >= MemoryPath::staged; }
};
// "staged through pinned host memory (dma-buf: ...; nvidia-peermem: ...)"
[[nodiscard]] std::string to_text(const PathChoice& choice);

// What a transport makes of memory of a GPU, where it has a way to choose: the region can say which.
class ChosenRegion : public Region {
 public:
  using Region::Region;
  // In words; empty for memory of the host.
  [[nodiscard]] virtual std::string how() const = 0;
};

}  // namespace gradrail
