// A small job over one transport, in one process: every rank with its transport, endpoints and memory. Only connect()
// needs a thread a rank; afterwards one thread may drive all ranks in turn, since nothing else blocks.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "transports/settings.h"

namespace gradrail::testing {

struct JobOptions {
  int ranks = 2;
  int lanes = 1;
  Settings settings;  // rank, ranks, secret and hub are filled in
  // Goes around each rank's transport, if given.
  std::function<std::unique_ptr<Transport>(int rank, std::unique_ptr<Transport> inner)> wrap;
};

class Job {
 public:
  // Fails the present test, and leaves ok() false, if it cannot be made.
  Job(std::string_view transport, const JobOptions& options);
  ~Job();

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] Transport& transport(int rank) { return *ranks_[static_cast<std::size_t>(rank)].transport; }
  // Of `rank` to `peer`.
  [[nodiscard]] Endpoint& endpoint(int rank, int peer, int lane = 0);
  // Destroys all endpoints of a rank.
  void close(int rank);

  // Drives all ranks until `done`, at most 30 s; false, with the failures in the test's output, if that never came.
  bool drive(const std::function<bool()>& done);
  bool progress();  // once, on all ranks

 private:
  struct Rank {
    std::unique_ptr<Transport> transport;
    std::map<std::pair<int, int>, std::unique_ptr<Endpoint>> endpoints;  // by peer and lane
  };
  std::vector<Rank> ranks_;
  bool ok_ = false;
};

// Memory of a test: plain (the caller's own, registered) or direct (allocated by the transport).
class Memory {
 public:
  enum class Kind { plain, direct };
  Memory(Transport& transport, Kind kind, std::size_t bytes);

  [[nodiscard]] Slice slice(std::size_t offset, std::size_t size) const { return {region_.get(), offset, size}; }
  [[nodiscard]] Slice all() const { return slice(0, size_); }
  [[nodiscard]] std::span<std::byte> bytes() const { return {region_->buffer().data, size_}; }

 private:
  std::vector<std::byte> own_;  // destroyed after the region
  std::unique_ptr<Region> region_;
  std::size_t size_;
};

// A pattern that differs by seed and place.
void fill(std::span<std::byte> bytes, std::uint64_t seed);
// Index of the first byte that differs from fill(seed), or -1. `from`: offset of bytes[0] within the pattern.
[[nodiscard]] std::ptrdiff_t first_wrong(std::span<const std::byte> bytes, std::uint64_t seed, std::size_t from = 0);

}  // namespace gradrail::testing
