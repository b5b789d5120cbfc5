#include "transports/shm/endpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/shm/lifeline.h"
#include "transports/shm/transport.h"

namespace gradrail::shm {

// A ring that is written again soon lies in the reader's cache, from where the writer must fetch each line first; and
// the fewer slots a message takes, the fewer lines go to and fro, and the longer the copies are. Many rings beside each
// other drive the ranks' own data out of the caches; the two of a lone pair may be as large as what they pass on.
PipeLayout PipeLayout::of(std::size_t ring_bytes, int ranks) {
  constexpr std::size_t k_pair_slots = 16;
  constexpr std::size_t k_pair_slot_bytes = 128 << 10;
  constexpr std::size_t k_slots = 8;
  constexpr std::size_t k_ring_bytes = 256 << 10;
  if (ring_bytes == 0 && ranks <= 2) return {k_pair_slot_bytes, k_pair_slots};
  return {(ring_bytes == 0 ? k_ring_bytes : ring_bytes) / k_slots, k_slots};
}

namespace {

// Fetched from a peer at once to be read in place. From all of them together it must stay in a cache of the core's own
// until it has been read; but a call of the kernel is to be worth its while.
std::size_t landing_bytes(int ranks) {
  constexpr std::size_t k_all = 512 << 10;
  constexpr std::size_t k_least = 64 << 10;
  const auto share = k_all / static_cast<std::size_t>(std::max(ranks - 1, 1));
  return std::max(k_least, share / PipeLayout::k_page * PipeLayout::k_page);
}

}  // namespace

Result<void> PipeLayout::check() const {
  if (slot_bytes < 1024 || slot_bytes > (std::size_t{1} << 30) || slot_bytes % k_line_bytes != 0) {
    return fail(Code::bad_usage,
                fmt::format("a slot of {} bytes will not do: 1024 bytes to 1 GiB, in steps of 64", slot_bytes));
  }
  if (slots < 1 || slots > 1024 || ring_bytes() > (std::size_t{1} << 32)) {
    return fail(Code::bad_usage,
                fmt::format("{} slots of {} bytes will not do: 1 to 1024 slots, 4 GiB in all", slots, slot_bytes));
  }
  return {};
}

ShmRegion::ShmRegion(ShmTransport& owner, Mapping mapping, std::size_t bytes, std::uint32_t number)
    : Region(owner, Buffer{mapping.data(), bytes}, true),
      transport_(owner),
      mapping_(std::move(mapping)),
      number_(number) {}

ShmRegion::~ShmRegion() { transport_.forget(number_); }

ShmEndpoint::ShmEndpoint(ShmTransport& owner, Identity peer_identity, int side, PipeLayout layout, Mapping pipe,
                         Fd lifeline)
    : Endpoint(peer_identity.rank, peer_identity.lane),
      owner_(owner),
      layout_(layout),
      pipe_(std::move(pipe)),
      out_(reinterpret_cast<Half*>(pipe_.data() + layout.half_at(side))),
      out_ring_(pipe_.data() + layout.ring_at(side)),
      in_(reinterpret_cast<Half*>(pipe_.data() + layout.half_at(1 - side))),
      in_ring_(pipe_.data() + layout.ring_at(1 - side)),
      landing_bytes_(landing_bytes(owner.ranks())),
      lifeline_(std::move(lifeline)),
      identity_(std::move(peer_identity)) {
  pipe_.close_fd();
  if (identity_.reads_us) attached_from_ = k_attached_from;
}

ShmEndpoint::~ShmEndpoint() {
  withdraw();
  owner_.remove(this);
}

void ShmEndpoint::break_off(Code code, std::string message) {
  if (failure_) return;
  failure_ = Error{code, std::move(message), peer()};
  lifeline_.reset();  // so that the peer learns of it
}

bool ShmEndpoint::check_life() {
  if (failure_) return false;
  if (!peer_closed_) read_notes();
  if (!peer_closed_ || failure_) return false;
  // Everything the peer did is visible by now. What it sent before it went is still good.
  if (progress()) return true;
  if (failure_ || (sends_done_ == sends_posted_ && unread())) return false;
  break_off(Code::peer_gone, gone());
  return true;
}

std::string ShmEndpoint::gone() const {
  return fmt::format("rank {} (process {} on {}) is gone: it ended or closed the connection", peer(), identity_.pid,
                     identity_.host);
}

void ShmEndpoint::read_notes() {
  while (!peer_closed_ && !failure_) {
    auto received = receive_note(lifeline_.get());
    if (!received) {
      peer_closed_ = true;
      if (received.error().code == Code::malformed) break_off(Code::malformed, received.error().message);
      return;
    }
    if (!*received) return;
    const Note& note = (*received)->note;
    if (note.kind == NoteKind::region) {
      auto mapping = owner_.share(identity_.token, note.region, (*received)->fd, note.bytes);
      if (!mapping) {
        break_off(mapping.error().code, fmt::format("mapping memory of rank {}: {}", peer(), mapping.error().message));
        return;
      }
      peer_regions_.push_back({note.region, std::move(*mapping)});
    } else if (note.kind == NoteKind::board) {
      auto mapping = Mapping::open((*received)->fd, note.bytes);
      if (!mapping) {
        break_off(mapping.error().code,
                  fmt::format("mapping the board of rank {}: {}", peer(), mapping.error().message));
        return;
      }
      board_ = std::move(*mapping);
    } else if (note.kind == NoteKind::forget) {
      std::erase_if(peer_regions_, [&](const PeerRegion& one) { return one.number == note.region; });
    } else {
      break_off(Code::malformed, fmt::format("rank {} sent a note that has no place in an open pipe", peer()));
    }
  }
}

const Mapping* ShmEndpoint::peer_region(std::uint32_t number) {
  const auto find = [&] {
    return std::find_if(peer_regions_.begin(), peer_regions_.end(),
                        [&](const PeerRegion& one) { return one.number == number; });
  };
  auto found = find();
  if (found == peer_regions_.end()) {
    read_notes();  // the note was sent before the region was named
    found = find();
  }
  return found == peer_regions_.end() ? nullptr : found->mapping.get();
}

bool ShmEndpoint::announce(const ShmRegion& region) {
  if (std::find(announced_.begin(), announced_.end(), region.number()) != announced_.end()) return true;
  if (peer_closed_) return false;
  Note note;
  note.kind = NoteKind::region;
  note.region = region.number();
  note.bytes = region.mapping().size();
  const auto sent = send_note(lifeline_.get(), note, region.mapping().fd());
  if (!sent || !*sent) return false;  // full, or ended, which check_life() notices: this message goes another way
  announced_.push_back(region.number());
  return true;
}

void ShmEndpoint::forget(std::uint32_t region) {
  if (std::erase(announced_, region) == 0 || failure_ || peer_closed_) return;
  Note note;
  note.kind = NoteKind::forget;
  note.region = region;
  // If the socket is full the peer keeps its mapping until the pipe closes: memory, not correctness.
  static_cast<void>(send_note(lifeline_.get(), note));
}

Result<bool> ShmEndpoint::offer_board(const Mapping& board) {
  if (failure_) return tl::unexpected(*failure_);
  Note note;
  note.kind = NoteKind::board;
  note.bytes = board.size();
  auto sent = send_note(lifeline_.get(), note, board.fd());
  if (!sent) sent.error().peer = peer();
  return sent;
}

Result<std::optional<Mapping>> ShmEndpoint::take_board(std::size_t bytes) {
  read_notes();
  if (board_.size() >= bytes) return std::move(board_);
  if (board_.size() > 0) break_off(Code::malformed, fmt::format("the board of rank {} is too small", peer()));
  if (peer_closed_) break_off(Code::peer_gone, gone());
  if (failure_) return tl::unexpected(*failure_);
  return std::nullopt;
}

void ShmEndpoint::join_working() {
  listed = true;
  owner_.list(this);
}

Result<void> ShmEndpoint::refuse(const Slice& slice) const {
  if (!slice.within(owner_))
    return fail(Code::bad_usage, "the slice is not within a region registered with this transport", peer());
  return tl::unexpected(*failure_);
}

}  // namespace gradrail::shm
