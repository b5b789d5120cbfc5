// The receiving half of VerbsEndpoint.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/base/check.h"
#include "transports/verbs/endpoint.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

// Bytes copied by one call of progress() for one endpoint, so that none starves the others.
constexpr std::size_t k_turn_bytes = 256 << 10;

}  // namespace

Result<void> VerbsEndpoint::post(const Recv& recv) {
  if (recvs_posted_ - recvs_done_ == k_depth)
    return fail(Code::exhausted, fmt::format("{} receives from {} are outstanding already", k_depth, who_), peer());
  recvs_[recvs_posted_++ % k_depth] = recv;
  if (adverts_sent_ + 1 == recvs_posted_) send_notes();
  return {};
}

Result<void> VerbsEndpoint::recv(Slice destination) {
  if (failure_ || !destination.within(owner_)) [[unlikely]]
    return refuse(destination);
  const auto* const region = static_cast<const VerbsRegion*>(destination.region);
  Incoming* copies = nullptr;
  if (region->gpu() != nullptr) [[unlikely]] {
    GRADRAIL_ASSIGN(copies, incoming(*region->gpu()));
  }
  return post(Recv{destination.data(), destination.size, region, copies});
}

Result<void> VerbsEndpoint::recv_in_place(std::size_t bytes) {
  if (failure_) [[unlikely]]
    return tl::unexpected<Error>(*failure_);
  return post(Recv{nullptr, bytes, nullptr, nullptr});
}

bool VerbsEndpoint::poll() {
  if (failure_) return false;
  bool moved = false;
  if (const auto* broken = first().poll([this](std::uint32_t immediate) { on_arrival(immediate); }, moved))
    broke(first(), *broken);
  for (std::size_t i = 1; i < pairs_.size() && !failure_; ++i)
    if (const auto* broken = pairs_[i]->poll([this, i](std::uint32_t immediate) { on_stripe(i, immediate); }, moved))
      broke(*pairs_[i], *broken);
  return moved && !failure_;
}

void VerbsEndpoint::on_stripe(std::size_t pair, std::uint32_t immediate) {
  Stripe& stripe = stripes_[pair];
  if (note_of(immediate) != Note::placed || stripe.arrived - stripe.taken == window_)
    return break_off(Code::malformed, fmt::format("{} sent what does not belong on queue pair {}", who_, pair));
  ++stripe.arrived;
}

// Of the oldest message, which is of so many bytes; that of the first queue pair is taken for granted.
bool VerbsEndpoint::stripes_arrived(std::size_t bytes) const {
  const std::size_t stripes = stripes_of(bytes, pairs_.size());
  for (std::size_t index = 1; index < stripes; ++index)
    if (stripes_[index].arrived == stripes_[index].taken) return false;
  return true;
}

void VerbsEndpoint::on_arrival(std::uint32_t immediate) {
  const auto value = value_of(immediate);
  switch (note_of(immediate)) {
    case Note::part:
    case Note::last_part:
    case Note::placed:
      if (arrived_tail_ - arrived_head_ == window_)
        return break_off(Code::malformed, fmt::format("{} sent more than it was allowed to", who_));
      arrived_[arrived_tail_++ % k_parts] = {note_of(immediate), value};
      return;
    case Note::advert:
      // Its number in full is in the advert, but that is only looked at once message and advert meet.
      advert_here_[value % k_depth] = (value + 1) & k_value_mask;
      return;
    case Note::credit:
      parts_credit_ += credited_parts(value);
      ring_credit_ += credited_bytes(value);
      if (parts_credit_ > parts_sent_ || ring_credit_ > ring_sent_)
        break_off(Code::malformed, fmt::format("{} gave back more than it was sent", who_));
      return;
    case Note::question: {
      Question asked;
      std::memcpy(&asked, landing_.data() + Landing::question_at(), sizeof asked);
      question_ = asked;
      return;
    }
  }
  break_off(Code::malformed, fmt::format("{} sent a note of an unknown kind", who_));
}

void VerbsEndpoint::wrong_size(std::uint64_t sent, std::size_t expected) {
  break_off(
      Code::malformed,
      fmt::format("{} sent {} bytes as message {} where {} were to be received; both sides must name the same size",
                  who_, sent, recvs_done_, expected));
}

void VerbsEndpoint::answer_question() {
  const std::uint64_t number = question_->number - 1;
  if (number >= recvs_posted_) return;  // later
  if (number == recvs_done_ && recvs_[number % k_depth].size != question_->bytes)
    return wrong_size(question_->bytes, recvs_[number % k_depth].size);
  if (number <= recvs_done_) question_.reset();
}

// Whether what has arrived can be (the next part of) the oldest message, of which received_ + `ahead` bytes have come
// before it; ends the pipe if not.
bool VerbsEndpoint::fits(const Arrived& part, std::size_t ahead) {
  const Recv& recv = recvs_[recvs_done_ % k_depth];
  if (part.note == Note::placed) {
    if (recv.size > eager_bytes_ && !recv.by_ring() && received_ + ahead == 0 &&
        part.value == (recvs_done_ & k_value_mask))
      return true;
    break_off(Code::malformed, fmt::format("{} placed message {} where {} was due", who_, part.value, recvs_done_));
    return false;
  }
  const std::uint64_t total = received_ + ahead + part.value;
  if (part.value > part_bytes_ || (part.note == Note::last_part ? total != recv.size : total >= recv.size)) {
    wrong_size(total, recv.size);
    return false;
  }
  return true;
}

bool VerbsEndpoint::receive() {
  bool moved = false;
  std::size_t turn = 0;
  while (recvs_done_ < recvs_posted_ && arrived_head_ != arrived_tail_ && turn < k_turn_bytes && !failure_) {
    const Recv& recv = recvs_[recvs_done_ % k_depth];
    const Arrived part = arrived_[arrived_head_ % k_parts];
    if (taken_ == 0 && !fits(part)) return moved;
    if (part.note == Note::placed) {
      if (!stripes_arrived(recv.size)) break;
      if (recv.region->gpu() != nullptr && !flush(*recv.region->gpu())) break;
      for (std::size_t index = stripes_of(recv.size, pairs_.size()); --index > 0;) ++stripes_[index].taken;
      give_back(0);
      ++recvs_done_;
      moved = true;
      continue;
    }
    if (recv.in_place() && recv.size > 0) break;  // the caller's
    if (recv.copies != nullptr) {
      if (!copy_in(recv)) break;
      moved = true;
      continue;
    }
    const auto extent = next_extent(ring_read_, part.value, ring_bytes_);
    const std::size_t now = std::min<std::size_t>(part.value - taken_, k_turn_bytes - turn);
    if (now > 0) std::memcpy(recv.data + received_, landing_.data() + Landing::ring_at() + extent.offset + taken_, now);
    turn += now;
    moved = true;
    take(now);
  }
  if (question_ && !failure_ && arrived_head_ == arrived_tail_) answer_question();
  return moved;
}

// `bytes` more of the oldest part have been read.
void VerbsEndpoint::take(std::size_t bytes) {
  const Arrived part = arrived_[arrived_head_ % k_parts];
  taken_ += bytes;
  received_ += bytes;
  if (taken_ < part.value) return;
  const auto extent = next_extent(ring_read_, part.value, ring_bytes_);
  ring_read_ += extent.taken;
  taken_ = 0;
  give_back(extent.taken);
  if (part.note != Note::last_part) return;
  received_ = 0;
  ++recvs_done_;
}

void VerbsEndpoint::give_back(std::uint64_t ring_taken) {
  ++arrived_head_;
  ++parts_owed_;
  ring_owed_ += ring_taken;
  if (owes_credit()) send_notes();
}

std::span<const std::byte> VerbsEndpoint::readable() {
  if (failure_ || recvs_done_ == recvs_posted_ || arrived_head_ == arrived_tail_) return {};
  const Recv& recv = recvs_[recvs_done_ % k_depth];
  if (!recv.in_place() || recv.size == 0) return {};
  const Arrived part = arrived_[arrived_head_ % k_parts];
  if (taken_ == 0 && !fits(part)) return {};
  const auto extent = next_extent(ring_read_, part.value, ring_bytes_);
  return {landing_.data() + Landing::ring_at() + extent.offset + taken_, part.value - taken_};
}

void VerbsEndpoint::consume(std::size_t bytes) {
  if (bytes == 0) return;
  const auto there = readable();
  GRADRAIL_CHECK(bytes <= there.size() && (bytes == there.size() || bytes % k_grain == 0));
  take(bytes);
}

}  // namespace gradrail::verbs
