// Notices when memory that others own is given back to the system: unmapped, moved or emptied. Who keeps something that
// holds good only while an address means the same pages (a registration pins pages, not addresses) watches those
// addresses, and asks before each use.
//
// It is told by userfaultfd, which the kernel has unprivileged since 5.11: whoever gives watched pages back waits in
// the kernel until this object's thread has read of it. The thread reads and notes under one lock, and take_gone()
// takes it too; so once munmap() has returned, on any thread, take_gone() tells. Faults are not intercepted: nothing is
// ever write-protected.
//
// Invariant, against waiting for oneself: no memory is given back while the lock is held, here or by the thread; what
// is noted goes into an array of fixed size, and beyond it everything counts as gone. One user, on one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail {

struct AddressRange {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  [[nodiscard]] bool contains(const AddressRange& other) const { return begin <= other.begin && other.end <= end; }
  [[nodiscard]] bool overlaps(const AddressRange& other) const { return begin < other.end && other.begin < end; }
};
// The pages that a range lies on.
[[nodiscard]] AddressRange pages_around(AddressRange range);

class Lifetimes {
 public:
  // Errors: unavailable, with the kernel's reason.
  [[nodiscard]] static Result<std::unique_ptr<Lifetimes>> start();
  Lifetimes(const Lifetimes&) = delete;
  Lifetimes& operator=(const Lifetimes&) = delete;
  ~Lifetimes();

  // All pages that the range lies on. False where that cannot be done (files, devices, or nothing is mapped).
  [[nodiscard]] bool watch(AddressRange range);
  void unwatch(AddressRange range);

  struct Gone {
    static constexpr std::size_t k_most = 256;
    std::array<AddressRange, k_most> ranges;
    std::size_t count = 0;
    bool all = false;  // so many that nobody counted
    [[nodiscard]] bool touches(const AddressRange& range) const;
  };
  // Fills in what has gone since it was asked last; false if nothing has.
  [[nodiscard]] bool take_gone(Gone& gone);

 private:
  explicit Lifetimes(Fd faults, Fd stop) : faults_(std::move(faults)), stop_(std::move(stop)) {}
  void listen();
  void note(AddressRange range);

  Fd faults_;
  Fd stop_;
  std::mutex mutex_;
  Gone gone_;
  std::thread thread_;
};

}  // namespace gradrail
