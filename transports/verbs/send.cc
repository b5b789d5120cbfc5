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
  sends_[sends_posted_++ % k_depth] = {source.data(), source.size,
                                       static_cast<const VerbsRegion*>(source.region)->local_key(rail_), 0};
  if (sends_issued_ + 1 == sends_posted_) transmit();
  if (sends_done_ < sends_issued_) settle();
  return {};
}

// True if the write was posted. What the device refuses ends the pipe.
bool VerbsEndpoint::post(const QueuePair::Write& write) {
  const int error = pair_->write(write);
  if (error == 0) return true;
  break_off(Code::system,
            fmt::format("{}, from {}: posting a write failed: {}", who_, device().where(), std::strerror(error)));
  return false;
}

bool VerbsEndpoint::transmit() {
  bool moved = false;
  while (sends_issued_ < sends_posted_ && !failure_ && pair_->room() > 0 && parts_sent_ - parts_credit_ < k_parts) {
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
      issued = advert.in_place != 0 ? transmit_part(send) : place(send, advert);
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
  const std::size_t now = std::min(left, part_bytes_);
  const auto extent = next_extent(ring_sent_, now, other_.ring_bytes);
  if (ring_sent_ + extent.taken - ring_credit_ > other_.ring_bytes) return false;
  const bool in_line = send.size <= pair_->inline_bytes();
  const bool last = now == left;
  if (!post({.from = send.data + issued_bytes_,
             .bytes = now,
             .local_key = send.key,
             .to = other_.landing + Landing::ring_at() + extent.offset,
             .remote_key = other_.landing_key,
             .immediate = immediate(last ? Note::last_part : Note::part, now),
             .complete = last && !in_line}))
    return false;
  ring_sent_ += extent.taken;
  ++parts_sent_;
  issued_bytes_ += now;
  if (!in_line) send.last_write = pair_->posted();
  traffic_[static_cast<std::size_t>(in_line ? Path::in_line : Path::one_copy)] += now;
  if (!last) return true;
  issued_bytes_ = 0;
  patience_ = 0;
  ++sends_issued_;
  return true;
}

// Writes straight to where the receiver wants the message, in as many writes as the device needs; the last one tells.
bool VerbsEndpoint::place(Send& send, const Advert& advert) {
  while (issued_bytes_ < send.size) {
    if (pair_->room() == 0) return false;
    const std::size_t left = send.size - issued_bytes_;
    const std::size_t now = std::min(left, pair_->largest_write());
    const bool last = now == left;
    QueuePair::Write write{.from = send.data + issued_bytes_,
                           .bytes = now,
                           .local_key = send.key,
                           .to = advert.address + issued_bytes_,
                           .remote_key = advert.key,
                           .complete = last};
    if (last) write.immediate = immediate(Note::placed, sends_issued_);
    if (!post(write)) return false;
    issued_bytes_ += now;
    traffic_[static_cast<std::size_t>(Path::zero_copy)] += now;
  }
  ++parts_sent_;
  send.last_write = pair_->posted();
  issued_bytes_ = 0;
  patience_ = 0;
  ++sends_issued_;
  return true;
}

void VerbsEndpoint::ask(const Send& send) {
  if (asked_for_ == sends_issued_ + 1 || pair_->room() == 0) return;
  notes_->question = {sends_issued_ + 1, send.size};
  if (post({.from = &notes_->question,
            .bytes = sizeof(Question),
            .local_key = notes_region_ != nullptr ? notes_region_->lkey : 0,
            .to = other_.landing + Landing::question_at(),
            .remote_key = other_.landing_key,
            .immediate = immediate(Note::question, sends_issued_)}))
    asked_for_ = sends_issued_ + 1;
}

bool VerbsEndpoint::settle() {
  const auto before = sends_done_;
  while (sends_done_ < sends_issued_ && sends_[sends_done_ % k_depth].last_write <= pair_->acked()) ++sends_done_;
  return sends_done_ != before;
}

bool VerbsEndpoint::send_notes() {
  const auto before = pair_->posted();
  while (adverts_sent_ < recvs_posted_ && !failure_ && send_advert(adverts_sent_)) ++adverts_sent_;
  if (!failure_ && owes_credit() && pair_->room() > 0 &&
      post({.to = other_.landing,
            .remote_key = other_.landing_key,
            .immediate = immediate(Note::credit, credit_value(parts_owed_, ring_owed_))})) {
    parts_owed_ = 0;
    ring_owed_ = 0;
  }
  return pair_->posted() != before;
}

bool VerbsEndpoint::send_advert(std::uint64_t number) {
  const Recv& recv = recvs_[number % k_depth];
  if (recv.size <= eager_bytes_) return true;
  if (pair_->room() == 0) return false;
  Advert& advert = notes_->adverts[number % k_depth];
  advert = {number + 1, recv.size, reinterpret_cast<std::uintptr_t>(recv.data), recv.key, recv.in_place ? 1U : 0U};
  return post({.from = &advert,
               .bytes = sizeof advert,
               .local_key = notes_region_ != nullptr ? notes_region_->lkey : 0,
               .to = other_.landing + Landing::advert_at(number),
               .remote_key = other_.landing_key,
               .immediate = immediate(Note::advert, number)});
}

}  // namespace gradrail::verbs
