#include "collectives/exec/execution.h"

#include <algorithm>
#include <cstring>

#include "collectives/schedule/render.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

// Bytes combined at once, where that much lies together: small enough that the block is still in a cache of the core's
// own if it must be sent on from there, large enough that the memory's prefetchers are seldom interrupted.
constexpr std::size_t k_block = 256 << 10;
// Combined before the endpoints get their turn: they must take up what the peers write meanwhile, and give credit.
constexpr std::size_t k_turn = 1 << 20;
constexpr std::size_t k_least_room = 4 << 10;  // an output with less does not take part in a block

// A stream that is long, or goes where peers staged their messages, waits for so many looks at first, so that outputs
// get to know where it goes: a block that is passed on while it is combined is read once.
constexpr std::uint32_t k_looks = 500;  // fewer than the endpoints wait themselves
// Where ranks share cores each look gives the core away: that costs more than to copy less than this again.
constexpr std::size_t k_least_awaited = 16 << 10;

using Kind = BoundStep::Kind;

}  // namespace

Execution::Execution(const BoundProgram& program) : program_(program) {
  lanes_.resize(program.lanes.size());
  streams_.resize(program.streams);
  outputs_.resize(program.stream_outputs);
  tickets_.resize(program.channels.size());
  from_.resize(program.widest + 2u);
  to_.resize(program.widest + 2u);
}

void Execution::start(MemoryView in, MemoryView out, MemoryView scratch) {
  stores_ = {in, out, scratch};
  for (std::size_t i = 0; i < stores_.size(); ++i) bases_[i] = stores_[i].data();
  running_ = 0;
  refused_.reset();
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i] = Lane{};
    lanes_[i].steps = program_.lanes[i].data();
    lanes_[i].count = static_cast<std::uint32_t>(program_.lanes[i].size());
    running_ += !program_.lanes[i].empty();
  }
}

std::byte* Execution::address(Store store, std::size_t offset) const {
  return bases_[static_cast<std::size_t>(store)] + offset;
}

Slice Execution::slice(const Channel& channel, Store store, std::size_t offset, std::size_t bytes) const {
  const MemoryView& view = stores_[static_cast<std::size_t>(store)];
  return {view.memory->region(channel.reach), view.offset + offset, bytes};
}

bool Execution::progress() {
  bool moved = false;
  for (Lane& lane : lanes_) {
    if (finished(lane)) continue;
    moved |= advance(lane);
    running_ -= finished(lane);
  }
  return moved;
}

// What a step costs here is what the executor costs: the three below are one loop, and are compiled as one.
bool Execution::advance(Lane& lane) {
  bool moved = false;
  for (bool completed = true; completed;) {
    moved |= start_steps(lane);
    completed = lane.oldest < lane.next && complete_oldest(lane);
    if (lane.open_streams < lane.next) completed |= stream_out(lane);
    moved |= completed;
    if (lane.next < lane.count) continue;
    // Nothing is left that a completion could start.
    if (lane.oldest_send < lane.next) moved |= complete_sends(lane);
    break;
  }
  if (times_ != nullptr) moved |= complete_sends(lane);  // so that their times are right
  return moved;
}

inline bool Execution::start_steps(Lane& lane) {
  const std::uint32_t before = lane.next;
  while (lane.next < lane.count && !refused_) {
    const BoundStep& step = lane.steps[lane.next];
    if (step.need_done > lane.done) break;
    // Sends are looked at only where that matters: most are complete long before.
    if (step.need_sent > lane.sent && (!complete_sends(lane) || step.need_sent > lane.sent)) break;
    if (times_ == nullptr) {
      if (!post(step)) break;
    } else {
      const auto now = Clock::now();
      if (!post(step)) break;
      began(step, lane, now);
    }
    ++lane.next;
    // Local steps are complete once posted; let the watermark see it, as the next step may need just that.
    if (step.kind == Kind::reduce || step.kind == Kind::copy) complete_oldest(lane);
  }
  return lane.next != before;
}

inline bool Execution::accepted(Result<void> posted) {
  if (posted) [[likely]]
    return true;
  refused_ = std::move(posted).error();
  return false;
}

inline bool Execution::post(const BoundStep& step) {
  switch (step.kind) {
    case Kind::send: {
      Channel& channel = output(step, 0);
      if (!channel.can_send()) return false;
      Slice source = slice(channel, step.from_store, step.from, step.bytes);
      if (step.staged != k_not_staged) {
        source = slice(channel, Store::scratch, step.staged, step.bytes);
        std::memcpy(address(Store::scratch, step.staged), address(step.from_store, step.from), step.bytes);
        channel.staged += step.bytes;
      }
      if (!accepted(channel.endpoint->send(source))) return false;
      tickets_[step.channels] = ++channel.sends;
      return true;
    }
    case Kind::recv: {
      Channel& channel = input(step, 0);
      const Slice destination = step.staged != k_not_staged ? slice(channel, Store::scratch, step.staged, step.bytes)
                                                            : slice(channel, step.to_store, step.to, step.bytes);
      if (!channel.can_recv() || !accepted(channel.endpoint->recv(destination))) return false;
      tickets_[step.channels] = ++channel.recvs;
      return true;
    }
    case Kind::stream: return post_stream(step);
    case Kind::exchange: {
      Channel& from = input(step, 0);
      Channel& to = output(step, 0);
      if (!from.can_recv() || !to.can_send()) return false;
      streams_[step.state] = Stream{};
      if (!accepted(from.endpoint->recv_in_place(step.bytes))) return false;
      tickets_[step.channels] = ++from.recvs;
      if (!accepted(to.endpoint->send_copied(slice(to, step.from_store, step.from, step.bytes)))) return false;
      tickets_[step.channels + 1u] = ++to.sends;
      return true;
    }
    case Kind::reduce: {
      std::byte* to = address(step.to_store, step.to);
      program_.reduce(to, to, address(step.from_store, step.from), step.bytes / program_.element_bytes);
      return true;
    }
    case Kind::copy: {
      std::byte* to = address(step.to_store, step.to);
      const std::byte* from = address(step.from_store, step.from);
      if (to != from) std::memcpy(to, from, step.bytes);
      return true;
    }
  }
  return false;
}

inline bool Execution::post_stream(const BoundStep& step) {
  for (std::size_t i = 0; i < step.inputs; ++i)
    if (!input(step, i).can_recv()) return false;
  for (std::size_t i = 0; i < step.outputs; ++i)
    if (!output(step, i).can_send()) return false;
  streams_[step.state] = Stream{};
  for (std::size_t i = 0; i < step.inputs; ++i) {
    Channel& channel = input(step, i);
    if (!accepted(channel.endpoint->recv_in_place(step.bytes))) return false;
    tickets_[step.channels + i] = ++channel.recvs;
  }
  for (std::size_t i = 0; i < step.outputs; ++i) {
    Channel& channel = output(step, i);
    if (!accepted(channel.endpoint->send_in_place(step.bytes))) return false;
    tickets_[step.channels + step.inputs + i] = ++channel.sends;
    outputs_[step.outs + i] = {0, channel.streams++};
    if (program_.stages) channel.staged += step.bytes;
  }
  return true;
}

inline bool Execution::complete_oldest(Lane& lane) {
  bool moved = false;
  while (lane.oldest < lane.next) {
    const BoundStep& step = lane.steps[lane.oldest];
    switch (step.kind) {
      case Kind::send: break;
      case Kind::recv:
        if (input(step, 0).endpoint->recvs_done() < tickets_[step.channels]) return moved;
        if (step.staged != k_not_staged)
          std::memcpy(address(step.to_store, step.to), address(Store::scratch, step.staged), step.bytes);
        ++lane.done;
        break;
      case Kind::stream:
        moved |= step.inputs == 1 && step.outputs == 0 ? take_in(step) : stream_in(step);
        if (streams_[step.state].in < step.bytes) return moved;
        lane.done += step.inputs;
        break;
      case Kind::exchange:
        moved |= exchange(step);
        if (streams_[step.state].in < step.bytes) return moved;
        lane.done += step.inputs;
        break;
      case Kind::reduce:
      case Kind::copy: ++lane.done; break;
    }
    if (times_ != nullptr && step.kind != Kind::send) ended(step);
    ++lane.oldest;
    moved = true;
  }
  return moved;
}

// A stream from one input to nowhere else: a lone recv_reduce. It needs no blocks to stay in cache.
inline bool Execution::take_in(const BoundStep& step) {
  std::size_t& at = streams_[step.state].in;
  Endpoint& endpoint = *input(step, 0).endpoint;
  const std::uint64_t ahead = tickets_[step.channels] - 1;
  const std::size_t before = at;
  while (at < step.bytes && endpoint.recvs_done() == ahead) {
    const auto part = endpoint.readable();
    if (part.empty()) break;
    std::byte* to = address(step.to_store, step.to) + at;
    const std::array<const std::byte*, 2> from = {address(step.from_store, step.from) + at, part.data()};
    const std::size_t count = part.size() / program_.element_bytes;
    if (step.reduces && step.around > 0)
      program_.reduce_many({&to, 1}, from, count, 1);
    else if (step.reduces)
      program_.reduce(to, from[0], from[1], count);
    else
      std::memcpy(to, part.data(), part.size());
    at += part.size();
    endpoint.consume(part.size());
  }
  return at != before;
}

// The peer's data is added to ours in place, never further than ours has left.
bool Execution::exchange(const BoundStep& step) {
  std::size_t& at = streams_[step.state].in;
  Endpoint& from = *input(step, 0).endpoint;
  const Endpoint& to = *output(step, 0).endpoint;
  const std::size_t before = at;
  while (at < step.bytes && from.recvs_done() + 1 == tickets_[step.channels]) {
    const auto part = from.readable();
    const std::size_t gone = to.departed(tickets_[step.channels + 1u], step.bytes);
    std::size_t size = std::min(part.size(), gone - at);
    if (size < part.size()) size = size / 64 * 64;
    if (size == 0) break;
    std::byte* here = address(step.to_store, step.to) + at;
    program_.reduce(here, here, part.data(), size / program_.element_bytes);
    at += size;
    from.consume(size);
  }
  return at != before;
}

// Combines whatever has arrived at all inputs, block by block, and passes it on where the outputs have room.
bool Execution::stream_in(const BoundStep& step) {
  Stream& stream = streams_[step.state];
  bool moved = false;
  for (const std::size_t turn = stream.in + k_turn; stream.in < step.bytes && stream.in < turn;) {
    std::size_t size = std::min(step.bytes - stream.in, k_block);
    std::size_t inputs = 0;
    if (step.reduces) from_[inputs++] = address(step.from_store, step.from) + stream.in;
    for (std::size_t i = 0; i < step.inputs; ++i) {
      Endpoint& endpoint = *input(step, i).endpoint;
      if (endpoint.recvs_done() + 1 != tickets_[step.channels + i]) return moved;
      const auto part = endpoint.readable();
      if (part.empty()) return moved;
      size = std::min(size, part.size());
      from_[inputs++] = part.data();
    }
    std::size_t outputs = 0;
    to_[outputs++] = address(step.to_store, step.to) + stream.in;
    std::uint64_t passing = 0;  // outputs that take this block directly, as bits
    for (std::size_t i = 0; step.writes_all && i < step.outputs && i < 64; ++i) {
      const Output& out = outputs_[step.outs + i];
      Channel& channel = output(step, i);
      if (out.turn != channel.streams_done) continue;
      if (out.at < stream.in) (void)pass_on(step, i);
      if (out.at != stream.in) continue;
      const auto room = channel.endpoint->writable();
      if (room.size() < std::min(size, k_least_room)) {
        const std::size_t short_of = program_.stages ? k_least_awaited : k_block + 1;
        if (stream.in == 0 && step.bytes >= short_of && stream.looks++ < k_looks) return moved;
        continue;
      }
      size = std::min(size, room.size());
      to_[outputs++] = room.data();
      passing |= 1ull << i;
    }
    if (stream.in + size < step.bytes) size = size / 64 * 64;
    GRADRAIL_CHECK(size > 0);

    const std::size_t count = size / program_.element_bytes;
    if (!step.reduces)
      for (std::size_t i = 0; i < outputs; ++i) std::memcpy(to_[i], from_[0], size);
    else if (inputs == 2 && outputs == 1 && step.around == 0)
      program_.reduce(to_[0], from_[0], from_[1], count);
    else
      program_.reduce_many({to_.data(), outputs}, {from_.data(), inputs}, count, std::min(step.around, outputs));

    for (std::size_t i = 0; i < step.inputs; ++i) input(step, i).endpoint->consume(size);
    stream.in += size;
    moved = true;
    for (std::size_t i = 0; i < step.outputs; ++i) {
      if ((passing >> i & 1) == 0) {
        if (!step.writes_all) (void)pass_on(step, i);
        continue;
      }
      Channel& channel = output(step, i);
      channel.endpoint->commit(size);
      outputs_[step.outs + i].at += size;
      if (outputs_[step.outs + i].at == step.bytes) ++channel.streams_done;
    }
  }
  return moved;
}

// Outputs that had no room when their block was combined get it from the result. Inputs never wait for outputs: a ring
// of ranks that each waited for the next one's room would never end.
bool Execution::stream_out(Lane& lane) {
  if (program_.stream_outputs == 0) {
    lane.open_streams = lane.oldest;
    return false;
  }
  bool moved = false;
  const auto written = [&](const BoundStep& step) {
    for (std::size_t i = 0; i < step.outputs; ++i)
      if (outputs_[step.outs + i].at < step.bytes) return false;
    return true;
  };
  while (lane.open_streams < lane.next) {
    const BoundStep& step = lane.steps[lane.open_streams];
    if (step.kind == Kind::stream && (lane.open_streams >= lane.oldest || !written(step))) break;
    ++lane.open_streams;
    moved = true;
  }
  for (std::uint32_t index = lane.open_streams; index < lane.next && index <= lane.oldest; ++index) {
    const BoundStep& step = lane.steps[index];
    if (step.kind != Kind::stream) continue;
    for (std::size_t i = 0; i < step.outputs; ++i) moved |= pass_on(step, i);
  }
  return moved;
}

// What has been combined and not been written to output i yet, as far as it has room, from the result.
bool Execution::pass_on(const BoundStep& step, std::size_t i) {
  const Stream& stream = streams_[step.state];
  Output& out = outputs_[step.outs + i];
  Channel& channel = output(step, i);
  bool moved = false;
  while (out.at < stream.in && out.turn == channel.streams_done) {
    const std::size_t size = channel.endpoint->offer({address(step.to_store, step.to) + out.at, stream.in - out.at});
    if (size == 0) break;
    out.at += size;
    moved = true;
    if (out.at == step.bytes) ++channel.streams_done;
  }
  return moved;
}

bool Execution::complete_sends(Lane& lane) {
  const std::uint32_t before = lane.oldest_send;
  for (; lane.oldest_send < lane.next; ++lane.oldest_send) {
    const BoundStep& step = lane.steps[lane.oldest_send];
    for (std::size_t i = 0; i < step.outputs; ++i)
      if (output(step, i).endpoint->sends_done() < tickets_[step.channels + step.inputs + i])
        return lane.oldest_send != before;
    lane.sent += step.outputs;
    if (times_ != nullptr && step.kind == Kind::send) ended(step);
  }
  return lane.oldest_send != before;
}

Execution::Awaited Execution::awaited() const {
  for (const Lane& lane : lanes_) {
    if (lane.oldest < lane.next) {
      const BoundStep& step = lane.steps[lane.oldest];
      for (std::size_t i = 0; i < step.inputs; ++i) {
        const Channel& channel = input(step, i);
        if (channel.endpoint->recvs_done() < tickets_[step.channels + i] &&
            (step.kind == Kind::recv || channel.endpoint->readable().empty()))
          return {&channel, true};
      }
    }
    for (std::uint32_t index = lane.oldest_send; index < lane.next; ++index) {
      const BoundStep& step = lane.steps[index];
      for (std::size_t i = 0; i < step.outputs; ++i)
        if (output(step, i).endpoint->sends_done() < tickets_[step.channels + step.inputs + i])
          return {&output(step, i), false};
    }
  }
  return {};
}

const Error* Execution::failure() const {
  if (refused_) return &*refused_;
  // A peer that has given and taken all it had to may be gone.
  for (const Channel* channel : program_.each_channel)
    if (const Error* error = channel->endpoint->failure(); error != nullptr && !channel->idle()) return error;
  return nullptr;
}

void Execution::began(const BoundStep& step, const Lane& lane, Clock::time_point when) {
  StepTime time;
  time.step = step.step;
  time.name = to_string(program_.op_of(step.step));
  time.lane = static_cast<std::uint8_t>(&lane - lanes_.data());
  if (step.inputs + step.outputs > 0) time.peer = program_.channels[step.channels]->endpoint->peer();
  time.bytes = step.bytes;
  time.begin = time.end = when;
  times_->push_back(time);
}

void Execution::ended(const BoundStep& step) {
  const auto now = Clock::now();
  for (auto time = times_->rbegin(); time != times_->rend(); ++time)
    if (time->step == step.step) {
      time->end = now;
      return;
    }
}

}  // namespace gradrail
