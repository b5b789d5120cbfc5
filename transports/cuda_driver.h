// The few calls of the CUDA driver that a transport makes to reach the memory of a GPU, one virtual function each, so
// that what it decides can be tested without a GPU: tests put a fake in their place. No decisions; an int is 0 or the
// driver's error, which words() explains. The driver's library is loaded when it is first asked for, so nothing of CUDA
// is needed to build, and nothing but that library to run. Any thread; a CopyQueue belongs to one.
//
// GPUs are named by their CUDA ordinal, and used in their primary contexts, where the runtime and the frameworks are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "transports/base/result.h"

namespace gradrail {

// Copies between host memory and one GPU's, which end in the order in which they were started.
class CopyQueue {
 public:
  static constexpr std::size_t k_most = 8;  // under way at once
  CopyQueue() = default;
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;
  // Waits for what was started.
  virtual ~CopyQueue() = default;
  // Starts a copy, either way, and does not wait for it.
  [[nodiscard]] virtual int start(void* to, const void* from, std::size_t bytes) = 0;
  // How many of all that were started have ended.
  [[nodiscard]] virtual int poll(std::uint64_t& ended) = 0;
};

class CudaDriver {
 public:
  virtual ~CudaDriver() = default;

  // Why there is no driver to call; empty if there is one. Only then may anything else be called.
  [[nodiscard]] virtual std::string missing() = 0;
  [[nodiscard]] virtual std::string words(int error) = 0;
  [[nodiscard]] virtual int count(int& gpus) = 0;

  // Memory of this GPU's own. Errors leave `data` as it is.
  [[nodiscard]] virtual int allocate(int gpu, std::size_t bytes, std::byte*& data) = 0;
  virtual void release(int gpu, std::byte* data) = 0;

  // Whether the address is this GPU's own memory: neither managed memory, which moves, nor the host's, nor another's.
  [[nodiscard]] virtual int owns(int gpu, const std::byte* data, bool& owns) = 0;

  // Whether memory of this GPU can be exported as dma-buf.
  [[nodiscard]] virtual int exports_dma_buf(int gpu, bool& exports) = 0;
  // Of whole pages of the host's size. Who calls closes the descriptor.
  [[nodiscard]] virtual int export_dma_buf(int gpu, const std::byte* begin, std::size_t bytes, int& fd) = 0;
  // Copies that the program makes with calls that return early are to be over when they return: what an RDMA device
  // reads must be there.
  [[nodiscard]] virtual int order_copies(int gpu, const std::byte* data) = 0;
  // Whether what an RDMA device wrote to this GPU must be flushed before kernels see it; and that.
  [[nodiscard]] virtual int needs_flush(int gpu, bool& needs) = 0;
  [[nodiscard]] virtual int flush(int gpu) = 0;

  // Locks host memory for the GPU's copies; they take much longer, and wait, where that has not been done.
  [[nodiscard]] virtual int pin(int gpu, std::byte* data, std::size_t bytes) = 0;
  virtual void unpin(int gpu, std::byte* data) = 0;
  // Null where that fails.
  [[nodiscard]] virtual std::unique_ptr<CopyQueue> make_queue(int gpu, int& error) = 0;
};

// That of the library libcuda.so.1.
[[nodiscard]] CudaDriver& cuda_driver();

// Whether there is such a GPU. Errors: unavailable (no driver, no such GPU).
[[nodiscard]] Result<void> find_gpu(CudaDriver& driver, int ordinal);
// Errors: unavailable.
[[nodiscard]] Result<std::unique_ptr<CopyQueue>> make_copy_queue(CudaDriver& driver, int gpu);
// What a copy's error means, as one of Code::system.
[[nodiscard]] tl::unexpected<Error> copy_failed(CudaDriver& driver, int gpu, int error);

}  // namespace gradrail
