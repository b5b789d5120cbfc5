#include "collectives/schedule/builder.h"

#include <algorithm>

#include "transports/base/check.h"

namespace gradrail {

struct Builder::Touched {
  std::int32_t written = -1;  // last step that wrote the chunk
  std::int32_t read = -1;     // last step that is not a send and read it
  std::int32_t sent = -1;     // last send that read it
  std::int16_t lane = -1;     // the lane whose chunk this is; -1 as long as none touched it
};

Group Group::all(const Shape& shape, int rank) {
  Group group;
  group.ranks.resize(static_cast<std::size_t>(shape.ranks));
  for (int r = 0; r < shape.ranks; ++r) group.ranks[static_cast<std::size_t>(r)] = r;
  group.me = rank;
  return group;
}

Group Group::same_host(const Shape& shape, int rank) {
  Group group;
  const int first = rank / shape.ranks_per_host * shape.ranks_per_host;
  for (int r = 0; r < shape.ranks_per_host; ++r) group.ranks.push_back(first + r);
  group.me = rank - first;
  return group;
}

Group Group::across_hosts(const Shape& shape, int rank) {
  Group group;
  for (int r = rank % shape.ranks_per_host; r < shape.ranks; r += shape.ranks_per_host) group.ranks.push_back(r);
  group.me = rank / shape.ranks_per_host;
  return group;
}

Builder::Builder(const Shape& shape, int rank, std::uint32_t grid) {
  program_.shape = shape;
  view_ = shape;
  program_.rank = rank;
  program_.grid = grid;
  out_ = window_of(Store::out, shape, rank, grid);
  current_.resize(grid);
  for (std::uint32_t chunk = 0; chunk < grid; ++chunk) current_[chunk] = {Store::in, 0, chunk};
  touched_.resize(2);
}

Builder::~Builder() = default;

void Builder::expect(std::size_t steps) { program_.steps.reserve(program_.steps.size() + steps); }

void Builder::lane(int lane) {
  GRADRAIL_CHECK(lane >= 0 && lane < view_.lanes);
  GRADRAIL_CHECK(!wait_);  // a wait is for the next step of the lane it was asked for
  lane_ = static_cast<std::uint8_t>(confined_ < 0 ? lane : confined_);
}

void Builder::confine(int lane) {
  GRADRAIL_CHECK(confined_ < 0 && lane >= 0 && lane < program_.shape.lanes);
  confined_ = lane;
  view_.lanes = 1;
  GRADRAIL_CHECK(!wait_);
  lane_ = static_cast<std::uint8_t>(lane);
}

void Builder::release() {
  confined_ = -1;
  view_.lanes = program_.shape.lanes;
}

void Builder::wait() { wait_ = true; }

Builder::Touched* Builder::touched(Place place) {
  // In place, `in` and `out` are one buffer on the same coordinates.
  const std::size_t buffer = place.store == Store::scratch                           ? 2u + place.plane
                             : place.store == Store::out && !program_.shape.in_place ? 1u
                                                                                     : 0u;
  if (touched_.size() <= buffer) touched_.resize(buffer + 1);
  auto& chunks = touched_[buffer];
  if (chunks.empty()) chunks.resize(program_.grid);
  return &chunks[place.chunk];
}

void Builder::add(Step step) {
  GRADRAIL_CHECK(step.chunks > 0);
  GRADRAIL_CHECK(!step.reads() || step.chunks <= program_.grid - step.from.chunk);
  GRADRAIL_CHECK(!step.writes() || step.chunks <= program_.grid - step.to.chunk);
  step.lane = lane_;
  const auto index = static_cast<std::int32_t>(program_.steps.size());
  const auto own = [&](Touched& t) {
    GRADRAIL_CHECK(t.lane < 0 || t.lane == lane_);  // a planner that lets two lanes touch one chunk
    t.lane = lane_;
  };
  if (wait_) {
    // The last send and the last other step of this lane; a lane's steps are written together, so they are near.
    for (std::int32_t i = index - 1; i >= 0 && (step.after < 0 || step.after_send < 0); --i) {
      const Step& earlier = program_.steps[static_cast<std::size_t>(i)];
      if (earlier.lane != lane_) continue;
      std::int32_t& last = earlier.op == Op::send ? step.after_send : step.after;
      last = std::max(last, i);
    }
    wait_ = false;
  }
  Touched* const from = step.reads() ? touched(step.from) : nullptr;
  Touched* const to = step.writes() ? touched(step.to) : nullptr;
  for (std::uint32_t i = 0; i < step.chunks; ++i) {
    if (from != nullptr) {
      own(from[i]);
      step.after = std::max(step.after, from[i].written);
    }
    if (to != nullptr) {
      own(to[i]);
      step.after = std::max({step.after, to[i].written, to[i].read});
      step.after_send = std::max(step.after_send, to[i].sent);
    }
  }
  // Only now, as a step may write what it reads.
  if (from != nullptr)
    for (std::uint32_t i = 0; i < step.chunks; ++i) (step.op == Op::send ? from[i].sent : from[i].read) = index;
  if (to != nullptr)
    for (std::uint32_t i = 0; i < step.chunks; ++i) to[i].written = index;
  for (const Place place : {step.from, step.to})
    if (place.store == Store::scratch)
      program_.planes = std::max<std::uint8_t>(program_.planes, static_cast<std::uint8_t>(place.plane + 1));
  program_.steps.push_back(step);
}

Place Builder::current(Window window) const {
  GRADRAIL_CHECK(window.count > 0 && window.end() <= program_.grid);
  const Place first = current_[window.first];
  for (std::uint32_t i = 1; i < window.count; ++i) {
    const Place place = current_[window.first + i];
    GRADRAIL_CHECK(place.store == first.store && place.plane == first.plane && place.chunk == first.chunk + i);
  }
  return first;
}

Place Builder::result(Window window) const {
  if (window.first >= out_.first && window.end() <= out_.end()) return {Store::out, 0, window.first};
  return scratch(0, window);
}

Place Builder::scratch(std::uint8_t plane, Window window) const { return {Store::scratch, plane, window.first}; }

bool Builder::settled(Window window) const {
  const Place now = current(window);
  const Place then = result(window);
  return now == then || (program_.shape.in_place && now.store == Store::in && then.store == Store::out);
}

void Builder::moved(Window window, Place place) {
  for (std::uint32_t i = 0; i < window.count; ++i) {
    current_[window.first + i] = place;
    current_[window.first + i].chunk += i;
  }
}

void Builder::send(const Group& group, int peer, Window window) {
  send_from(group, peer, current(window), window.count);
}

void Builder::recv(const Group& group, int peer, Window window) {
  const Place to = result(window);
  recv_to(group, peer, to, window.count);
  moved(window, to);
}

void Builder::recv_reduce(const Group& group, int peer, Window window) {
  const Place from = current(window);
  const Place to = result(window);
  recv_reduce_to(group, peer, from, to, window.count);
  moved(window, to);
}

void Builder::settle(Window window) {
  for (std::uint32_t i = 0; i < window.count;) {
    const Place from = current_[window.first + i];
    const Place to = result({window.first + i, 1});
    std::uint32_t run = 1;
    while (i + run < window.count) {
      const Place next = current_[window.first + i + run];
      const Place next_to = result({window.first + i + run, 1});
      if (next.store != from.store || next.plane != from.plane || next.chunk != from.chunk + run ||
          next_to.store != to.store || next_to.plane != to.plane)
        break;
      ++run;
    }
    const bool aliased = program_.shape.in_place && from.store == Store::in && to.store == Store::out;
    if (from != to && !aliased) copy(from, to, run);
    moved({window.first + i, run}, to);
    i += run;
  }
}

void Builder::send_from(const Group& group, int peer, Place from, std::uint32_t chunks) {
  GRADRAIL_CHECK(peer != group.me);
  Step step;
  step.op = Op::send;
  step.peer = static_cast<std::uint16_t>(group.ranks[static_cast<std::size_t>(peer)]);
  step.chunks = chunks;
  step.from = from;
  add(step);
}

void Builder::recv_to(const Group& group, int peer, Place to, std::uint32_t chunks) {
  GRADRAIL_CHECK(peer != group.me);
  Step step;
  step.op = Op::recv;
  step.peer = static_cast<std::uint16_t>(group.ranks[static_cast<std::size_t>(peer)]);
  step.chunks = chunks;
  step.to = to;
  add(step);
}

void Builder::recv_reduce_to(const Group& group, int peer, Place from, Place to, std::uint32_t chunks) {
  GRADRAIL_CHECK(peer != group.me);
  Step step;
  step.op = Op::recv_reduce;
  step.peer = static_cast<std::uint16_t>(group.ranks[static_cast<std::size_t>(peer)]);
  step.chunks = chunks;
  step.from = from;
  step.to = to;
  add(step);
}

void Builder::reduce(Place from, Place to, std::uint32_t chunks) {
  Step step;
  step.op = Op::reduce;
  step.chunks = chunks;
  step.from = from;
  step.to = to;
  add(step);
}

void Builder::copy(Place from, Place to, std::uint32_t chunks) {
  Step step;
  step.op = Op::copy;
  step.chunks = chunks;
  step.from = from;
  step.to = to;
  add(step);
}

Program Builder::finish() && {
  const Window out = out_;
  // A copy belongs to the lane that owns the chunk; untouched chunks go to lane 0.
  for (std::uint32_t i = 0; i < out.count;) {
    const auto lane_of = [&](std::uint32_t chunk) {
      const Place place = current_[out.first + chunk];
      return std::max<std::int16_t>(0, touched(place)->lane);
    };
    const auto owner = lane_of(i);
    std::uint32_t run = 1;
    while (i + run < out.count && lane_of(i + run) == owner) ++run;
    lane(owner);
    settle({out.first + i, run});
    i += run;
  }
  return std::move(program_);
}

}  // namespace gradrail
