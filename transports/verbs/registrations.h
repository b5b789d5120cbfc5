// What a transport has registered with its devices, shared where ranges repeat and kept for a while after use, since
// registering costs more than sending. Owned by the transport, on its thread; every Use must go first.
//
// A registration pins pages, not addresses: if its range is unmapped and mapped again, the device goes on writing to
// pages that nobody sees. So a registration is handed out only for bytes that somebody has vouched for without a break
// since it was made:
//   - a live Use vouches for its own range (regions must not outlive their memory): who asks for a part of that, or for
//     the same again, shares its registration;
//   - memory that was allocated here is given back by nobody else, and is kept with its registration when unused, for
//     the next allocation of about its size;
//   - plain memory is watched from the moment on when the last Use that covers the whole of it ends; then the kernel
//     vouches (lifetimes.h). What it reports as given back is never handed out again. Where the kernel refuses, and for
//     memory of GPUs, nothing unused is kept.
// What is unused is kept by most recent use, up to a number of bytes, and all of it is given up where the system has
// no more memory to pin. What is in use is never given up.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/lifetimes.h"
#include "transports/base/pages.h"
#include "transports/memory.h"
#include "transports/verbs/gpu.h"

namespace gradrail::verbs {

class Registrations {
 public:
  // With each of `rails`, all of which must outlive this. Keeps up to `most_unused_bytes` that nobody uses.
  Registrations(const std::vector<std::unique_ptr<Device>>& rails, std::size_t most_unused_bytes);
  Registrations(const Registrations&) = delete;
  Registrations& operator=(const Registrations&) = delete;
  ~Registrations();

  struct Entry;
  // One use of a registration; empty for no bytes.
  class Use {
   public:
    Use() = default;
    Use(Registrations& owner, Entry& entry, AddressRange range) : owner_(&owner), entry_(&entry), range_(range) {}
    Use(Use&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), entry_(other.entry_), range_(other.range_) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(entry_, other.entry_);
      std::swap(range_, other.range_);
      return *this;
    }
    ~Use() {
      if (owner_ != nullptr) owner_->end(*entry_, range_);
    }
    // By rail; keys are 0 for what is staged.
    [[nodiscard]] std::uint32_t local_key(std::size_t rail) const;
    [[nodiscard]] std::uint32_t remote_key(std::size_t rail) const;
    [[nodiscard]] const PathChoice& how(std::size_t rail) const;
    // Of memory that was allocated here.
    [[nodiscard]] std::byte* allocated() const;

   private:
    Registrations* owner_ = nullptr;
    Entry* entry_ = nullptr;
    AddressRange range_;
  };

  // Memory of the caller's: of the host, or of `gpu`. Errors: those of Device::register_memory and Gpu::reach.
  [[nodiscard]] Result<Use> use(Buffer buffer, Gpu* gpu = nullptr);
  // Whole pages, zeroed. Errors: exhausted, and those of Device::register_memory.
  [[nodiscard]] Result<Use> allocate(std::size_t bytes);

  struct Counts {
    std::uint64_t made = 0;    // registrations
    std::uint64_t shared = 0;  // uses of one that was there
    std::size_t unused_bytes = 0;
  };
  [[nodiscard]] const Counts& counts() const { return counts_; }
  // Why unused plain memory is not kept; empty where it is, or where that has not come up.
  [[nodiscard]] const std::string& not_kept() const { return not_kept_; }

 private:
  using Entries = std::list<Entry>;
  [[nodiscard]] Result<Use> make(AddressRange range, Gpu* gpu, Pages pages);
  [[nodiscard]] Result<std::vector<Reached>> register_with_rails(AddressRange range, Gpu* gpu);
  [[nodiscard]] Use again(Entries& from, Entries::iterator entry, AddressRange range);
  void end(Entry& entry, AddressRange range);
  [[nodiscard]] bool watch(Entry& entry);
  void forget(Entries::iterator entry);
  void forget_gone();
  void keep_at_most(std::size_t bytes);

  const std::vector<std::unique_ptr<Device>>& rails_;
  std::size_t most_unused_bytes_;
  std::unique_ptr<Lifetimes> lifetimes_;
  std::unique_ptr<Lifetimes::Gone> gone_;
  std::string not_kept_;
  Entries used_;
  Entries unused_;  // the most recently used one first
  Counts counts_;
};

}  // namespace gradrail::verbs
