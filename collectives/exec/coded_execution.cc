#include "collectives/exec/coded_execution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "transports/base/check.h"

namespace gradrail {

namespace {

using Kind = CodedStep::Kind;

constexpr std::size_t k_cache_line = 64;
// Elements worked on before the endpoints get their turn.
constexpr std::size_t k_turn = 128 << 10;

std::size_t rounded_up(std::size_t bytes) { return (bytes + k_cache_line - 1) / k_cache_line * k_cache_line; }

// Names a sum by some of its values: whoever encodes the same sum draws the same random numbers, and others others.
std::uint32_t fingerprint(std::span<const float> values) {
  constexpr std::size_t k_samples = 64;
  const std::size_t stride = std::max<std::size_t>(1, values.size() / k_samples);
  std::uint64_t hash = 0x9E3779B97F4A7C15u;
  for (std::size_t i = 0; i < values.size(); i += stride) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof bits);
    hash = (hash ^ bits) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
  }
  // Never a rank's own number.
  return static_cast<std::uint32_t>(hash) | 0x80000000u;
}

}  // namespace

Result<std::unique_ptr<ExchangeRun>> CodedExecution::make(CodedProgram program, Ran ran, const ExchangeSetting& setting,
                                                          const ExchangeMeans& means) {
  std::unique_ptr<CodedExecution> self(new CodedExecution);
  self->program_ = std::move(program);
  self->ran_ = std::move(ran);
  GRADRAIL_TRY(self->bind(setting, means));
  return std::unique_ptr<ExchangeRun>(std::move(self));
}

Result<void> CodedExecution::bind(const ExchangeSetting& setting, const ExchangeMeans& means) {
  const Shape& shape = program_.shape;
  state_ = means.state;
  GRADRAIL_ASSIGN(decoder_, state_->at(0));
  for (std::size_t site = 0; site < program_.sites; ++site) GRADRAIL_TRY(state_->at(site));
  const CodecTraits traits = decoder_->traits();
  GRADRAIL_CHECK(traits.fixed_size);
  add_ = reduce_function(Type::f32, ReduceOp::sum);
  origin_.seed = setting.seed;
  origin_.tensor = setting.tensor;

  // Where chunks begin, and what they take on the wire.
  const bool blocked = is_blocked(shape.collective);
  const auto blocks = static_cast<std::uint32_t>(blocked ? shape.ranks : 1);
  const std::uint64_t elements = setting.count * blocks;
  const auto align = static_cast<std::uint32_t>(std::lcm(traits.block, k_cache_line / sizeof(float)));
  std::vector<std::uint64_t> begin(program_.grid + 1u);
  for (std::uint32_t chunk = 0; chunk <= program_.grid; ++chunk)
    begin[chunk] = chunk_begin(elements, program_.grid, blocks, align, chunk);
  const auto count_of = [&](std::uint32_t chunk) { return static_cast<std::size_t>(begin[chunk + 1u] - begin[chunk]); };
  const auto bytes_of = [&](std::uint32_t chunk, bool is_coded) {
    const std::size_t count = count_of(chunk);
    return count == 0 ? 0 : is_coded ? decoder_->max_bytes(count) : count * sizeof(float);
  };
  const Window in = window_of(Store::in, shape, program_.rank, program_.grid);
  const Window out = window_of(Store::out, shape, program_.rank, program_.grid);
  out_count_ = static_cast<std::size_t>(begin[out.end()] - begin[out.first]);

  // Every message's place in the wire memory, and each of its chunks'.
  std::vector<std::vector<std::size_t>> places(program_.messages.size());
  std::vector<std::size_t> ends(program_.messages.size());
  std::map<ChannelKey, std::size_t> pipe_of;
  const auto pipe = [&](int peer, int lane) -> Pipe& {
    const auto [found, added] = pipe_of.try_emplace({peer, lane}, pipes_.size());
    if (added) pipes_.push_back({means.channel({peer, lane}), {}, 0, 0});
    return pipes_[found->second];
  };
  std::vector<std::uint32_t> arrival_of(program_.messages.size());
  std::size_t at = 0;
  for (std::size_t i = 0; i < program_.messages.size(); ++i) {
    const CodedMessage& message = program_.messages[i];
    const std::size_t first = at;
    for (std::uint32_t c = 0; c < message.chunks; ++c) {
      places[i].push_back(at);
      at += bytes_of(message.chunk + c, message.coded);
    }
    ends[i] = at;
    if (message.received && at > first) {
      Pipe& from = pipe(message.peer, message.lane);
      arrival_of[i] = static_cast<std::uint32_t>(arrivals_.size());
      from.arrivals.push_back(arrival_of[i]);
      arrivals_.push_back({from.channel, first, at - first, 0});
    }
    at = rounded_up(at);
  }
  const std::size_t plane = rounded_up(static_cast<std::size_t>(elements) * sizeof(float));
  scratch_bytes_ = program_.planes * plane;
  const std::size_t messages_end = at;
  wire_bytes_ = messages_end + scratch_bytes_;

  const auto memory_at = [&](Place place) {
    switch (place.store) {
      case Store::in: return static_cast<std::size_t>(begin[place.chunk] - begin[in.first]) * sizeof(float);
      case Store::out: return static_cast<std::size_t>(begin[place.chunk] - begin[out.first]) * sizeof(float);
      case Store::scratch:
        return messages_end + place.plane * plane + static_cast<std::size_t>(begin[place.chunk]) * sizeof(float);
    }
    return std::size_t{0};
  };
  const auto bound_step = [&](const CodedStep& step, std::uint8_t lane) -> std::optional<Bound> {
    Bound one;
    one.kind = step.kind;
    one.own = step.own;
    if (step.kind == Kind::send || step.kind == Kind::await) {
      const CodedMessage& message = program_.messages[step.from.message];
      const std::size_t offset = step.chunk - message.chunk;
      one.from = places[step.from.message][offset];
      const std::size_t after = offset + step.chunks;
      one.from_bytes = (after < message.chunks ? places[step.from.message][after] : ends[step.from.message]) - one.from;
      if (one.from_bytes == 0) return std::nullopt;
      one.count = static_cast<std::size_t>(begin[step.chunk + step.chunks] - begin[step.chunk]);
      one.channel = pipe(step.peer, lane).channel;
      if (step.kind == Kind::await) one.arrival = arrival_of[step.from.message];
      return one;
    }
    one.count = count_of(step.chunk);
    if (one.count == 0) return std::nullopt;
    one.first = begin[step.chunk];
    const auto resolve = [&](const CodedPlace& place, bool& wire, bool& is_coded, Store& store, std::size_t& offset,
                             std::size_t& bytes) {
      wire = place.wire;
      if (place.wire) {
        const CodedMessage& message = program_.messages[place.message];
        is_coded = message.coded;
        offset = places[place.message][step.chunk - message.chunk];
        bytes = bytes_of(step.chunk, message.coded);
      } else {
        store = place.memory.store;
        offset = memory_at(place.memory);
        bytes = one.count * sizeof(float);
      }
    };
    resolve(step.from, one.from_wire, one.from_coded, one.from_store, one.from, one.from_bytes);
    resolve(step.to, one.to_wire, one.to_coded, one.to_store, one.to, one.to_bytes);
    if (step.from.wire && program_.messages[step.from.message].received) {
      one.sender = program_.messages[step.from.message].peer;
      one.arrival = arrival_of[step.from.message];
    }
    return one;
  };
  lanes_.resize(program_.lanes.size());
  for (std::size_t l = 0; l < lanes_.size(); ++l) {
    const CodedLane& lane = program_.lanes[l];
    std::vector<std::uint32_t> bound_before(lane.main.size() + 1, 0);
    for (std::size_t i = 0; i < lane.main.size(); ++i) {
      if (auto one = bound_step(lane.main[i], static_cast<std::uint8_t>(l))) {
        if (one->kind == Kind::encode) {
          GRADRAIL_ASSIGN(one->codec, state_->at(lane.main[i].site));
        }
        lanes_[l].main.push_back(*one);
      }
      bound_before[i + 1] = static_cast<std::uint32_t>(lanes_[l].main.size());
    }
    for (const CodedStep& step : lane.later)
      if (auto one = bound_step(step, static_cast<std::uint8_t>(l))) {
        one->after = bound_before[step.after];
        lanes_[l].later.push_back(*one);
      }
  }
  program_.lanes.clear();  // bound now
  return {};
}

void CodedExecution::start(MemoryView in, MemoryView out, MemoryView wire) {
  bases_ = {in.data(), out.data(), wire.data()};
  wire_ = wire;
  for (Lane& lane : lanes_) {
    lane.next = lane.next_later = 0;
    lane.idle_since.reset();
  }
  for (Arrival& arrival : arrivals_) arrival.ticket = 0;
  for (Pipe& pipe : pipes_) {
    pipe.posted = 0;
    pipe.last_send = 0;
  }
  failed_.reset();
  done_ = false;
  running_ = {};
  origin_.step = state_->next_step();
  started_ = Clock::now();
}

std::byte* CodedExecution::address(bool wire, Store store, std::size_t offset) const {
  return bases_[wire ? 2 : static_cast<std::size_t>(store)] + offset;
}

void CodedExecution::fail_with(Error error) {
  if (!failed_) failed_ = std::move(error);
}

bool CodedExecution::post_receives() {
  bool moved = false;
  for (Pipe& pipe : pipes_)
    while (pipe.posted < pipe.arrivals.size() && pipe.channel->can_recv()) {
      Arrival& arrival = arrivals_[pipe.arrivals[pipe.posted]];
      const Slice slice{wire_.memory->region(pipe.channel->reach), wire_.offset + arrival.at, arrival.bytes};
      if (auto posted = pipe.channel->endpoint->recv(slice); !posted) {
        fail_with(std::move(posted).error());
        return moved;
      }
      arrival.ticket = ++pipe.channel->recvs;
      ++pipe.posted;
      moved = true;
    }
  return moved;
}

bool CodedExecution::arrived(std::uint32_t index) const {
  const Arrival& arrival = arrivals_[index];
  return arrival.ticket != 0 && arrival.channel->endpoint->recvs_done() >= arrival.ticket;
}

bool CodedExecution::progress() {
  if (done_ || failed_) return false;
  bool moved = post_receives();
  bool finished = true;
  for (Lane& lane : lanes_) {
    std::size_t budget = k_turn;
    while (budget > 0 && !failed_ && !lane.finished()) {
      if (!run_main(lane, budget) && !run_later(lane, budget)) {
        if (trace_.wanted() && !lane.idle_since) lane.idle_since = Clock::now();
        break;
      }
      moved = true;
    }
    finished &= lane.finished();
  }
  trace_.look();
  if (finished && !failed_ && all_moved()) {
    if (out_count_ > 0) decoder_->finish({reinterpret_cast<float*>(bases_[1]), out_count_});
    running_.wire = std::max(Seconds(0), Seconds(Clock::now() - started_) - running_.encode - running_.decode);
    encoding_ = running_;
    done_ = true;
    moved = true;
  }
  return moved;
}

bool CodedExecution::run_main(Lane& lane, std::size_t& budget) {
  if (lane.next == lane.main.size()) return false;
  const Bound& step = lane.main[lane.next];
  switch (step.kind) {
    case Kind::await:
      if (!arrived(step.arrival)) return false;
      trace_waiting(lane, step);
      break;
    case Kind::send: {
      if (!step.channel->can_send()) return false;
      trace_waiting(lane, step);
      const Slice slice{wire_.memory->region(step.channel->reach), wire_.offset + step.from, step.from_bytes};
      if (auto posted = step.channel->endpoint->send(slice); !posted) {
        fail_with(std::move(posted).error());
        return false;
      }
      const std::uint64_t ticket = ++step.channel->sends;
      for (Pipe& pipe : pipes_)
        if (pipe.channel == step.channel) pipe.last_send = ticket;
      running_.wire_bytes += step.from_bytes;
      running_.dense_bytes += step.count * sizeof(float);
      trace_.sent({"send", step.channel->endpoint->peer(), step.from_bytes, -1, number_of(lane)}, *step.channel);
      break;
    }
    default:
      work(step, number_of(lane));
      if (failed_) return false;
      budget -= std::min(budget, step.count);
  }
  ++lane.next;
  return true;
}

bool CodedExecution::run_later(Lane& lane, std::size_t& budget) {
  if (lane.next_later == lane.later.size() || lane.later[lane.next_later].after > lane.next) return false;
  const Bound& step = lane.later[lane.next_later];
  if (step.sender >= 0 && !arrived(step.arrival)) return false;
  trace_waiting(lane, step);
  work(step, number_of(lane));
  if (failed_) return false;
  budget -= std::min(budget, step.count);
  ++lane.next_later;
  return true;
}

// The lane had nothing to do until this step could be taken.
void CodedExecution::trace_waiting(Lane& lane, const Bound& step) {
  if (!lane.idle_since) return;
  const int peer = step.channel != nullptr ? step.channel->endpoint->peer() : step.sender;
  const std::size_t bytes = step.kind == Kind::send ? 0 : step.from_bytes;
  trace_.over({"await", peer, bytes, -1, number_of(lane)}, *lane.idle_since);
  lane.idle_since.reset();
}

void CodedExecution::work(const Bound& step, std::uint8_t lane) {
  const auto begin = Clock::now();
  const bool encoding = step.kind == Kind::encode || step.to_wire;
  const auto result = encoding ? encode(step) : decode(step);
  (encoding ? running_.encode : running_.decode) += Seconds(Clock::now() - begin);
  const bool decodes = step.from_coded && !(encoding && step.to_coded);
  trace_.over({step.kind == Kind::encode ? "encode"
               : decodes                 ? "decode"
               : step.kind == Kind::add  ? "reduce"
                                         : "copy",
               step.sender, step.kind == Kind::encode ? step.to_bytes : step.from_bytes, -1, lane},
              begin);
  if (result) return;
  Error error = result.error();
  if (step.sender >= 0) {
    error.message = fmt::format("what rank {} sent cannot be decoded: {}", step.sender, error.message);
    error.peer = step.sender;
  }
  fail_with(std::move(error));
}

// Into a message.
Result<void> CodedExecution::encode(const Bound& step) {
  const std::byte* from = address(step.from_wire, step.from_store, step.from);
  std::byte* to = address(true, Store::scratch, step.to);
  if (step.kind == Kind::store) {
    if (!step.from_coded || step.to_coded) {
      std::memcpy(to, from, step.to_bytes);  // the same form
      return {};
    }
    return decoder_->decode({from, step.from_bytes}, {reinterpret_cast<float*>(to), step.count});
  }
  const std::span values(reinterpret_cast<const float*>(from), step.count);
  origin_.rank = step.own ? static_cast<std::uint32_t>(program_.rank) : fingerprint(values);
  origin_.first = step.first;
  GRADRAIL_ASSIGN(const Encoded encoded, step.codec->encode(values, {to, step.to_bytes}, origin_));
  GRADRAIL_CHECK(encoded.bytes == step.to_bytes);
  running_.non_finite |= encoded.non_finite;
  return {};
}

// Into memory.
Result<void> CodedExecution::decode(const Bound& step) {
  const std::byte* from = address(step.from_wire, step.from_store, step.from);
  std::byte* to = address(false, step.to_store, step.to);
  const std::span values(reinterpret_cast<float*>(to), step.count);
  if (step.kind == Kind::add) {
    if (step.from_coded) return decoder_->decode_add({from, step.from_bytes}, values);
    add_(to, to, from, step.count);
    return {};
  }
  if (step.from_coded) return decoder_->decode({from, step.from_bytes}, values);
  if (from != to) std::memcpy(to, from, step.from_bytes);
  return {};
}

bool CodedExecution::all_moved() const {
  return std::all_of(pipes_.begin(), pipes_.end(),
                     [](const Pipe& pipe) { return pipe.channel->endpoint->sends_done() >= pipe.last_send; });
}

Execution::Awaited CodedExecution::awaited() const {
  for (const Lane& lane : lanes_) {
    if (lane.next == lane.main.size()) continue;
    const Bound& step = lane.main[lane.next];
    if (step.kind == Kind::await) return {step.channel, true};
    if (step.kind == Kind::send) return {step.channel, false};
  }
  for (const Pipe& pipe : pipes_) {
    if (!pipe.arrivals.empty() && !arrived(pipe.arrivals.back())) return {pipe.channel, true};
    if (pipe.channel->endpoint->sends_done() < pipe.last_send) return {pipe.channel, false};
  }
  return {};
}

const Error* CodedExecution::failure() const {
  if (failed_) return &*failed_;
  for (const Pipe& pipe : pipes_)
    if (const Error* error = pipe.channel->endpoint->failure(); error != nullptr && !pipe.channel->idle()) return error;
  return nullptr;
}

}  // namespace gradrail
