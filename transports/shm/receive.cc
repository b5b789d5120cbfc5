// The receiving half of ShmEndpoint. One part of a message is open at a time: its bytes are where the line says, and
// are copied to the destination by progress(), or read there by the caller.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "transports/base/check.h"
#include "transports/base/copy_short.h"
#include "transports/shm/attach.h"
#include "transports/shm/endpoint.h"
#include "transports/shm/transport.h"

namespace gradrail::shm {
namespace {

// Bytes copied by one call of progress() for one endpoint, so that none starves the others.
constexpr std::size_t k_turn_bytes = 256 << 10;
// Of these through the kernel: a call costs more than a microsecond, so there are few of them.
constexpr std::size_t k_attached_turn_bytes = 1 << 20;
// Far longer than a peer that runs takes for the bytes that it writes at once.
constexpr Seconds k_withdrawn_within{0.5};

}  // namespace

inline Result<void> ShmEndpoint::post(const Recv& recv, const Slice* destination) {
  if (recvs_posted_ - recvs_done_ >= k_depth) [[unlikely]]
    return fail(Code::exhausted, fmt::format("{} receives from rank {} are outstanding", k_depth, peer()), peer());
  Recv& posted = recvs_[recvs_posted_ % k_depth];
  posted = recv;
  if (recv.size >= k_advertised_from) advertise(posted, destination);
  ++recvs_posted_;
  list();
  return {};
}

Result<void> ShmEndpoint::recv(Slice destination) {
  if (failure_ || !destination.within(owner_)) [[unlikely]]
    return refuse(destination);
  return post(Recv{destination.data(), destination.size}, &destination);
}

Result<void> ShmEndpoint::recv_in_place(std::size_t bytes) {
  if (failure_) [[unlikely]]
    return tl::unexpected(*failure_);
  return post(Recv{nullptr, bytes, true}, nullptr);
}

void ShmEndpoint::advertise(Recv& recv, const Slice* destination) {
  Advert& advert = in_->adverts[recvs_posted_ % k_depth];
  advert.bytes = recv.size;
  advert.region = 0;
  const ShmRegion* region = destination == nullptr ? nullptr : direct_region(*destination);
  if (region != nullptr) {
    if (announce(*region)) advert.region = region->number();
    advert.offset = destination->offset;
  } else if (destination != nullptr && recv.size >= k_attached_from && identity_.reads_us &&
             owner_.attaches(static_cast<const PlainRegion&>(*destination->region), {recv.data, recv.size})) {
    recv.plain = true;
    advert.region = Advert::k_plain;
    advert.offset = reinterpret_cast<std::uintptr_t>(recv.data);
  }
  advert.tag.store(recvs_posted_ + 1, std::memory_order_release);
}

void ShmEndpoint::withdraw() {
  bool asked = false;
  for (auto message = recvs_done_; message < recvs_posted_; ++message) {
    Recv& recv = recvs_[message % k_depth];
    if (!std::exchange(recv.plain, false)) continue;
    in_->adverts[message % k_depth].tag.store(0, std::memory_order_seq_cst);
    asked = true;
  }
  // A peer that is stopped has written what it was writing, as the kernel does not stop on its way, but for one that
  // was stopped between its look at the advert and its call.
  for (const auto limit = Deadline::after(k_withdrawn_within);
       asked && !peer_closed_ && in_->writing.message.load(std::memory_order_seq_cst) != 0 && !limit.passed();)
    ::sched_yield();
}

// Takes the next line up if it is there, for the oldest incomplete receive. A placed part is done with at once.
bool ShmEndpoint::open_part() {
  const Line& line = in_->lines[lines_read_ % k_lines];
  const std::uint64_t head = line.head.load(std::memory_order_acquire);
  if (!has_lap(head, lines_read_)) return false;
  part_kind_ = kind_of(head);
  if (part_kind_ != Part::in_line) return open_long_part(part_kind_, line);
  const std::size_t size = inline_bytes_of(head);
  const Recv& recv = recvs_[recvs_done_ % k_depth];
  if (size != recv.size || size > k_inline_bytes || received_ != 0) [[unlikely]] {
    break_off(Code::malformed,
              fmt::format("rank {} sent a message of {} bytes where {} were expected", peer(), size, recv.size));
    return false;
  }
  part_bytes_ = size;
  part_ = {line.payload, size};
  part_open_ = true;
  return true;
}

bool ShmEndpoint::open_long_part(Part kind, const Line& line) {
  PartNote note;
  std::memcpy(&note, line.payload, sizeof note);
  const Recv& recv = recvs_[recvs_done_ % k_depth];
  if (note.message_bytes != recv.size) {
    break_off(Code::malformed, fmt::format("rank {} sent a message of {} bytes where {} were expected", peer(),
                                           note.message_bytes, recv.size));
    return false;
  }
  bool sound = note.part_bytes > 0 && note.part_bytes <= recv.size - received_;
  const std::byte* at = nullptr;
  if (kind == Part::slot) {
    sound = sound && note.offset == ring_read_ % layout_.ring_bytes() &&
            note.part_bytes <= layout_.ring_bytes() - note.offset;
    at = in_ring_ + note.offset;
  } else if (kind == Part::view) {
    const Mapping* mapping = peer_region(note.region);
    if (failure_) return false;
    sound = sound && mapping != nullptr && note.offset <= mapping->size() &&
            note.part_bytes <= mapping->size() - note.offset;
    if (sound) at = mapping->data() + note.offset;
  } else if (kind == Part::attached) {
    sound = sound && identity_.reads_as != 0 && note.part_bytes == recv.size && note.offset <= SIZE_MAX - recv.size;
    foreign_ = note.offset;
    foreign_bytes_ = note.part_bytes;
  } else {
    sound = sound && kind == Part::placed && !recv.in_place && note.offset == received_;
  }
  if (!sound) {
    break_off(Code::malformed, fmt::format("rank {} described a part of a message that cannot be", peer()));
    return false;
  }
  if (kind == Part::placed) {
    received_ += note.part_bytes;
    release_line();
    if (received_ == recv.size) complete_message();
    return true;
  }
  part_bytes_ = note.part_bytes;
  part_ = {at, kind == Part::attached ? 0 : part_bytes_};
  part_open_ = true;
  return true;
}

// Reads the next bytes of an attached part; a failure is the endpoint's.
bool ShmEndpoint::fetch(std::span<std::byte> to) {
  if (const auto read = read_memory_of(identity_.reads_as, foreign_, to); !read) {
    if (read.error().code == Code::peer_gone)
      break_off(Code::peer_gone, gone());
    else
      break_off(read.error().code,
                fmt::format("reading a message of rank {} in its memory: {}", peer(), read.error().message));
    return false;
  }
  foreign_ += to.size();
  foreign_bytes_ -= to.size();
  return true;
}

// The next bytes of an attached part to where they can be read in place.
bool ShmEndpoint::fetch_some() {
  if (landing_ == nullptr) {
    landing_.reset(static_cast<std::byte*>(std::aligned_alloc(PipeLayout::k_page, landing_bytes_)));
    if (landing_ == nullptr) {
      break_off(Code::exhausted, "there is no memory to read messages in");
      return false;
    }
  }
  const std::span<std::byte> landing{landing_.get(), std::min(foreign_bytes_, landing_bytes_)};
  if (!fetch(landing)) return false;
  part_ = landing;
  return true;
}

void ShmEndpoint::release_line() {
  ++lines_read_;
  if (lines_read_ - lines_returned_ < k_lines / 4) return;
  lines_returned_ = lines_read_;
  in_->credits.lines.store(lines_returned_, std::memory_order_release);
}

void ShmEndpoint::take(std::size_t bytes) {
  part_ = part_.subspan(bytes);
  received_ += bytes;
  if (part_.empty() && (part_kind_ != Part::attached || foreign_bytes_ == 0)) close_part();
}

void ShmEndpoint::close_part() {
  part_open_ = false;
  if (part_kind_ == Part::slot) {
    ring_read_ += (part_bytes_ + k_line_bytes - 1) / k_line_bytes * k_line_bytes;
    if (ring_read_ - ring_returned_ >= layout_.slot_bytes / 2) {
      ring_returned_ = ring_read_;
      in_->credits.ring_bytes.store(ring_returned_, std::memory_order_release);
    }
  }
  release_line();
  if (received_ == recvs_[recvs_done_ % k_depth].size) complete_message();
}

void ShmEndpoint::complete_message() {
  received_ = 0;
  ++recvs_done_;
  if (part_kind_ == Part::view || part_kind_ == Part::attached)
    in_->credits.messages.store(recvs_done_, std::memory_order_release);
}

bool ShmEndpoint::receive() {
  bool moved = false;
  std::size_t turn = 0;
  while (recvs_done_ < recvs_posted_ && turn < k_turn_bytes && !failure_) {
    if (!part_open_) {
      if (!open_part()) break;
      moved = true;
      if (!part_open_) continue;
    }
    const Recv& one = recvs_[recvs_done_ % k_depth];
    if (part_kind_ == Part::attached && !one.in_place) {
      const std::size_t now = std::min(foreign_bytes_, k_attached_turn_bytes);
      if (!fetch({one.data + received_, now})) return true;
      received_ += now;
      turn += now;
      moved = true;
      if (foreign_bytes_ == 0) close_part();
      continue;
    }
    if (part_.empty() && one.size == 0) {
      close_part();
      continue;
    }
    if (one.in_place) break;  // the caller's
    const std::size_t now = std::min(part_.size(), k_turn_bytes - turn);
    if (part_kind_ == Part::in_line) {
      copy_short(one.data, part_.data(), now);
    } else {
      std::memcpy(one.data + received_, part_.data(), now);
    }
    take(now);
    turn += now;
    moved = true;
  }
  return moved;
}

std::span<const std::byte> ShmEndpoint::readable() {
  if (failure_ || recvs_done_ == recvs_posted_ || !recvs_[recvs_done_ % k_depth].in_place) return {};
  if (!part_open_ && !open_part()) return {};
  if (part_.empty() && part_kind_ == Part::attached && !fetch_some()) return {};
  return part_;
}

void ShmEndpoint::consume(std::size_t bytes) {
  GRADRAIL_CHECK(part_open_ && recvs_[recvs_done_ % k_depth].in_place &&
                 (bytes == part_.size() || (bytes < part_.size() && bytes % k_line_bytes == 0)));
  take(bytes);
}

}  // namespace gradrail::shm
