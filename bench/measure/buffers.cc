#include "bench/measure/buffers.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace gradrail {

namespace {

constexpr std::size_t k_page = 4096;
constexpr std::size_t k_huge_page = 2 << 20;
// Several times what a rank can keep in caches.
constexpr std::size_t k_rotate_bytes = 256 << 20;

std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::size_t bytes_of(Store store, const Call& call, int rank, int ranks) {
  Shape shape;
  shape.collective = call.collective;
  shape.ranks = ranks;
  shape.root = call.root;
  const auto n = static_cast<std::uint32_t>(ranks);
  const Window window = window_of(store, shape, rank, n);
  const std::size_t block = call.count * size_of(call.type);
  if (window.count == 0) return 0;
  return is_blocked(call.collective) ? block * window.count : block;
}

}  // namespace

std::string_view to_string(BufferKind kind) { return kind == BufferKind::registered ? "registered" : "plain"; }

std::string_view to_string(Cache cache) {
  switch (cache) {
    case Cache::hot: return "hot";
    case Cache::rotate: return "rotate";
    case Cache::flush: return "flush";
  }
  return {};
}

std::size_t Buffers::in_bytes(const Call& call, int rank, int ranks) { return bytes_of(Store::in, call, rank, ranks); }
std::size_t Buffers::out_bytes(const Call& call, int rank, int ranks) {
  return bytes_of(Store::out, call, rank, ranks);
}

Result<Buffers::Arena> Buffers::make_arena(Communicator* communicator, std::size_t bytes, BufferKind kind) {
  Arena arena;
  if (kind == BufferKind::registered) {
    GRADRAIL_ASSIGN(arena.memory, communicator->allocate(bytes));
  } else if (kind == BufferKind::huge) {
    GRADRAIL_ASSIGN(arena.huge, Pages::map_huge(bytes));
    GRADRAIL_ASSIGN(arena.memory, communicator->adopt({arena.huge.data(), bytes}));
  } else {
    const std::size_t unit = bytes >= k_huge_page ? k_huge_page : k_page;
    auto* data = static_cast<std::byte*>(std::aligned_alloc(unit, rounded_up(bytes, unit)));
    if (data == nullptr)
      return fail(Code::exhausted, fmt::format("there is no memory for buffers of {} bytes; choose a smaller largest "
                                               "size (-e) or fewer ranks (-n)",
                                               bytes));
    arena.plain = {data, [](std::byte* p) { std::free(p); }};
    if (unit == k_huge_page) madvise(data, rounded_up(bytes, unit), MADV_HUGEPAGE);
    if (communicator == nullptr) {
      arena.memory = Memory(Buffer{data, bytes, Space::host, -1}, {});
    } else {
      GRADRAIL_ASSIGN(arena.memory, communicator->adopt({data, bytes}));
    }
  }
  // Touched once, so that no measurement pays for page faults.
  std::memset(arena.memory.data(), 0, bytes);
  return arena;
}

std::size_t Buffers::arena_bytes(std::uint64_t largest_bytes, Cache cache) {
  const std::size_t bytes = rounded_up(largest_bytes, k_page);
  return cache == Cache::rotate ? std::max(2 * bytes, k_rotate_bytes) : bytes;
}

std::uint64_t Buffers::bytes_needed(std::uint64_t largest_bytes, Cache cache) {
  return 2 * arena_bytes(largest_bytes, cache) + (cache == Cache::flush ? k_flush_bytes : 0);
}

Result<Buffers> Buffers::make(Communicator& communicator, std::uint64_t largest_bytes, BufferKind kind, Cache cache) {
  return make_for(&communicator, largest_bytes, kind, cache);
}

Result<Buffers> Buffers::make_plain(std::uint64_t largest_bytes, Cache cache) {
  return make_for(nullptr, largest_bytes, BufferKind::plain, cache);
}

Result<Buffers> Buffers::make_for(Communicator* communicator, std::uint64_t largest_bytes, BufferKind kind,
                                  Cache cache) {
  Buffers buffers;
  buffers.cache_ = cache;
  buffers.arena_bytes_ = arena_bytes(largest_bytes, cache);
  if (cache == Cache::flush) buffers.flush_.resize(k_flush_bytes);
  GRADRAIL_ASSIGN(buffers.in_, make_arena(communicator, buffers.arena_bytes_, kind));
  GRADRAIL_ASSIGN(buffers.out_, make_arena(communicator, buffers.arena_bytes_, kind));
  return buffers;
}

void Buffers::place(Call& call, int rank, int ranks) {
  const std::size_t in = in_bytes(call, rank, ranks);
  const std::size_t out = out_bytes(call, rank, ranks);
  // Ranks whose buffers differ in size (a root's) still move on alike.
  const std::size_t block = call.count * size_of(call.type);
  const std::size_t data = is_blocked(call.collective) ? block * static_cast<std::size_t>(ranks) : block;
  std::size_t offset = 0;
  if (cache_ == Cache::rotate) {
    if (next_ + data > arena_bytes_) next_ = 0;
    offset = next_;
    next_ += rounded_up(std::max<std::size_t>(data, 1), k_page);
  }
  if (call.in_place) {
    const std::size_t mine = static_cast<std::size_t>(rank) * block;
    call.in = {&out_.memory, offset + (is_blocked(call.collective) && in < out ? mine : 0)};
    call.out = {&out_.memory, offset + (is_blocked(call.collective) && out < in ? mine : 0)};
  } else {
    call.in = {&in_.memory, offset};
    call.out = {&out_.memory, offset};
  }
}

void Buffers::before_sample() {
  if (flush_.empty()) return;
  flush_value_ = static_cast<std::byte>(std::to_integer<int>(flush_value_) + 1);
  std::memset(flush_.data(), std::to_integer<int>(flush_value_), flush_.size());
}

}  // namespace gradrail
