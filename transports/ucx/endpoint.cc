#include "transports/ucx/endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transports/base/check.h"
#include "transports/socket.h"
#include "transports/ucx/transport.h"

namespace gradrail::ucx {
namespace {

constexpr std::size_t k_landing_bytes = 2 * k_fragment_bytes;
// How long what a peer sent before it closed the pipe may still be under way, with nothing of it arriving.
constexpr Seconds k_late{2};

// Calls of UCX in which what has arrived before a peer's end is taken.
constexpr int k_last_calls = 1000;

constexpr std::size_t rounded(std::size_t bytes) { return (bytes + k_grain - 1) / k_grain * k_grain; }

ucp_request_param_t how_to_move(const UcxRegion& region) {
  ucp_request_param_t how{};
  how.op_attr_mask = UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  how.memory_type = type_of(region.buffer().space);
  if (region.handle() != nullptr) {
    how.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    how.memh = region.handle();
  }
  return how;
}

}  // namespace

UcxEndpoint::UcxEndpoint(UcxTransport& owner, const Peer& peer, Link& link, std::unique_ptr<Flights> flights,
                         std::uint64_t own, std::uint64_t other, Fd lifeline)
    : Endpoint(peer.rank, peer.lane),
      owner_(owner),
      who_(fmt::format("rank {} on {}", peer.rank, peer.host)),
      link_(link),
      flights_(std::move(flights)),
      own_(own),
      other_(other),
      lifeline_(std::move(lifeline)) {
  owner_.enter(*this);
}

UcxEndpoint::~UcxEndpoint() {
  // Whoever gives up sends that are not done, gives up all of them.
  const bool unfinished = fragments_sent_ < fragments_out_ || sends_given_ < sends_posted_;
  if (failure_ || peer_closed_ || unfinished) {
    link_.give_up();
  } else {
    ByteWriter goodbye;
    goodbye.put(fragments_out_);
    const Bytes bytes = std::move(goodbye).take();
    static_cast<void>(::send(lifeline_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  owner_.leave(*this);
  flights_->cancel_recvs(owner_.worker().id());
  owner_.keep(std::move(flights_));
}

Result<void> UcxEndpoint::refuse(const Slice& slice) const {
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (!slice.within(owner_))
    return fail(Code::bad_usage, "an operation on memory that is not registered with this transport", peer());
  if (slice.size >= k_most_message_bytes)
    return fail(Code::bad_usage, fmt::format("a message of {} bytes is more than ucx takes", slice.size), peer());
  return {};
}

Result<void> UcxEndpoint::send(Slice source) {
  GRADRAIL_TRY(refuse(source));
  if (sends_posted_ - sends_done_ == k_depth)
    return fail(Code::exhausted, fmt::format("{} sends to {} are outstanding already", k_depth, who_), peer());
  sends_[sends_posted_++ % k_depth] = {source.data(), source.size, static_cast<const UcxRegion*>(source.region)};
  if (give_sends()) count_sends();
  return {};
}

Result<void> UcxEndpoint::recv(Slice destination) {
  GRADRAIL_TRY(refuse(destination));
  return post({destination.data(), destination.size, static_cast<const UcxRegion*>(destination.region), false});
}

Result<void> UcxEndpoint::recv_in_place(std::size_t bytes) {
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (!landing_) {
    GRADRAIL_ASSIGN(landing_, owner_.allocate(k_landing_bytes));
  }
  return post({nullptr, bytes, static_cast<const UcxRegion*>(landing_.get()), true});
}

Result<void> UcxEndpoint::post(const Recv& recv) {
  if (recvs_posted_ - recvs_done_ == k_depth)
    return fail(Code::exhausted, fmt::format("{} receives from {} are outstanding already", k_depth, who_), peer());
  if (peer_closed_ && recvs_posted_ == recvs_done_) moved_at_ = Clock::now();
  recvs_[recvs_posted_++ % k_depth] = recv;
  if (give_recvs()) count_recvs();
  return {};
}

bool UcxEndpoint::give_sends() {
  bool moved = false;
  while (sends_given_ < sends_posted_ && fragments_out_ - fragments_sent_ < k_flights && !link_.failed()) {
    const auto& message = sends_[sends_given_ % k_depth];
    const std::size_t size = std::min(k_fragment_bytes, message.size - given_bytes_);
    auto& flight = flights_->sends[fragments_out_ % k_flights];
    flight.size = size;
    flight.last = given_bytes_ + size == message.size;
    auto how = how_to_move(*message.region);
    flights_->begin_send(flight, how);
    const auto tag = tag_of(other_, message.size, given_bytes_ == 0);
    flights_->began(flight, ucp_tag_send_nbx(link_.id(), message.data + given_bytes_, size, tag, &how));
    ++fragments_out_;
    given_bytes_ += size;
    if (flight.last) ++sends_given_, given_bytes_ = 0;
    moved = true;
  }
  return moved;
}

bool UcxEndpoint::count_sends() {
  bool moved = false;
  while (fragments_sent_ < fragments_out_) {
    const auto& flight = flights_->sends[fragments_sent_ % k_flights];
    if (!flight.done) break;
    if (flight.status != UCS_OK) {
      link_.fail_with(flight.status);
      break;
    }
    ++fragments_sent_;
    traffic_[static_cast<std::size_t>(Path::library)] += flight.size;
    if (flight.last) ++sends_done_;
    moved = true;
  }
  return moved;
}

bool UcxEndpoint::give_recvs() {
  bool moved = false;
  while (recvs_given_ < recvs_posted_ && fragments_in_ - fragments_received_ < k_flights) {
    const auto& message = recvs_[recvs_given_ % k_depth];
    const std::size_t size = std::min(k_fragment_bytes, message.size - wanted_bytes_);
    auto& flight = flights_->recvs[fragments_in_ % k_flights];
    std::byte* to = message.data + wanted_bytes_;
    if (message.in_place) {
      // A fragment lies in one piece.
      if (landing_free_ == landing_used_) landing_free_ = landing_used_ = 0;
      const std::uint64_t at = landing_used_ % k_landing_bytes;
      const std::uint64_t gap = k_landing_bytes - at < size ? k_landing_bytes - at : 0;
      if (landing_used_ + gap + rounded(size) - landing_free_ > k_landing_bytes) break;
      flight.landing = (at + gap) % k_landing_bytes;
      landing_used_ += gap + rounded(size);
      flight.landing_end = landing_used_;
      to = landing_->buffer().data + flight.landing;
    }
    flight.looked_at = false;
    flight.size = size;
    flight.in_place = message.in_place;
    flight.first = wanted_bytes_ == 0;
    flight.last = wanted_bytes_ + size == message.size;
    auto how = how_to_move(*message.region);
    flights_->begin_recv(flight, how);
    flights_->began(flight, ucp_tag_recv_nbx(owner_.worker().id(), to, size, tag_of(own_, 0, false), k_match, &how));
    ++fragments_in_;
    wanted_bytes_ += size;
    if (flight.last) ++recvs_given_, wanted_bytes_ = 0;
    moved = true;
  }
  return moved;
}

// The oldest fragment asked for, if it has come and is what was expected.
Flight* UcxEndpoint::oldest() {
  if (fragments_received_ == fragments_in_ || failure_) return nullptr;
  auto& flight = flights_->recvs[fragments_received_ % k_flights];
  if (!flight.done) return nullptr;
  if (!flight.looked_at) {
    if (!fits(flight)) return nullptr;
    flight.looked_at = true;
  }
  return &flight;
}

bool UcxEndpoint::fits(const Flight& flight) {
  if (flight.status != UCS_OK && flight.status != UCS_ERR_MESSAGE_TRUNCATED) {
    link_.fail_with(flight.status);
    return false;
  }
  const auto sent = message_bytes_of(flight.tag);
  const auto expected = recvs_[recvs_done_ % k_depth].size;
  if (sent != expected) {
    break_off(Code::malformed,
              fmt::format("{} sent {} bytes as message {} where {} were to be received; both sides must name the same "
                          "size",
                          who_, sent, recvs_done_, expected));
    return false;
  }
  const auto part = flight.last ? expected - (expected - 1) / k_fragment_bytes * k_fragment_bytes : k_fragment_bytes;
  if (is_first(flight.tag) != flight.first || flight.status != UCS_OK || flight.size != (expected == 0 ? 0 : part)) {
    break_off(Code::malformed,
              fmt::format("a fragment of message {} of {} is not the one that was due; the pipe is out of step",
                          recvs_done_, who_));
    return false;
  }
  return true;
}

void UcxEndpoint::done_with(const Flight& flight) {
  if (flight.in_place) landing_free_ = flight.landing_end;
  if (flight.last) ++recvs_done_;
  ++fragments_received_;
  if (peer_closed_) moved_at_ = Clock::now();
}

bool UcxEndpoint::count_recvs() {
  bool moved = false;
  while (const Flight* flight = oldest()) {
    if (flight->in_place && flight->size > 0) break;  // until it is consumed
    done_with(*flight);
    moved = true;
  }
  return moved;
}

std::span<const std::byte> UcxEndpoint::readable() {
  const Flight* const flight = oldest();
  if (flight == nullptr || !flight->in_place) return {};
  return {landing_->buffer().data + flight->landing + consumed_, flight->size - consumed_};
}

void UcxEndpoint::consume(std::size_t bytes) {
  if (bytes == 0) return;
  const Flight* const flight = oldest();
  GRADRAIL_CHECK(flight != nullptr && flight->in_place && bytes <= flight->size - consumed_);
  consumed_ += bytes;
  GRADRAIL_CHECK(bytes % k_grain == 0 || consumed_ == flight->size);
  if (consumed_ < flight->size) return;
  consumed_ = 0;
  done_with(*flight);
  count_recvs();
  give_recvs();
}

bool UcxEndpoint::progress() {
  if (failure_) return false;
  bool moved = false;
  if (recvs_done_ < recvs_posted_) {
    moved |= count_recvs();
    if (recvs_given_ < recvs_posted_ && !failure_) moved |= give_recvs();
  }
  if (sends_done_ < sends_posted_) {
    moved |= count_sends();
    if (sends_given_ < sends_posted_) moved |= give_sends();
  }
  if (peer_closed_ || link_.failed()) check_life();
  return moved;
}

void UcxEndpoint::break_off(Code code, std::string message) {
  if (failure_) return;
  failure_ = Error{code, std::move(message), peer(), 0};
  flights_->cancel_recvs(owner_.worker().id());
  ::shutdown(lifeline_.get(), SHUT_RDWR);  // so that the peer hears of it
}

void UcxEndpoint::read_lifeline() {
  while (!peer_closed_) {
    std::array<std::byte, sizeof(std::uint64_t) + 1> more;
    const auto got = ::recv(lifeline_.get(), more.data(), more.size() - goodbye_bytes_, MSG_DONTWAIT);
    if (got < 0 && not_ready(errno)) return;
    if (got > 0) {
      const auto room = std::min(static_cast<std::size_t>(got), goodbye_.size() - goodbye_bytes_);
      std::memcpy(goodbye_.data() + goodbye_bytes_, more.data(), room);
      goodbye_bytes_ += room;
      if (room == static_cast<std::size_t>(got)) continue;
    }
    peer_closed_ = true;
    moved_at_ = Clock::now();
  }
}

void UcxEndpoint::check_life() {
  if (failure_) return;
  read_lifeline();
  if (peer_closed_) return end_if_over();
  if (!link_.failed() || Clock::now() - link_.failed_at() < k_better_reason) return;
  const auto status = link_.failure();
  const bool gone = status == UCS_ERR_CONNECTION_RESET || status == UCS_ERR_ENDPOINT_TIMEOUT ||
                    status == UCS_ERR_NOT_CONNECTED || status == UCS_ERR_REJECTED || status == UCS_ERR_CANCELED;
  const auto lanes = link_.lanes();
  break_off(gone ? Code::peer_gone : Code::system,
            fmt::format("{}: UCX gave its connection up, over {}: {}{}{}; its process or host is gone, or the network "
                        "between is",
                        who_, lanes.empty() ? owner_.worker().resources() : lanes, text_of(status),
                        complaint().empty() ? "" : ": ", complaint()));
}

void UcxEndpoint::end_if_over() {
  // What is here already, counts.
  for (int i = 0; i < k_last_calls && owner_.worker().progress(); ++i) continue;
  if (count_recvs()) moved_at_ = Clock::now();
  if (failure_) return;
  count_sends();
  if (oldest() != nullptr) return;  // to be read
  if (goodbye_bytes_ == goodbye_.size()) {
    std::uint64_t sent = 0;
    std::memcpy(&sent, goodbye_.data(), sizeof sent);
    // The rest has been sent, and waits for receives, or comes still.
    if (flights_->arrived < sent) {
      const bool waited_for = sends_done_ < sends_posted_ || recvs_done_ < recvs_posted_;
      if (!waited_for || Clock::now() - moved_at_ < k_late) return;
    }
  }
  break_off(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_));
}

}  // namespace gradrail::ucx
