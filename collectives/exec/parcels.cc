#include "collectives/exec/parcels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/base/bytes.h"
#include "transports/base/check.h"

namespace gradrail {
namespace {

std::uint64_t total(const Traffic& traffic) {
  std::uint64_t sum = 0;
  for (const std::uint64_t bytes : traffic) sum += bytes;
  return sum;
}

}  // namespace

std::size_t Parcels::front_bytes(std::size_t peers, std::size_t most) { return peers * (most + 1) * k_front; }

void Parcels::add_peer(int peer, Channel& channel, std::size_t most, std::size_t& fronts) {
  Pipe pipe;
  pipe.peer = peer;
  pipe.channel = &channel;
  pipe.fronts = fronts;
  pipe.going.reserve(most);
  fronts += (most + 1) * k_front;
  pipes_.push_back(std::move(pipe));
}

void Parcels::start(MemoryView wire) {
  wire_ = wire;
  failed_.reset();
  for (Pipe& pipe : pipes_) {
    pipe.going.clear();
    pipe.posted = pipe.left = 0;
    pipe.coming = Coming::nothing;
    pipe.ticket = pipe.channel->sends;
    pipe.sent_before = total(pipe.channel->endpoint->traffic());
  }
}

Parcels::Pipe& Parcels::pipe_to(int peer) {
  const auto found = std::find_if(pipes_.begin(), pipes_.end(), [&](const Pipe& pipe) { return pipe.peer == peer; });
  GRADRAIL_CHECK(found != pipes_.end());
  return *found;
}

void Parcels::expect(int peer, std::size_t parcels) { pipe_to(peer).left += parcels; }

void Parcels::send(int peer, const Parcel& parcel) {
  Pipe& pipe = pipe_to(peer);
  GRADRAIL_CHECK(pipe.going.size() < pipe.going.capacity());
  std::byte* const front = wire_.data() + pipe.fronts + (pipe.going.size() + 1) * k_front;
  const std::uint64_t bytes = parcel.bytes;
  front[0] = std::byte{'G'};
  front[1] = std::byte{'P'};
  front[2] = std::byte{parcel.phase};
  front[3] = std::byte{parcel.form};
  std::memcpy(front + 4, &parcel.origin, sizeof parcel.origin);
  std::memcpy(front + 8, &bytes, sizeof bytes);
  pipe.going.push_back(parcel);
}

bool Parcels::progress() {
  bool moved = false;
  trace_.look();
  for (Pipe& pipe : pipes_) {
    if (failed_) break;
    moved |= push(pipe);
    moved |= pull(pipe);
  }
  // What arrived may have made more to send.
  for (Pipe& pipe : pipes_) {
    if (failed_) break;
    moved |= push(pipe);
  }
  return moved;
}

bool Parcels::refuse(Error error) {
  failed_ = std::move(error);
  return false;
}

bool Parcels::push(Pipe& pipe) {
  bool moved = false;
  Channel& channel = *pipe.channel;
  while (pipe.posted < 2 * pipe.going.size()) {
    const std::size_t index = pipe.posted / 2;
    const Parcel& parcel = pipe.going[index];
    const bool front = pipe.posted % 2 == 0;
    if (!front && parcel.bytes == 0) {
      ++pipe.posted;
      continue;
    }
    if (!channel.can_send()) break;
    auto posted = channel.endpoint->send(front ? slice(channel, pipe.fronts + (index + 1) * k_front, k_front)
                                               : slice(channel, parcel.at, parcel.bytes));
    if (!posted) return refuse(std::move(posted).error());
    pipe.ticket = ++channel.sends;
    ++pipe.posted;
    if (!front || parcel.bytes == 0) trace_.sent({"send", pipe.peer, parcel.bytes, parcel.phase}, channel);
    moved = true;
  }
  return moved;
}

bool Parcels::pull(Pipe& pipe) {
  bool moved = false;
  Channel& channel = *pipe.channel;
  while (!failed_) {
    switch (pipe.coming) {
      case Coming::nothing: {
        if (pipe.left == 0 || !channel.can_recv()) return moved;
        auto posted = channel.endpoint->recv(slice(channel, pipe.fronts, k_front));
        if (!posted) return refuse(std::move(posted).error());
        pipe.awaited = ++channel.recvs;
        if (trace_.wanted()) pipe.since = Clock::now();
        --pipe.left;
        pipe.coming = Coming::front;
        break;
      }
      case Coming::front:
        if (channel.endpoint->recvs_done() < pipe.awaited || !channel.can_recv()) return moved;
        moved = true;
        if (!read_front(pipe)) return false;
        break;
      case Coming::content:
        if (channel.endpoint->recvs_done() < pipe.awaited) return moved;
        moved = true;
        if (!take(pipe)) return false;
        break;
    }
  }
  return moved;
}

bool Parcels::read_front(Pipe& pipe) {
  ByteReader reader({wire_.data() + pipe.fronts, k_front});
  const auto g = reader.get<std::uint8_t>(), p = reader.get<std::uint8_t>();
  Parcel parcel;
  parcel.phase = reader.get<std::uint8_t>();
  parcel.form = reader.get<std::uint8_t>();
  parcel.origin = reader.get<std::uint32_t>();
  const auto bytes = reader.get<std::uint64_t>();
  if (g != 'G' || p != 'P') {
    return refuse(
        {Code::malformed, fmt::format("rank {} sent what is no part of an exchange", pipe.peer), pipe.peer, 0});
  }
  const auto place = owner_.place_of(pipe.peer, parcel);
  if (!place) {
    return refuse({Code::malformed,
                   fmt::format("rank {} sent a message of phase {} from rank {}, which it was not to send now",
                               pipe.peer, parcel.phase, parcel.origin),
                   pipe.peer, 0});
  }
  if (bytes > place->bytes) {
    return refuse({Code::malformed,
                   fmt::format("rank {} announced {} bytes where at most {} can be", pipe.peer, bytes, place->bytes),
                   pipe.peer, 0});
  }
  parcel.at = place->at;
  parcel.bytes = bytes;
  pipe.parcel = parcel;
  if (bytes == 0) return take(pipe);
  auto posted = pipe.channel->endpoint->recv(slice(*pipe.channel, parcel.at, parcel.bytes));
  if (!posted) return refuse(std::move(posted).error());
  pipe.awaited = ++pipe.channel->recvs;
  pipe.coming = Coming::content;
  return true;
}

bool Parcels::take(Pipe& pipe) {
  pipe.coming = Coming::nothing;
  trace_.over({"await", pipe.peer, pipe.parcel.bytes, pipe.parcel.phase}, pipe.since);
  auto taken = owner_.arrived(pipe.peer, pipe.parcel);
  if (!taken) return refuse(std::move(taken).error());
  return true;
}

bool Parcels::done() const {
  return std::all_of(pipes_.begin(), pipes_.end(), [](const Pipe& pipe) {
    return pipe.left == 0 && pipe.coming == Coming::nothing && pipe.posted == 2 * pipe.going.size() &&
           pipe.channel->endpoint->sends_done() >= pipe.ticket;
  });
}

Execution::Awaited Parcels::awaited() const {
  for (const Pipe& pipe : pipes_) {
    if (pipe.left > 0 || pipe.coming != Coming::nothing) return {pipe.channel, true};
  }
  for (const Pipe& pipe : pipes_) {
    if (pipe.posted < 2 * pipe.going.size() || pipe.channel->endpoint->sends_done() < pipe.ticket) {
      return {pipe.channel, false};
    }
  }
  return {};
}

const Error* Parcels::failure() const {
  if (failed_) return &*failed_;
  for (const Pipe& pipe : pipes_) {
    const bool busy = pipe.left > 0 || !pipe.channel->idle() || pipe.posted < 2 * pipe.going.size();
    if (const Error* error = pipe.channel->endpoint->failure(); error != nullptr && busy) return error;
  }
  return nullptr;
}

std::uint64_t Parcels::sent_bytes() const {
  std::uint64_t sum = 0;
  for (const Pipe& pipe : pipes_) sum += total(pipe.channel->endpoint->traffic()) - pipe.sent_before;
  return sum;
}

}  // namespace gradrail
