// The memory that calls are measured on, one set a rank and communicator: an input and an output arena, in plain or in
// the transports' own memory, from which every call gets its place. How warm that place is, is said by Cache.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "collectives/exec/communicator.h"
#include "transports/base/pages.h"

namespace gradrail {

enum class BufferKind : std::uint8_t {
  plain,       // ordinary memory, as a user's tensor has it
  huge,        // the same, of huge pages that the system has reserved
  registered,  // allocated by the transport, so that peers may reach it directly
};
enum class Cache : std::uint8_t {
  hot,     // the same buffers for every call
  rotate,  // the next buffers for every call, from arenas far larger than the caches
  flush,   // the same buffers, the caches overwritten before every sample
};

[[nodiscard]] std::string_view to_string(BufferKind kind);  // "plain" (huge too), "registered"
[[nodiscard]] std::string_view to_string(Cache cache);      // "hot", "rotate", "flush"

class Buffers {
 public:
  // For calls whose data is at most `largest_bytes`. Errors: exhausted, or the transports' own.
  [[nodiscard]] static Result<Buffers> make(Communicator& communicator, std::uint64_t largest_bytes, BufferKind kind,
                                            Cache cache);
  // The same in plain memory that no transport knows, for what is called from here but is not ours. Errors: exhausted.
  [[nodiscard]] static Result<Buffers> make_plain(std::uint64_t largest_bytes, Cache cache);

  static constexpr std::size_t k_flush_bytes = 256 << 20;  // that before_sample() overwrites

  // What make() takes for one rank.
  [[nodiscard]] static std::uint64_t bytes_needed(std::uint64_t largest_bytes, Cache cache);

  // Fills in `call.in` and `call.out` for the next use. All ranks get the same offsets.
  void place(Call& call, int rank, int ranks);
  // The bytes of this rank's input and output of the call as placed.
  [[nodiscard]] static std::size_t in_bytes(const Call& call, int rank, int ranks);
  [[nodiscard]] static std::size_t out_bytes(const Call& call, int rank, int ranks);
  // Flush: overwrites the caches. Otherwise nothing.
  void before_sample();
  [[nodiscard]] Cache cache() const { return cache_; }
  [[nodiscard]] bool flushes() const { return cache_ == Cache::flush; }
  // Each call is placed anew; otherwise one place() serves any number of calls.
  [[nodiscard]] bool rotates() const { return cache_ == Cache::rotate; }

 private:
  struct Arena {
    std::unique_ptr<std::byte[], void (*)(std::byte*)> plain{nullptr, [](std::byte*) {}};
    Pages huge;
    Memory memory;
  };
  [[nodiscard]] static std::size_t arena_bytes(std::uint64_t largest_bytes, Cache cache);
  // `communicator`: null for memory that no transport knows.
  [[nodiscard]] static Result<Arena> make_arena(Communicator* communicator, std::size_t bytes, BufferKind kind);
  [[nodiscard]] static Result<Buffers> make_for(Communicator* communicator, std::uint64_t largest_bytes,
                                                BufferKind kind, Cache cache);

  Arena in_;
  Arena out_;
  std::size_t arena_bytes_ = 0;
  std::size_t next_ = 0;  // rotate: where the next call's buffers begin
  Cache cache_ = Cache::hot;
  std::vector<std::byte> flush_;
  std::byte flush_value_{};
};

}  // namespace gradrail
