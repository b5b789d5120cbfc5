// What two ends of a pipe say to each other: this page is the protocol.
//
// Each side owns one registered landing area that the other writes to: adverts, one question, and a ring of bytes. All
// travels as RDMA writes on reliable queue pairs; the last write of anything carries 32 bits of immediate data, which
// consumes one posted receive of the other side and tells it what has arrived. RC keeps the order, so messages need no
// numbers, and a written byte is there once the completion of a later immediate is.
//
// A pipe has one queue pair or more. The first carries everything but the further stripes of long placed messages:
// stripe i of those goes over queue pair i, and its last write tells the message's number there. Both sides know into
// how many stripes a size is cut. A striped message has arrived once each of its stripes has; on each queue pair they
// come in the order of the messages.
//
// Sender -> receiver
//   part      bytes of the oldest message lie in the ring; `last` if they end it. Messages up to eager_bytes go so at
//             once, longer ones whose receiver reads in place once they are asked for.
//   placed    the whole message, or this queue pair's stripe of it, has been written to where its advert said.
//   question  "my oldest message has so many bytes, what did you ask for?": sent when an advert names another size, or
//             none has come for a while; the receiver compares, and ends the pipe if they differ.
// Receiver -> sender
//   advert    where message n goes, sent when a receive of more than eager_bytes is posted.
//   credit    so many parts and ring bytes have been read and may be used again.
//
// The ring: a part starts at a multiple of k_grain and never wraps; one that would, starts at 0. Both sides count the
// same way: `taken` is what a part uses up, with the gap before it.
// Posted receives: of the window's parts and placed messages, as many adverts (advert n + window is sent only after
// message n has come, thus after advert n was read), and a few credits and questions; so the receive queue never runs
// empty. Each side grants a window to the other; it is smaller where a device's queue pairs share their receives.
#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "transports/base/bytes.h"

namespace gradrail::verbs {

inline constexpr std::size_t k_grain = 64;
inline constexpr std::size_t k_depth = 64;         // messages outstanding each way
inline constexpr std::size_t k_parts = 64;         // parts and placed messages sent and not yet given back, at most
inline constexpr std::size_t k_shared_parts = 16;  // the same where receives are shared
inline constexpr std::size_t k_credit_notes = 16;  // never more are under way: one for each quarter of parts or ring
inline constexpr std::size_t k_repost_batch = 16;  // receives are posted again so many at a time
// Of a pipe's first queue pair, and of each further one, for a window of so many parts.
[[nodiscard]] constexpr std::size_t first_receives(std::size_t window) {
  return 2 * window + k_credit_notes + 16 + k_repost_batch;
}
[[nodiscard]] constexpr std::size_t further_receives(std::size_t window) { return window + k_repost_batch; }
static_assert(first_receives(k_parts) % k_repost_batch == 0 && first_receives(k_shared_parts) % k_repost_batch == 0);
static_assert(further_receives(k_parts) % k_repost_batch == 0 && k_shared_parts % k_repost_batch == 0);
inline constexpr std::size_t k_most_eager_bytes = 8 << 10;

inline constexpr std::size_t k_most_rails = 8;
inline constexpr std::size_t k_most_pairs = 16;  // of one pipe, over all its rails
// No stripe is shorter; splitting less gains nothing over the notes that it costs.
inline constexpr std::size_t k_least_stripe_bytes = 32 << 10;
inline constexpr std::size_t k_stripe_grain = 4096;
[[nodiscard]] constexpr std::size_t stripes_of(std::size_t bytes, std::size_t pairs) {
  return pairs == 1 || bytes < 2 * k_least_stripe_bytes ? 1 : std::min(pairs, bytes / k_least_stripe_bytes);
}
// Where stripe `index` of `stripes` begins; that of index `stripes` is the end.
[[nodiscard]] constexpr std::size_t stripe_at(std::size_t bytes, std::size_t stripes, std::size_t index) {
  return index == stripes ? bytes : bytes / stripes * index / k_stripe_grain * k_stripe_grain;
}
// The stripe that the message's byte `at` lies in.
[[nodiscard]] constexpr std::size_t stripe_with(std::size_t bytes, std::size_t stripes, std::size_t at) {
  std::size_t index = 0;
  while (stripe_at(bytes, stripes, index + 1) <= at) ++index;
  return index;
}

enum class Note : std::uint8_t { part, last_part, placed, advert, credit, question };

// Immediate data, as they travel: three bits of Note, 29 of value.
inline constexpr std::uint32_t k_value_bits = 29;
inline constexpr std::uint32_t k_value_mask = (1U << k_value_bits) - 1;
[[nodiscard]] inline std::uint32_t immediate(Note note, std::uint64_t value) {
  return htonl(std::uint32_t(note) << k_value_bits | (static_cast<std::uint32_t>(value) & k_value_mask));
}
[[nodiscard]] inline Note note_of(std::uint32_t immediate) { return Note(ntohl(immediate) >> k_value_bits); }
[[nodiscard]] inline std::uint32_t value_of(std::uint32_t immediate) { return ntohl(immediate) & k_value_mask; }

// A credit's value.
inline constexpr std::uint32_t k_credit_part_bits = 8;
[[nodiscard]] constexpr std::uint32_t credit_value(std::uint64_t parts, std::uint64_t ring_bytes) {
  return static_cast<std::uint32_t>(ring_bytes / k_grain << k_credit_part_bits | parts);
}
[[nodiscard]] constexpr std::uint64_t credited_parts(std::uint32_t value) {
  return value & ((1U << k_credit_part_bits) - 1);
}
[[nodiscard]] constexpr std::uint64_t credited_bytes(std::uint32_t value) {
  return std::uint64_t(value >> k_credit_part_bits) * k_grain;
}
// So that every credit fits.
inline constexpr std::size_t k_most_ring_bytes = k_grain << (k_value_bits - k_credit_part_bits - 1);

struct Advert {
  std::uint64_t number = 0;  // of the message, plus 1
  std::uint64_t bytes = 0;
  std::uint64_t address = 0;
  std::uint32_t in_place = 0;                      // 1: through the ring
  std::array<std::uint32_t, k_most_rails> keys{};  // one for each rail of the receiver; more do not travel
};
static_assert(sizeof(Advert) == 64);
[[nodiscard]] constexpr std::size_t advert_bytes(std::size_t rails) {
  return offsetof(Advert, keys) + rails * sizeof(std::uint32_t);
}

struct Question {
  std::uint64_t number = 0;
  std::uint64_t bytes = 0;
};

// Where things lie in a landing area.
struct Landing {
  std::size_t ring_bytes = 0;

  [[nodiscard]] static constexpr std::size_t advert_at(std::uint64_t number) {
    return number % k_depth * sizeof(Advert);
  }
  [[nodiscard]] static constexpr std::size_t question_at() { return k_depth * sizeof(Advert); }
  [[nodiscard]] static constexpr std::size_t ring_at() { return 8192; }
  [[nodiscard]] constexpr std::size_t total_bytes() const { return ring_at() + ring_bytes; }
};
static_assert(Landing::question_at() + sizeof(Question) <= Landing::ring_at());

// A position in the ring that only grows; see above.
struct Extent {
  std::uint64_t offset = 0;  // in the ring
  std::uint64_t taken = 0;
};
[[nodiscard]] constexpr Extent next_extent(std::uint64_t position, std::size_t bytes, std::size_t ring_bytes) {
  const std::uint64_t rounded = (bytes + k_grain - 1) / k_grain * k_grain;
  const std::uint64_t offset = position % ring_bytes;
  const std::uint64_t left = ring_bytes - offset;
  return rounded <= left ? Extent{offset, rounded} : Extent{0, left + rounded};
}

// How one end introduces itself over the side channel.
struct PairIntroduction {
  std::uint8_t rail = 0;
  std::uint8_t ethernet = 0;  // link layer
  std::uint8_t global = 0;    // gid is to be used
  std::uint8_t mtu = 0;       // ibv_mtu
  std::uint16_t lid = 0;
  std::uint32_t queue_pair = 0;
  std::uint32_t packet_number = 0;
  std::uint64_t gid_high = 0, gid_low = 0;
  std::array<std::uint64_t, 2> cm_address{};  // where rdma_cm finds its device: an IPv6 address or a mapped IPv4 one
  std::uint16_t cm_port = 0;                  // 0: not by rdma_cm
};

struct Introduction {
  static constexpr std::uint32_t k_version = 2;
  std::uint32_t version = k_version;
  std::int32_t rank = 0;
  std::int32_t lane = 0;
  std::uint32_t rails = 1;         // both sides have as many
  std::uint32_t window = k_parts;  // granted to the other side
  std::uint64_t landing = 0;       // address and key of the landing area
  std::uint32_t landing_key = 0;
  std::array<std::uint64_t, 2> fresh{};  // a random number, which rdma_cm's proofs are about
  std::uint64_t ring_bytes = 0;
  std::uint64_t eager_bytes = 0;
  std::uint64_t part_bytes = 0;
  std::vector<PairIntroduction> pairs;

  static constexpr std::size_t k_most_bytes = 1024;
  [[nodiscard]] Bytes pack() const;
  [[nodiscard]] static std::optional<Introduction> parse(std::span<const std::byte> bytes);
};

}  // namespace gradrail::verbs
