// The sending half of ShmEndpoint. Six ways for the bytes of a message, by what is known when their turn comes:
//   up to 56 bytes                        in the line itself
//   from memory the peer can map          the line names it, the peer reads it there (k_view_from bytes and more)
//   into memory we can map, if posted     written there, the line says how much
//   k_attached_from bytes and more        likewise, through the kernel, where the peer's posted memory is plain
//   else these                            the line says where they are in our memory, the peer reads them there through
//                                         the kernel
//   otherwise                             through the slot ring
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/base/check.h"
#include "transports/base/copy_short.h"
#include "transports/shm/attach.h"
#include "transports/shm/endpoint.h"
#include "transports/shm/transport.h"

namespace gradrail::shm {
namespace {

constexpr std::size_t k_view_from = 2048;
// Bytes copied by one call of progress() for one endpoint, so that none starves the others.
constexpr std::size_t k_turn_bytes = 256 << 10;
// Of these through the kernel: a call costs more than a microsecond.
constexpr std::size_t k_written_bytes = 512 << 10;
// A message produced in place waits for its receive to be posted, as it then may go straight there: a shorter one not
// at all, a longer one for this many looks.
constexpr std::size_t k_eager_bytes = 8 << 10;
constexpr std::uint32_t k_patience = 512;

constexpr std::size_t round_up(std::size_t bytes) { return (bytes + k_line_bytes - 1) / k_line_bytes * k_line_bytes; }

}  // namespace

Result<void> ShmEndpoint::send(Slice source) {
  if (failure_ || !source.within(owner_)) [[unlikely]]
    return refuse(source);
  // The short way, which decides the latency: nothing is ahead, and the line takes it all.
  if (source.size <= k_inline_bytes && sends_issued_ == sends_posted_ && sends_posted_ - sends_done_ < k_depth &&
      line_free()) [[likely]] {
    publish_inline(source.data(), source.size);
    traffic_[static_cast<std::size_t>(Path::in_line)] += source.size;
    const bool completes = sends_done_ == sends_posted_;
    if (!completes) sends_[sends_posted_ % k_depth] = Send{};  // behind a viewed message, which completes first
    sends_done_ += completes ? 1 : 0;
    sends_issued_ = ++sends_posted_;
    return {};
  }
  Send one{source.data(), source.size, direct_region(source), source.offset};
  one.attached = one.region == nullptr && source.size >= attached_from_ &&
                 owner_.attaches(static_cast<const PlainRegion&>(*source.region), {one.data, one.size});
  return post(one);
}

Result<void> ShmEndpoint::send_copied(Slice source) {
  if (failure_ || !source.within(owner_)) [[unlikely]]
    return refuse(source);
  if (source.size <= k_inline_bytes) return send(source);
  return post(Send{source.data(), source.size, direct_region(source), source.offset});
}

Result<void> ShmEndpoint::send_in_place(std::size_t bytes) {
  if (failure_) [[unlikely]]
    return tl::unexpected(*failure_);
  Send send;
  send.size = bytes;
  send.in_place = true;
  return post(send);
}

Result<void> ShmEndpoint::post(const Send& send) {
  if (sends_posted_ - sends_done_ >= k_depth) {
    settle();
    if (sends_posted_ - sends_done_ >= k_depth)
      return fail(Code::exhausted, fmt::format("{} sends to rank {} are outstanding", k_depth, peer()), peer());
  }
  const bool first = sends_issued_ == sends_posted_;
  sends_[sends_posted_++ % k_depth] = send;
  // Leaves before the caller turns to anything else. A longer one waits for progress(), so that posting stays quick.
  if (first && !send.in_place && send.size <= k_eager_bytes) {
    transmit();
    settle();
    if (sends_done_ == sends_posted_) return {};
  }
  list();
  return {};
}

bool ShmEndpoint::line_free() {
  if (lines_sent_ - lines_credit_ < k_lines) [[likely]]
    return true;
  lines_credit_ = out_->credits.lines.load(std::memory_order_acquire);
  return lines_sent_ - lines_credit_ < k_lines;
}

// Bytes that may be written at the ring's head: at most `wanted` and a slot, contiguous, a multiple of 64 unless all of
// `wanted`. Zero rather than a sliver: less than half a slot only where nothing more is wanted or the ring ends.
std::size_t ShmEndpoint::ring_room(std::size_t wanted) {
  const std::size_t ring = layout_.ring_bytes();
  const std::size_t to_end = ring - ring_sent_ % ring;
  const std::size_t want = std::min({wanted, layout_.slot_bytes, to_end});
  const std::size_t least = std::min(want, layout_.slot_bytes / 2 / k_line_bytes * k_line_bytes);
  if (ring - (ring_sent_ - ring_credit_) < want)
    ring_credit_ = out_->credits.ring_bytes.load(std::memory_order_acquire);
  const std::size_t room = std::min<std::size_t>(want, ring - (ring_sent_ - ring_credit_));
  return room < least ? 0 : room;
}

ShmEndpoint::Target ShmEndpoint::target(const Send& send) {
  constexpr Target closed{Target::Kind::closed};
  if (send.size < k_advertised_from) return closed;
  const Advert& advert = out_->adverts[sends_issued_ % k_depth];
  if (advert.tag.load(std::memory_order_acquire) != sends_issued_ + 1) return {};
  if (advert.region == 0 || advert.bytes != send.size) return closed;
  if (advert.region == Advert::k_plain)
    return identity_.reads_as == 0 ? closed : Target{Target::Kind::foreign, nullptr, advert.offset};
  const Mapping* mapping = peer_region(advert.region);
  if (mapping == nullptr || advert.offset > mapping->size() || send.size > mapping->size() - advert.offset)
    return closed;
  return {Target::Kind::direct, mapping->data() + advert.offset};
}

// The next bytes of message sends_issued_ into the peer's plain memory; how many were.
std::size_t ShmEndpoint::write_there(const Target& to, std::span<const std::byte> bytes) {
  bytes = bytes.first(std::min(bytes.size(), k_written_bytes));
  out_->writing.message.store(sends_issued_ + 1, std::memory_order_seq_cst);
  const bool stands = out_->adverts[sends_issued_ % k_depth].tag.load(std::memory_order_seq_cst) == sends_issued_ + 1;
  const auto written = stands ? write_memory_of(identity_.reads_as, to.address + issued_bytes_, bytes) : Result<void>{};
  out_->writing.message.store(0, std::memory_order_release);
  if (!stands) return 0;  // the peer waits for nothing any more
  if (!written) {
    if (written.error().code == Code::peer_gone)
      break_off(Code::peer_gone, gone());
    else
      break_off(written.error().code,
                fmt::format("writing a message into the memory of rank {}: {}", peer(), written.error().message));
    return 0;
  }
  publish_part(Part::placed, bytes.size(), issued_bytes_, 0);
  issued(bytes.size(), Path::attached);
  return bytes.size();
}

void ShmEndpoint::publish_inline(const std::byte* data, std::size_t size) {
  Line& line = out_->lines[lines_sent_ % k_lines];
  copy_short(line.payload, data, size);
  line.head.store(make_head(lines_sent_, Part::in_line, size), std::memory_order_release);
  ++lines_sent_;
}

void ShmEndpoint::publish_part(Part kind, std::size_t bytes, std::uint64_t offset, std::uint32_t region) {
  Line& line = out_->lines[lines_sent_ % k_lines];
  const PartNote note{sends_[sends_issued_ % k_depth].size, bytes, offset, region, 0};
  std::memcpy(line.payload, &note, sizeof note);
  line.head.store(make_head(lines_sent_, kind, 0), std::memory_order_release);
  ++lines_sent_;
}

// `bytes` of message sends_issued_ have been handed over.
void ShmEndpoint::issued(std::size_t bytes, Path path) {
  traffic_[static_cast<std::size_t>(path)] += bytes;
  issued_bytes_ += bytes;
  if (issued_bytes_ < sends_[sends_issued_ % k_depth].size) return;
  issued_bytes_ = 0;
  patience_ = 0;
  ++sends_issued_;
}

bool ShmEndpoint::settle() {
  const auto before = sends_done_;
  while (sends_done_ < sends_issued_) {
    if (sends_[sends_done_ % k_depth].viewed && messages_credit_ <= sends_done_) {
      messages_credit_ = out_->credits.messages.load(std::memory_order_acquire);
      if (messages_credit_ <= sends_done_) break;
    }
    ++sends_done_;
  }
  return sends_done_ != before;
}

bool ShmEndpoint::transmit() {
  bool moved = false;
  std::size_t turn = 0;
  while (sends_issued_ < sends_posted_ && turn < k_turn_bytes && !failure_) {
    Send& one = sends_[sends_issued_ % k_depth];
    if ((one.in_place && one.size > 0) || !line_free()) break;
    const auto line = lines_sent_;
    if (!transmit_part(one)) break;
    moved = true;
    // A view costs nothing here; the receiver pays.
    if (lines_sent_ != line && !one.viewed) turn += std::min(one.size, layout_.slot_bytes);
  }
  return moved;
}

bool ShmEndpoint::transmit_part(Send& send) {
  if (send.size <= k_inline_bytes) {
    publish_inline(send.data, send.size);
    issued(send.size, Path::in_line);
    return true;
  }
  if (send.region != nullptr && send.size >= k_view_from && issued_bytes_ == 0 && announce(*send.region)) {
    send.viewed = true;
    publish_part(Part::view, send.size, send.region_offset, send.region->number());
    issued(send.size, Path::zero_copy);
    return true;
  }
  const std::byte* from = send.data + issued_bytes_;
  const std::size_t left = send.size - issued_bytes_;
  const auto to = target(send);
  if (to.kind == Target::Kind::direct) {
    const std::size_t now = std::min(left, layout_.slot_bytes);
    std::memcpy(to.data + issued_bytes_, from, now);
    publish_part(Part::placed, now, issued_bytes_, 0);
    issued(now, Path::zero_copy);
    return true;
  }
  if (to.kind == Target::Kind::foreign) return write_there(to, {from, left}) > 0;
  if (send.attached && issued_bytes_ == 0) {
    send.viewed = true;
    publish_part(Part::attached, send.size, reinterpret_cast<std::uintptr_t>(send.data), 0);
    issued(send.size, Path::attached);
    return true;
  }
  const std::size_t room = ring_room(left);
  if (room == 0) return false;
  const std::uint64_t offset = ring_sent_ % layout_.ring_bytes();
  std::memcpy(out_ring_ + offset, from, room);
  publish_part(Part::slot, room, offset, 0);
  ring_sent_ += round_up(room);
  issued(room, Path::one_copy);
  return true;
}

std::span<std::byte> ShmEndpoint::writable() {
  if (failure_ || sends_issued_ == sends_posted_) return {};
  if (!given_.empty()) return given_;
  const Send& one = sends_[sends_issued_ % k_depth];
  if (!one.in_place || one.size == 0 || !line_free()) return {};
  const std::size_t left = one.size - issued_bytes_;
  if (one.size <= k_inline_bytes) {
    given_kind_ = Part::in_line;
    given_ = std::span(small_).first(left);
    return given_;
  }
  const auto to = target(one);
  if (failure_) return {};
  if (to.kind == Target::Kind::direct) {
    given_kind_ = Part::placed;
    given_ = {to.data + issued_bytes_, left};
    return given_;
  }
  if (to.kind == Target::Kind::unknown && one.size > k_eager_bytes && patience_ < k_patience) {
    ++patience_;
    return {};
  }
  given_kind_ = Part::slot;
  given_ = {out_ring_ + ring_sent_ % layout_.ring_bytes(), ring_room(left)};
  return given_;
}

std::size_t ShmEndpoint::offer(std::span<const std::byte> bytes) {
  if (!failure_ && sends_issued_ < sends_posted_ && given_.empty()) {
    const Send& one = sends_[sends_issued_ % k_depth];
    if (one.in_place && one.size >= k_attached_from && line_free())
      if (const auto to = target(one); to.kind == Target::Kind::foreign) {
        const std::size_t sent = write_there(to, bytes);
        settle();
        return sent;
      }
  }
  return Endpoint::offer(bytes);
}

void ShmEndpoint::commit(std::size_t bytes) {
  GRADRAIL_CHECK(bytes <= given_.size() &&
                 (bytes % k_line_bytes == 0 || issued_bytes_ + bytes == sends_[sends_issued_ % k_depth].size));
  given_ = {};
  if (bytes == 0) return;
  switch (given_kind_) {
    case Part::in_line:
      publish_inline(small_.data(), bytes);
      issued(bytes, Path::in_line);
      break;
    case Part::placed:
      publish_part(Part::placed, bytes, issued_bytes_, 0);
      issued(bytes, Path::zero_copy);
      break;
    default:
      publish_part(Part::slot, bytes, ring_sent_ % layout_.ring_bytes(), 0);
      ring_sent_ += round_up(bytes);
      issued(bytes, Path::one_copy);
      break;
  }
  settle();
}

}  // namespace gradrail::shm
