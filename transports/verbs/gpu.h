// One GPU as a transport uses it: how a rail's device reaches its memory, tried from the best way down, and why not
// better. Owned by the transport, on its thread; outlives what was registered of it.
#pragma once

#include <memory>
#include <string>

#include "transports/base/lifetimes.h"
#include "transports/cuda_driver.h"
#include "transports/memory.h"
#include "transports/memory_path.h"
#include "transports/verbs/device.h"

namespace gradrail::verbs {

// A buffer as one rail reaches it.
struct Reached {
  Registered memory;  // none where it is staged
  PathChoice how;
};

class Gpu {
 public:
  // Errors: unavailable (no driver, no such GPU).
  [[nodiscard]] static Result<std::unique_ptr<Gpu>> open(CudaDriver& driver, int ordinal);

  [[nodiscard]] CudaDriver& driver() const { return driver_; }
  [[nodiscard]] int ordinal() const { return ordinal_; }

  // Registers the range with the device by dma-buf, else by nvidia-peermem; else it is to be staged. The option `gpu`
  // leaves one way only. Errors: bad_usage (not memory of this GPU), unavailable (the one way is none).
  [[nodiscard]] Result<Reached> reach(const Device& device, AddressRange range);

  // Locks host memory for copies, as far as that can be done; undone with the object.
  class Pin {
   public:
    Pin(Gpu& gpu, std::byte* data, std::size_t bytes);
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;
    ~Pin();

   private:
    Gpu& gpu_;
    std::byte* data_;  // null if that failed
  };
  // Why memory is not locked; empty where it is.
  [[nodiscard]] const std::string& not_pinned() const { return not_pinned_; }

  // To be called between the arrival of bytes that a device wrote here and telling of it.
  [[nodiscard]] int flush() { return needs_flush_ ? driver_.flush(ordinal_) : 0; }

 private:
  Gpu(CudaDriver& driver, int ordinal) : driver_(driver), ordinal_(ordinal) {}
  [[nodiscard]] ibv_mr* by_dma_buf(const Device& device, AddressRange range, std::string& why);
  [[nodiscard]] ibv_mr* by_peer_memory(const Device& device, AddressRange range, std::string& why);

  CudaDriver& driver_;
  int ordinal_;
  bool needs_flush_ = false;
  std::string not_pinned_;
};

}  // namespace gradrail::verbs
