#include "transports/verbs/endpoint.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"
#include "transports/socket.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

// How long a pipe that is given up waits for the peer's device to acknowledge what was sent.
constexpr Seconds k_drain{2};

}  // namespace

VerbsEndpoint::VerbsEndpoint(VerbsTransport& owner, const Peer& peer, std::size_t rail, std::unique_ptr<QueuePair> pair,
                             const Introduction& own, const Introduction& other, Fd lifeline)
    : Endpoint(peer.rank, peer.lane),
      owner_(owner),
      who_(fmt::format("rank {} on {}", peer.rank, peer.host)),
      rail_(rail),
      pair_(std::move(pair)),
      other_(other),
      ring_bytes_(own.ring_bytes),
      eager_bytes_(own.eager_bytes),
      part_bytes_(own.part_bytes),
      lifeline_(std::move(lifeline)) {
  if (pair_->inline_bytes() < sizeof(Advert)) {
    auto registered = pair_->device().register_memory(notes_.get(), sizeof(Notes));
    if (registered) {
      notes_region_ = *registered;
    } else {
      failure_ = std::move(registered).error();
    }
  }
  owner_.enter(*this);
}

VerbsEndpoint::~VerbsEndpoint() {
  if (!failure_) drain();
  owner_.leave(*this);
  Calls& calls = device().calls();
  pair_.reset();
  if (notes_region_ != nullptr) calls.dereg_mr(notes_region_);
}

// A send that went in line completes before the peer has it, and a queue pair that is destroyed sends nothing again.
void VerbsEndpoint::drain() {
  const auto until = Deadline::after(k_drain);
  bool last = false;
  bool moved = false;
  while (!failure_ && !peer_closed_ && pair_->acked() < pair_->posted() && !until.passed()) {
    if (!last && pair_->room() > 0)
      last = post({.to = other_.landing, .remote_key = other_.landing_key, .complete = true});
    if (pair_->poll([](std::uint32_t) {}, moved) != nullptr) return;
    check_life();
    ::sched_yield();
  }
}

Result<void> VerbsEndpoint::refuse(const Slice& slice) const {
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (!slice.within(owner_))
    return fail(Code::bad_usage, "an operation on memory that is not registered with this transport", peer());
  return {};
}

void VerbsEndpoint::break_off(Code code, std::string message) {
  if (failure_) return;
  failure_ = Error{code, std::move(message), peer(), 0};
  pair_->stop();
  ::shutdown(lifeline_.get(), SHUT_RDWR);  // so that the peer hears of it
}

void VerbsEndpoint::broke(const ibv_wc& completion) {
  const auto copy = completion;
  // A peer that has gone is the better reason, where both are known.
  char next;
  if (::recv(lifeline_.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
    return break_off(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_));
  owner_.take_events();
  if (failure_) return;
  const auto& options = device().options();
  auto cause = cause_of(copy.status, copy.vendor_err,
                        {who_, device().where(), options.timeout, options.retry, device().port_note()});
  break_off(cause.code, std::move(cause.message));
}

void VerbsEndpoint::on_event(ibv_event_type event) {
  const auto meaning = meaning_of(event);
  if (!meaning.fatal) return;
  break_off(Code::system, fmt::format("{}, from {}: {} (event {}: {})", who_, device().where(), meaning.says,
                                      static_cast<int>(event), name_of(event)));
}

void VerbsEndpoint::check_life() {
  if (failure_) return;
  if (!peer_closed_) {
    char next;
    const auto got = ::recv(lifeline_.get(), &next, 1, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && not_ready(errno))) {
      poll();  // an idle pipe's device may have given up
      return;
    }
    peer_closed_ = true;
  }
  // What its device acknowledged before is here, and still good.
  while (poll()) {
  }
  if (!failure_ && arrived_head_ == arrived_tail_)
    break_off(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_));
}

bool VerbsEndpoint::prepare_to_sleep() {
  if (failure_) return false;
  pair_->ask_notification();
  return progress();
}

bool VerbsEndpoint::progress() {
  if (failure_) return false;
  bool moved = poll();
  if (recvs_done_ < recvs_posted_) moved |= receive();
  if (adverts_sent_ < recvs_posted_ || owes_credit()) moved |= send_notes();
  if (sends_issued_ < sends_posted_) moved |= transmit();
  if (sends_done_ < sends_issued_) moved |= settle();
  if (peer_closed_) check_life();
  return moved;
}

}  // namespace gradrail::verbs
