// The sending half of VerbsEndpoint, and the notes that either half sends.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/verbs/endpoint.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

// A long message whose advert has not come for this long is asked about: the receiver may expect a short one.
constexpr auto k_patience = std::chrono::milliseconds(50);
constexpr std::uint32_t k_looks_at_clock = 64;

}  // namespace

Result<void> VerbsEndpoint::send(Slice source) {
  if (failure_ || !source.within(owner_)) [[unlikely]]
    return refuse(source);
  if (sends_posted_ - sends_done_ == k_depth) {
    poll();
    settle();
    if (failure_) return tl::unexpected<Error>(*failure_);
    if (sends_posted_ - sends_done_ == k_depth)
      return fail(Code::exhausted, fmt::format("{} sends to {} are outstanding already", k_depth, who_), peer());
  }
  const auto* const region = static_cast<const VerbsRegion*>(source.region);
  Outgoing* staging = nullptr;
  if (!region->direct()) [[unlikely]] {
    GRADRAIL_ASSIGN(staging, outgoing(*region->gpu()));
  }
  sends_[sends_posted_++ % k_depth] = {source.data(), source.size, region, staging};
  if (sends_issued_ + 1 == sends_posted_) transmit();
  if (sends_done_ < sends_issued_) settle();
  return {};
}

// True if the write was posted. What the device refuses ends the pipe.
bool VerbsEndpoint::post(QueuePair& pair, const QueuePair::Write& write) {
  const int error = pair.write(write);
  if (error == 0) return true;
  break_off(Code::system,
            fmt::format("{}, from {}: posting a write failed: {}", who_, pair.device().where(), std::strerror(error)));
  return false;
}

bool VerbsEndpoint::transmit() {
  bool moved = !gpus_.empty() && stage();
  while (sends_issued_ < sends_posted_ && !failure_ && first().room() > 0 &&
         parts_sent_ - parts_credit_ < other_.window) {
    Send& send = sends_[sends_issued_ % k_depth];
    bool issued = false;
    if (send.size <= eager_bytes_) {
      issued = transmit_part(send);
    } else if (advert_here_[sends_issued_ % k_depth] == ((sends_issued_ + 1) & k_value_mask)) {
      const Advert advert = advert_of(sends_issued_);
      if (advert.bytes != send.size) {
        ask(send);
        break;
      }
      issued = advert.in_place != 0      ? transmit_part(send)
               : send.staging != nullptr ? place_staged(send, advert)
                                         : place(send, advert);
    } else if (patience_++ % k_looks_at_clock == 0) {
      const auto now = Clock::now();
      if (patience_ == 1) waiting_since_ = now;
      if (now - waiting_since_ > k_patience) ask(send);
    }
    if (!issued) break;
    moved = true;
  }
  return moved;
}

// The next part of the oldest message into the peer's ring; false if there is no room.
bool VerbsEndpoint::transmit_part(Send& send) {
  const std::size_t left = send.size - issued_bytes_;
  const std::byte* from = send.data + issued_bytes_;
  std::size_t now = std::min(left, part_bytes_);
  if (send.staging != nullptr) {
    const auto ready = send.staging->ready();
    if (ready.empty() && left > 0) return false;
    from = ready.data();
    now = std::min(now, ready.size());
  }
  const auto extent = next_extent(ring_sent_, now, other_.ring_bytes);
  if (ring_sent_ + extent.taken - ring_credit_ > other_.ring_bytes) return false;
  QueuePair& pair = first();
  const bool out_of_line = send.region->gpu() != nullptr && send.staging == nullptr;
  const bool in_line = send.size <= pair.inline_bytes() && !out_of_line;
  const bool last = now == left;
  if (!post(pair, {.from = from,
                   .bytes = now,
                   .local_key =
                       send.staging != nullptr ? send.staging->key(pair.rail()) : send.region->local_key(pair.rail()),
                   .to = other_.landing + Landing::ring_at() + extent.offset,
                   .remote_key = other_.landing_key,
                   .immediate = immediate(last ? Note::last_part : Note::part, now),
                   .complete = (last || send.staging != nullptr) && !in_line,
                   .out_of_line = out_of_line}))
    return false;
  if (send.staging != nullptr && now > 0) send.staging->sent(now, in_line ? nullptr : &pair);
  ring_sent_ += extent.taken;
  ++parts_sent_;
  issued_bytes_ += now;
  if (!in_line) send.last_write = pair.posted();
  traffic_[static_cast<std::size_t>(in_line ? Path::in_line : Path::one_copy)] += now;
  if (!last) return true;
  issued_bytes_ = 0;
  patience_ = 0;
  ++sends_issued_;
  return true;
}

// Writes straight to where the receiver wants the message: a stripe over each queue pair, in as many writes as the
// device needs; the last one of each tells.
bool VerbsEndpoint::place(Send& send, const Advert& advert) {
  const std::size_t stripes = stripes_of(send.size, pairs_.size());
  bool whole = true;
  for (std::size_t index = 0; index < stripes && !failure_; ++index)
    whole &= place_stripe(send, advert, index, stripes);
  if (!whole || failure_) return false;
  for (std::size_t index = 0; index < stripes; ++index) {
    stripes_[index].placed_bytes = 0;
    stripes_[index].last_write[sends_issued_ % k_depth] = pairs_[index]->posted();
  }
  placed(send, stripes, Path::zero_copy);
  return true;
}

// The last write of each stripe of the oldest message is posted.
void VerbsEndpoint::placed(Send& send, std::size_t stripes, Path path) {
  send.last_write = stripes_.front().last_write[sends_issued_ % k_depth];
  send.stripes = stripes;
  traffic_[static_cast<std::size_t>(path)] += send.size;
  ++parts_sent_;
  patience_ = 0;
  ++sends_issued_;
}

// True once the stripe is posted whole.
bool VerbsEndpoint::place_stripe(const Send& send, const Advert& advert, std::size_t index, std::size_t stripes) {
  QueuePair& pair = *pairs_[index];
  std::size_t& placed = stripes_[index].placed_bytes;
  const std::size_t begin = stripe_at(send.size, stripes, index);
  const std::size_t size = stripe_at(send.size, stripes, index + 1) - begin;
  while (placed < size) {
    if (pair.room() == 0) return false;
    const std::size_t now = std::min(size - placed, pair.largest_write());
    const bool last = placed + now == size;
    QueuePair::Write write{.from = send.data + begin + placed,
                           .bytes = now,
                           .local_key = send.region->local_key(pair.rail()),
                           .to = advert.address + begin + placed,
                           .remote_key = advert.keys[other_.pairs[index].rail],
                           .complete = last,
                           .out_of_line = send.region->gpu() != nullptr};
    if (last) write.immediate = immediate(Note::placed, sends_issued_);
    if (!post(pair, write)) return false;
    placed += now;
  }
  return true;
}

void VerbsEndpoint::ask(const Send& send) {
  if (asked_for_ == sends_issued_ + 1 || first().room() == 0) return;
  notes_->question = {sends_issued_ + 1, send.size};
  if (post(first(), {.from = &notes_->question,
                     .bytes = sizeof(Question),
                     .local_key = notes_region_ ? notes_region_->lkey : 0,
                     .to = other_.landing + Landing::question_at(),
                     .remote_key = other_.landing_key,
                     .immediate = immediate(Note::question, sends_issued_)}))
    asked_for_ = sends_issued_ + 1;
}

bool VerbsEndpoint::acknowledged(const Send& send) const {
  if (send.last_write > first().acked()) return false;
  for (std::size_t index = 1; index < send.stripes; ++index)
    if (stripes_[index].last_write[sends_done_ % k_depth] > pairs_[index]->acked()) return false;
  return true;
}

bool VerbsEndpoint::settle() {
  const auto before = sends_done_;
  while (sends_done_ < sends_issued_ && acknowledged(sends_[sends_done_ % k_depth])) ++sends_done_;
  return sends_done_ != before;
}

bool VerbsEndpoint::send_notes() {
  const auto before = first().posted();
  while (adverts_sent_ < recvs_posted_ && !failure_ && send_advert(adverts_sent_)) ++adverts_sent_;
  if (!failure_ && owes_credit() && first().room() > 0 &&
      post(first(), {.to = other_.landing,
                     .remote_key = other_.landing_key,
                     .immediate = immediate(Note::credit, credit_value(parts_owed_, ring_owed_))})) {
    parts_owed_ = 0;
    ring_owed_ = 0;
  }
  return first().posted() != before;
}

bool VerbsEndpoint::send_advert(std::uint64_t number) {
  const Recv& recv = recvs_[number % k_depth];
  if (recv.size <= eager_bytes_) return true;
  if (first().room() == 0 || number - recvs_done_ >= other_.window) return false;
  const std::size_t rails = other_.rails;  // as many as on this side
  Advert& advert = notes_->adverts[number % k_depth];
  advert = {number + 1, recv.size, reinterpret_cast<std::uintptr_t>(recv.data), recv.by_ring() ? 1U : 0U, {}};
  for (std::size_t rail = 0; rail < rails && !recv.by_ring(); ++rail) advert.keys[rail] = recv.region->remote_key(rail);
  return post(first(), {.from = &advert,
                        .bytes = advert_bytes(rails),
                        .local_key = notes_region_ ? notes_region_->lkey : 0,
                        .to = other_.landing + Landing::advert_at(number),
                        .remote_key = other_.landing_key,
                        .immediate = immediate(Note::advert, number)});
}

}  // namespace gradrail::verbs
