// The memory that two ranks share: one memfd a pipe, with one Half for each direction. This page is the protocol.
//
// Sender -> receiver: a ring of 64-byte lines. A line carries a whole message of up to 56 bytes, or names the next part
// of a longer one: an extent of the slot ring (slot), the sender's own registered memory (view), its plain memory, for
// the receiver to read through the kernel (attached), or bytes that the sender has already written into the receiver's
// posted destination (placed). The n-th line lies at n % k_lines; its
// head holds the lap n / k_lines + 1, so an old line is never taken for a new one, and zeroed memory is an empty ring.
// Receiver -> sender, on other cache lines: Credits (how far it has read) and Adverts (where it wants a message).
//
// Who may write what, and when (every cell has exactly one writing side):
//  - A line belongs to the sender until it stores `head` (release), with the payload before it; then to the receiver
//    (acquire of `head`) until `Credits::lines` passes it (release/acquire).
//  - A slot extent belongs to the sender until the line that names it is published, and then to the receiver until
//    `Credits::ring_bytes` passes it. Extents are taken in ring order, 64-byte aligned, and never wrap.
//  - Memory named by a view or an attached part is only read by the receiver, and must not change until
//  `Credits::messages` passes the
//    message (published at once when such a message completes). It may be the destination of an advert meanwhile, for
//    a message that the receiver of the view computes from it: it then writes each byte after it has read it.
//  - A destination named by an advert is written by the sender only, from the advert's `tag` (release/acquire) until
//    the placed line that covers its last byte. Plain memory (k_plain) may be gone thereafter, so it is asked for and
//    withdrawn as in Dekker's algorithm: the sender says in Writing which message it writes, and then looks whether the
//    advert stands; the receiver strikes out the advert, and then waits until that message is not being written. Advert
//    n % k_depth is written again only for message n + k_depth, which is posted after message n completed, when the
//    sender has no more use for it.
//  - Lines and ring bytes are credited in batches; less than a quarter of the lines, and less than half a slot, ever
//    stay uncredited, so a sender that waits for credit always gets it.
// A receiver polls the line it expects next and nothing else; a sender reads Credits only when it lacks something.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "transports/base/result.h"

namespace gradrail::shm {

inline constexpr std::size_t k_line_bytes = 64;
inline constexpr std::size_t k_inline_bytes = 56;
inline constexpr std::size_t k_lines = 128;
inline constexpr std::size_t k_depth = 64;
// Shorter messages are not advertised, and nobody looks for their adverts: the line that an advert lies in takes longer
// from core to core than the copy that it could save.
inline constexpr std::size_t k_advertised_from = 4096;

// Shorter ones go through the slots: reading another process's memory costs more than a microsecond a call, and per
// page.
inline constexpr std::size_t k_attached_from = 256 << 10;

enum class Part : std::uint8_t { in_line, slot, view, placed, attached };

struct alignas(k_line_bytes) Line {
  std::atomic<std::uint64_t> head;  // lap, kind, inline size: see make_head()
  std::byte payload[k_inline_bytes];
};
static_assert(sizeof(Line) == k_line_bytes && std::atomic<std::uint64_t>::is_always_lock_free);

// The payload of a line that is not in_line.
struct PartNote {
  std::uint64_t message_bytes;  // of the whole message
  std::uint64_t part_bytes;
  std::uint64_t offset;  // slot: in the ring; view: in the region; attached: the sender's address
  std::uint32_t region;  // view
  std::uint32_t spare;
};
static_assert(sizeof(PartNote) <= k_inline_bytes);

[[nodiscard]] constexpr std::uint32_t lap_of(std::uint64_t line) {
  return static_cast<std::uint32_t>(line / k_lines + 1);
}
[[nodiscard]] constexpr std::uint64_t make_head(std::uint64_t line, Part kind, std::size_t inline_bytes) {
  return lap_of(line) | std::uint64_t(kind) << 32 | std::uint64_t(inline_bytes) << 40;
}
[[nodiscard]] constexpr bool has_lap(std::uint64_t head, std::uint64_t line) {
  return static_cast<std::uint32_t>(head) == lap_of(line);
}
[[nodiscard]] constexpr Part kind_of(std::uint64_t head) { return Part((head >> 32) & 0xff); }
[[nodiscard]] constexpr std::size_t inline_bytes_of(std::uint64_t head) { return (head >> 40) & 0xff; }

// Written by the receiver. 128 bytes: the adjacent-line prefetcher must not drag its neighbours along.
struct alignas(128) Credits {
  std::atomic<std::uint64_t> lines;       // read
  std::atomic<std::uint64_t> ring_bytes;  // given back, extents rounded up to 64
  std::atomic<std::uint64_t> messages;    // completed, as of the last one that was viewed or attached
};

// Written by the receiver for each posted receive of at least k_advertised_from bytes.
struct Advert {
  static constexpr std::uint32_t k_plain = UINT32_MAX;  // the receiver's plain memory, to be written through the kernel
  std::atomic<std::uint64_t> tag;                       // message number + 1; 0: withdrawn
  std::uint64_t bytes;
  std::uint64_t offset;  // in the region; k_plain: the receiver's address
  std::uint32_t region;  // 0: not directly writable, or read in place
  std::uint32_t spare;
};
static_assert(sizeof(Advert) == 32);

// Written by the sender: the message (number + 1) that it writes into plain memory of the receiver's; 0: none.
struct alignas(128) Writing {
  std::atomic<std::uint64_t> message;
};

struct alignas(4096) Half {
  Line lines[k_lines];
  Credits credits;
  Advert adverts[k_depth];
  Writing writing;
};

struct PipeHeader {
  static constexpr std::uint64_t k_magic = 0x32'65'70'69'70'72'67ULL;  // "grpipe2"
  std::uint64_t magic;
  std::uint64_t slot_bytes;
  std::uint64_t slots;
};

// Where things lie in a pipe's memfd. half[0] and its ring carry what the lower rank sends.
struct PipeLayout {
  static constexpr std::size_t k_page = 4096;
  std::size_t slot_bytes = 0;
  std::size_t slots = 0;

  [[nodiscard]] constexpr std::size_t ring_bytes() const { return slot_bytes * slots; }
  [[nodiscard]] constexpr std::size_t half_at(int side) const {
    return k_page + static_cast<std::size_t>(side) * (sizeof(Half) + padded_ring());
  }
  [[nodiscard]] constexpr std::size_t ring_at(int side) const { return half_at(side) + sizeof(Half); }
  [[nodiscard]] constexpr std::size_t total_bytes() const { return half_at(2); }

  // Of so many bytes in each direction; 0: what so many ranks can afford, each having a pipe to each. Unchecked.
  [[nodiscard]] static PipeLayout of(std::size_t ring_bytes, int ranks);
  // Errors: bad_usage.
  [[nodiscard]] Result<void> check() const;

 private:
  [[nodiscard]] constexpr std::size_t padded_ring() const { return (ring_bytes() + k_page - 1) / k_page * k_page; }
};

}  // namespace gradrail::shm
