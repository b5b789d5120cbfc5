// Memory that messages are measured on, as a program has it: ordinary memory of the host, huge pages that the system
// has reserved, or memory of a GPU, where only copies get at the bytes. Owned; on one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "transports/cuda_driver.h"
#include "transports/memory.h"
#include "transports/transport.h"

namespace gradrail {

enum class MemoryKind : std::uint8_t { host, huge, cuda };
[[nodiscard]] std::string_view to_string(MemoryKind kind);  // "huge"

struct MemoryWish {
  MemoryKind kind = MemoryKind::host;
  int gpu = -1;  // its CUDA ordinal; -1: the ranks of a host take its GPUs in turn
};
// "host", "huge", "cuda" or "cuda:1". Errors: bad_usage.
[[nodiscard]] Result<MemoryWish> parse_memory(const std::string& text);
[[nodiscard]] std::string to_text(const MemoryWish& wish);

// The same with a GPU named, for the `nth` rank of a host, if it is to be one's. Errors: unavailable (no driver, no
// such GPU).
[[nodiscard]] Result<MemoryWish> with_gpu(MemoryWish wish, std::size_t nth, CudaDriver& driver = cuda_driver());
// The transport; or around it, where it does not move such memory by itself, one that copies (transports/staged/).
[[nodiscard]] Result<std::unique_ptr<Transport>> reaching(std::unique_ptr<Transport> transport, const MemoryWish& wish,
                                                          CudaDriver& driver = cuda_driver());

class OwnedMemory {
 public:
  OwnedMemory() = default;
  // Errors: exhausted; unavailable (no driver, no such GPU).
  [[nodiscard]] static Result<OwnedMemory> make(const MemoryWish& wish, std::size_t bytes,
                                                CudaDriver& driver = cuda_driver());

  [[nodiscard]] const Buffer& buffer() const { return buffer_; }
  // Bytes to the beginning, and from there. Errors: system.
  [[nodiscard]] Result<void> put(std::span<const std::byte> bytes);
  [[nodiscard]] Result<void> get(std::span<std::byte> bytes);

 private:
  [[nodiscard]] Result<void> copy(void* to, const void* from, std::size_t bytes);

  std::unique_ptr<std::byte, std::function<void(std::byte*)>> data_;
  Buffer buffer_;
  CudaDriver* driver_ = nullptr;
  std::unique_ptr<CopyQueue> copies_;  // of a GPU; go first
};

}  // namespace gradrail
