// GPUs that exist only in this process. Their memory is memory of the host that nobody may touch: at the address that
// programs see, every access is a fault; only copies of the driver, and devices that reach it (bus()), get at the
// bytes, by another mapping of them. Copies take a few polls. Tests set limits and break things. One thread at a time
// (a lock makes it so).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "transports/base/fd.h"
#include "transports/cuda_driver.h"

namespace gradrail::testing {

class FakeCuda final : public CudaDriver {
 public:
  // What the driver says.
  std::string absent;
  int gpus = 2;
  bool exports = true;
  int export_error = 0, pin_error = 0, queue_error = 0, copy_error = 0;
  bool flush_needed = false;
  int polls_a_copy = 3;
  // What was asked of it.
  std::size_t exported = 0, ordered = 0, pinned = 0, flushed = 0, copies = 0, most_under_way = 0, queues = 0;

  ~FakeCuda() override {
    for (const auto& [begin, one] : memory_) ::munmap(begin, one.bytes), ::munmap(one.bytes_at, one.bytes);
  }
  // Memory of a GPU, at an address that faults.
  std::byte* allocate(int gpu, std::size_t bytes) {
    const Fd fd(::memfd_create("gpu", MFD_CLOEXEC));
    if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return nullptr;
    const auto map = [&](int protection) {
      return static_cast<std::byte*>(::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), 0));
    };
    std::byte* const address = map(PROT_NONE);
    const std::lock_guard lock(mutex_);
    memory_[address] = {gpu, bytes, map(PROT_READ | PROT_WRITE)};
    return address;
  }
  // Where the bytes at an address are: elsewhere for memory of a GPU.
  template <class Byte>
  Byte* bus(Byte* address) {
    const std::lock_guard lock(mutex_);
    const Memory* const one = find(address);
    return one == nullptr ? address : one->bytes_at + (address - begin_of(address));
  }
  bool owns(const void* address) {
    const std::lock_guard lock(mutex_);
    return find(static_cast<const std::byte*>(address)) != nullptr;
  }

  std::string missing() override { return absent; }
  std::string words(int error) override { return "fake error " + std::to_string(error); }
  int count(int& count) override { return count = gpus, 0; }
  int allocate(int gpu, std::size_t bytes, std::byte*& data) override {
    data = allocate(gpu, bytes);
    return data == nullptr ? 2 : 0;
  }
  void release(int, std::byte*) override {}  // with the driver
  int owns(int gpu, const std::byte* data, bool& owns) override {
    const std::lock_guard lock(mutex_);
    const Memory* const one = find(data);
    owns = one != nullptr && one->gpu == gpu;
    return 0;
  }
  int exports_dma_buf(int, bool& answer) override { return answer = exports, 0; }
  int export_dma_buf(int, const std::byte*, std::size_t, int& fd) override {
    ++exported;
    if (export_error == 0) fd = ::memfd_create("dma-buf", MFD_CLOEXEC);
    return export_error;
  }
  int order_copies(int, const std::byte*) override { return ++ordered, 0; }
  int needs_flush(int, bool& needs) override { return needs = flush_needed, 0; }
  int flush(int) override { return ++flushed, 0; }
  int pin(int, std::byte*, std::size_t) override { return pin_error == 0 ? (++pinned, 0) : pin_error; }
  void unpin(int, std::byte*) override { --pinned; }
  std::unique_ptr<CopyQueue> make_queue(int, int& error) override {
    error = queue_error;
    if (error != 0) return nullptr;
    ++queues;
    return std::make_unique<Queue>(*this);
  }

 private:
  struct Memory {
    int gpu = 0;
    std::size_t bytes = 0;
    std::byte* bytes_at = nullptr;
  };
  class Queue final : public CopyQueue {
   public:
    explicit Queue(FakeCuda& cuda) : cuda_(cuda) {}
    ~Queue() override {
      while (!waiting_.empty()) end_one();
      --cuda_.queues;
    }
    int start(void* to, const void* from, std::size_t bytes) override {
      if (cuda_.copy_error != 0) return cuda_.copy_error;
      waiting_.push_back({static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, cuda_.polls_a_copy});
      ++cuda_.copies;
      cuda_.most_under_way = std::max(cuda_.most_under_way, waiting_.size());
      return waiting_.size() > k_most ? 1 : 0;
    }
    int poll(std::uint64_t& ended) override {
      if (!waiting_.empty() && --waiting_.front().polls <= 0) end_one();
      ended = ended_;
      return 0;
    }

   private:
    struct Waiting {
      std::byte* to;
      const std::byte* from;
      std::size_t bytes;
      int polls;
    };
    void end_one() {
      const Waiting& one = waiting_.front();
      std::memcpy(cuda_.bus(one.to), cuda_.bus(one.from), one.bytes);
      waiting_.pop_front();
      ++ended_;
    }
    FakeCuda& cuda_;
    std::deque<Waiting> waiting_;
    std::uint64_t ended_ = 0;
  };

  [[nodiscard]] std::byte* begin_of(const std::byte* address) const {
    return std::prev(memory_.upper_bound(const_cast<std::byte*>(address)))->first;
  }
  [[nodiscard]] const Memory* find(const std::byte* address) const {
    const auto after = memory_.upper_bound(const_cast<std::byte*>(address));
    if (after == memory_.begin()) return nullptr;
    const auto& [begin, one] = *std::prev(after);
    return address < begin + one.bytes ? &one : nullptr;
  }

  std::mutex mutex_;
  std::map<std::byte*, Memory> memory_;
};

}  // namespace gradrail::testing
