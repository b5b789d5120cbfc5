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

VerbsEndpoint::VerbsEndpoint(VerbsTransport& owner, const Peer& peer, Connection connection, Fd lifeline)
    : Endpoint(peer.rank, peer.lane),
      owner_(owner),
      who_(fmt::format("rank {} on {}", peer.rank, peer.host)),
      landing_(*std::move(connection.landing)),
      links_(std::move(connection.links)),
      pairs_(std::move(connection.pairs)),
      other_(std::move(connection.other)),
      window_(connection.own.window),
      ring_bytes_(connection.own.ring_bytes),
      eager_bytes_(connection.own.eager_bytes),
      part_bytes_(connection.own.part_bytes),
      lifeline_(std::move(lifeline)),
      stripes_(pairs_.size()) {
  if (first().inline_bytes() < advert_bytes(other_.rails)) {
    const Device& device = first().device();
    auto registered = device.register_memory(notes_.get(), sizeof(Notes));
    if (registered) {
      notes_region_ = Registered(*registered, Deregister{&device.calls()});
    } else {
      failure_ = std::move(registered).error();
    }
  }
  owner_.enter(*this);
}

VerbsEndpoint::~VerbsEndpoint() {
  if (!failure_) drain();
  owner_.leave(*this);
  pairs_.clear();  // before the memory that they use
  gpus_.clear();   // waits for copies out of the landing area
}

// A send that went in line completes before the peer has it, and a queue pair that is destroyed sends nothing again.
void VerbsEndpoint::drain() {
  const auto until = Deadline::after(k_drain);
  bool moved = false;
  for (const auto& pair : pairs_) {
    bool last = false;
    while (!failure_ && !peer_closed_ && pair->acked() < pair->posted() && !until.passed()) {
      if (!last && pair->room() > 0)
        last = post(*pair, {.to = other_.landing, .remote_key = other_.landing_key, .complete = true});
      for (const auto& one : pairs_)
        if (one->poll([](std::uint32_t) {}, moved) != nullptr) return;
      check_life();
      ::sched_yield();
    }
  }
}

bool VerbsEndpoint::has(const ibv_qp* pair) const {
  return std::any_of(pairs_.begin(), pairs_.end(), [pair](const auto& one) { return one->id() == pair; });
}

bool VerbsEndpoint::uses(const Device& device) const {
  return std::any_of(pairs_.begin(), pairs_.end(), [&](const auto& one) { return &one->device() == &device; });
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
  for (const auto& pair : pairs_) pair->stop();
  ::shutdown(lifeline_.get(), SHUT_RDWR);  // so that the peer hears of it
}

void VerbsEndpoint::broke(const QueuePair& pair, const ibv_wc& completion) {
  const auto copy = completion;
  // A peer that has gone is the better reason, where both are known.
  char next;
  if (::recv(lifeline_.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
    return break_off(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_));
  owner_.take_events();
  if (failure_) return;
  const Device& device = pair.device();
  const auto& options = device.options();
  auto cause = cause_of(copy.status, copy.vendor_err,
                        {who_, device.where(), options.timeout, options.retry, device.port_note()});
  break_off(cause.code, std::move(cause.message));
}

void VerbsEndpoint::on_event(ibv_event_type event, const Device& device) {
  const auto meaning = meaning_of(event);
  if (!meaning.fatal) return;
  break_off(Code::system, fmt::format("{}, from {}: {} (event {}: {})", who_, device.where(), meaning.says,
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
  const bool nothing_whole = arrived_head_ == arrived_tail_ ||
                             (arrived_[arrived_head_ % k_parts].note == Note::placed && recvs_done_ < recvs_posted_ &&
                              !stripes_arrived(recvs_[recvs_done_ % k_depth].size));
  if (!failure_ && nothing_whole) break_off(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_));
}

bool VerbsEndpoint::prepare_to_sleep() {
  if (failure_) return false;
  for (const auto& pair : pairs_) pair->ask_notification();
  return progress() || copying();  // nobody wakes a sleeper when a copy ends
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
