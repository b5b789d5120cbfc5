#include "collectives/exec/binding.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "transports/base/check.h"

namespace gradrail {

namespace {

constexpr std::size_t k_cache_line = 64;

// Messages that are staged. A shorter one is sent without looking where its answer goes; of a longer one the first
// bytes would have left the caches before the last are there.
constexpr std::size_t k_least_staged = 8 << 10;
constexpr std::size_t k_most_staged = 1 << 20;
constexpr std::size_t k_stage_unit = 4 << 10;
// Stages a peer. Four is the least with which nobody waits in a circle: a rank that has answered message k, and looks
// where the answer to k + 1 goes, must not depend on the other's having done the same. Two more let them be apart in
// time.
constexpr std::size_t k_stages = 6;

// Where chunks lie in the stores of one rank.
class Layout {
 public:
  Layout(const Program& program, std::uint64_t elements, std::size_t element_bytes)
      : program_(program), elements_(elements), element_bytes_(element_bytes) {
    blocks_ = is_blocked(program.shape.collective) ? static_cast<std::uint32_t>(program.shape.ranks) : 1;
    align_ = static_cast<std::uint32_t>(k_cache_line / element_bytes);
    const Window in = window_of(Store::in, program.shape, program.rank, program.grid);
    const Window out = window_of(Store::out, program.shape, program.rank, program.grid);
    in_first_ = begin(in.first);
    out_first_ = begin(out.first);
    in_bytes = begin(in.end()) - in_first_;
    out_bytes = begin(out.end()) - out_first_;
    plane_bytes_ = (elements * element_bytes + k_cache_line - 1) / k_cache_line * k_cache_line;
  }

  [[nodiscard]] std::size_t offset(Place place) const {
    switch (place.store) {
      case Store::in: return begin(place.chunk) - in_first_;
      case Store::out: return begin(place.chunk) - out_first_;
      case Store::scratch: return place.plane * plane_bytes_ + begin(place.chunk);
    }
    return 0;
  }
  [[nodiscard]] std::size_t bytes(const Step& step) const {
    const std::uint32_t first = step.reads() ? step.from.chunk : step.to.chunk;
    return begin(first + step.chunks) - begin(first);
  }
  [[nodiscard]] std::size_t scratch_bytes() const { return program_.planes * plane_bytes_; }

  std::size_t in_bytes = 0;
  std::size_t out_bytes = 0;

 private:
  [[nodiscard]] std::size_t begin(std::uint32_t chunk) const {
    return chunk_begin(elements_, program_.grid, blocks_, align_, chunk) * element_bytes_;
  }

  const Program& program_;
  std::uint64_t elements_;
  std::size_t element_bytes_;
  std::uint32_t blocks_ = 1;
  std::uint32_t align_ = 1;
  std::size_t in_first_ = 0;
  std::size_t out_first_ = 0;
  std::size_t plane_bytes_ = 0;
};

// A run of program steps, all of one lane, that becomes one bound step.
struct Piece {
  std::vector<std::int32_t> steps;
  std::size_t inputs = 0;  // leading receives that make a stream; 0 if the piece is a single other step
};

// Whether `step` adds to what `first` receives: the same run again, on top of itself.
bool adds_to(const Step& first, const Step& step) {
  return step.op == Op::recv_reduce && step.to == first.to && step.from == first.to && step.chunks == first.chunks;
}

bool passes_on(const Step& first, const Step& step) {
  return step.op == Op::send && step.from == first.to && step.chunks == first.chunks;
}

// Whether the step receives, of a plan whose messages answer what was sent, just what it waits to have been sent.
bool is_answer(const Program& program, const Step& step) {
  if (step.op != Op::recv || step.after_send < 0) return false;
  const Step& send = program.steps[static_cast<std::size_t>(step.after_send)];
  const bool same_buffer =
      send.from == step.to || (program.shape.in_place && send.from.store != Store::scratch &&
                               step.to.store != Store::scratch && send.from.chunk == step.to.chunk);
  return send.op == Op::send && send.lane == step.lane && send.peer == step.peer && send.chunks == step.chunks &&
         same_buffer;
}

// Whether the lane is nothing but an exchange in place with one peer by way of scratch.
bool is_exchange(const Program& program, const std::vector<std::int32_t>& lane) {
  if (lane.size() != 3 || !program.shape.in_place) return false;
  const auto at = [&](std::size_t i) -> const Step& { return program.steps[static_cast<std::size_t>(lane[i])]; };
  const Step &send = at(0), &receive = at(1), &back = at(2);
  return send.op == Op::send && receive.op == Op::recv_reduce && back.op == Op::copy && send.peer == receive.peer &&
         send.chunks == receive.chunks && send.chunks == back.chunks && send.from.store != Store::scratch &&
         receive.from == send.from && receive.to.store == Store::scratch && back.from == receive.to &&
         back.to.store != Store::scratch && back.to.chunk == send.from.chunk;
}

// Where in scratch messages of a program are staged, if that is done at all. They take turns: a stage is used again
// when the answer to what it held has been copied out.
class Stages {
 public:
  struct Use {
    std::size_t stage = 0;
    std::int32_t freed_by = -1;  // the step, a recv of the same lane, that must be complete before; -1: none
  };

  // The next lane's steps. `staged`: whether messages of the step may be.
  void add(const Program& program, const std::vector<std::int32_t>& lane,
           const std::function<bool(const Step&)>& staged) {
    std::map<std::tuple<std::uint16_t, std::uint32_t, std::uint32_t>, std::int32_t> sent;  // peer, first chunk, chunks
    std::map<std::int32_t, std::int32_t> answered;                                         // by recv
    for (const std::int32_t index : lane) {
      const Step& step = program.steps[static_cast<std::size_t>(index)];
      if (step.op == Op::send && step.from.store != Store::scratch && staged(step))
        sent[{step.peer, step.from.chunk, step.chunks}] = index;
      if (step.op != Op::recv || step.to.store == Store::scratch) continue;
      const auto found = sent.find({step.peer, step.to.chunk, step.chunks});
      if (found == sent.end()) continue;
      answered[index] = found->second;
      uses_[found->second] = {};
      sent.erase(found);
    }
    std::set<std::uint16_t> peers;
    for (const auto& [recv, send] : answered) peers.insert(program.steps[static_cast<std::size_t>(send)].peer);
    std::deque<Use> free;
    std::size_t used = 0;  // stages, by this lane
    for (const std::int32_t index : lane) {
      if (const auto send = uses_.find(index); send != uses_.end()) {
        if (free.empty() || used < k_stages * peers.size()) {
          free.push_front({count_++, -1});
          ++used;
        }
        send->second = free.front();
        free.pop_front();
      } else if (const auto recv = answered.find(index); recv != answered.end()) {
        const std::size_t stage = uses_.at(recv->second).stage;
        uses_[index] = {stage, -1};
        free.push_back({stage, index});
      }
    }
  }

  [[nodiscard]] std::size_t count() const { return count_; }
  // Null: it is not staged.
  [[nodiscard]] const Use* use(std::int32_t step) const {
    const auto found = uses_.find(step);
    return found == uses_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::int32_t, Use> uses_;
  std::size_t count_ = 0;
};

// How the sends of a piece may be produced, by what the binding knows of channels and memory.
struct Fusing {
  std::function<bool(const Step&)> in_place;  // the step's channel takes messages written in place
  std::function<bool(const Step&)> attached;  // else its peer reads the message in our memory
  bool direct_out = false;

  // Scratch is the transports' own.
  [[nodiscard]] bool direct(Place place) const {
    return place.store == Store::scratch || (place.store == Store::out && direct_out);
  }
};

// Cuts the lane's steps (those that move any bytes) into pieces.
std::vector<Piece> cut(const Program& program, const std::vector<std::int32_t>& lane, const Fusing& fusing) {
  std::vector<Piece> pieces;
  const auto at = [&](std::size_t i) -> const Step& { return program.steps[static_cast<std::size_t>(lane[i])]; };
  for (std::size_t i = 0; i < lane.size();) {
    const Step& first = at(i);
    Piece piece{{lane[i]}, 0};
    std::size_t next = i + 1;
    if (first.receives()) {
      // Each peer at most once: a stream reads one message from each of its inputs.
      std::set<std::uint16_t> from{first.peer};
      std::set<std::uint16_t> to;
      if (first.op == Op::recv_reduce)
        while (next < lane.size() && adds_to(first, at(next)) && from.insert(at(next).peer).second)
          piece.steps.push_back(lane[next++]);
      piece.inputs = piece.steps.size();
      while (next < lane.size() && passes_on(first, at(next)) && fusing.in_place(at(next)) &&
             to.insert(at(next).peer).second)
        piece.steps.push_back(lane[next++]);
      const bool goes_back = first.op == Op::recv_reduce && from == to;
      const bool spared =
          fusing.direct(first.to) || (piece.steps.size() > piece.inputs && fusing.attached(at(next - 1)));
      if (spared && !goes_back) {
        next = i + piece.inputs;
        piece.steps.resize(piece.inputs);
      }
      // A receive that is not passed on lands by itself, in its destination.
      if (first.op == Op::recv && piece.steps.size() == 1) piece.inputs = 0;
    }
    pieces.push_back(std::move(piece));
    i = next;
  }
  return pieces;
}

}  // namespace

std::vector<ChannelKey> channels_of(const Program& program) {
  std::set<ChannelKey> keys;
  for (const Step& step : program.steps)
    if (step.talks()) keys.insert({step.peer, step.lane});
  return {keys.begin(), keys.end()};
}

BoundProgram bind(const Program& program, std::uint64_t count, Type type, ReduceOp op, const BindOptions& options,
                  const std::function<Channel*(ChannelKey)>& channel) {
  const Shape& shape = program.shape;
  BoundProgram bound;
  bound.element_bytes = size_of(type);
  bound.elements = is_blocked(shape.collective) ? count * static_cast<std::uint64_t>(shape.ranks) : count;
  const Layout layout(program, bound.elements, bound.element_bytes);
  bound.in_bytes = layout.in_bytes;
  bound.out_bytes = layout.out_bytes;
  bound.scratch_bytes = layout.scratch_bytes();
  bound.reduce = reduce_function(type, op);
  bound.reduce_many = reduce_many_function(type, op);
  bound.divide = divide_function(type);
  if (op == ReduceOp::avg && reduces(shape.collective)) bound.divide_by = shape.ranks;
  bound.lanes.resize(static_cast<std::size_t>(shape.lanes));
  for (const Step& step : program.steps) bound.ops.push_back(step.op);

  const auto channel_of = [&](const Step& step) { return channel({step.peer, step.lane}); };
  Fusing fusing;
  fusing.in_place = [&](const Step& step) { return channel_of(step)->writes_in_place; };
  fusing.attached = [&](const Step& step) {
    return step.from.store != Store::scratch && !options.direct_out &&
           layout.bytes(step) >= channel_of(step)->attached_from;
  };
  fusing.direct_out = options.direct_out;
  std::vector<std::vector<std::int32_t>> by_lane(bound.lanes.size());
  for (std::size_t i = 0; i < program.steps.size(); ++i)
    if (layout.bytes(program.steps[i]) > 0) by_lane[program.steps[i].lane].push_back(static_cast<std::int32_t>(i));

  Stages stages;
  std::size_t stage_bytes = 0;
  if (options.answers && !options.direct_out)
    for (const auto& steps : by_lane)
      stages.add(program, steps, [&](const Step& step) {
        const Channel& peer = *channel_of(step);
        const std::size_t bytes = layout.bytes(step);
        if (!peer.copies_out || !peer.writes_in_place || bytes < k_least_staged || bytes > k_most_staged) return false;
        stage_bytes = std::max(stage_bytes, (bytes + k_stage_unit - 1) / k_stage_unit * k_stage_unit);
        return true;
      });
  bound.stages = stages.count() > 0;
  bound.scratch_bytes += stages.count() * stage_bytes;

  std::size_t exchanges = 0;
  for (std::size_t lane = 0; lane < by_lane.size(); ++lane) {
    const auto& steps = by_lane[lane];
    if (!options.direct_out && is_exchange(program, steps)) {
      const Step& send = program.steps[static_cast<std::size_t>(steps[0])];
      if (Channel* const peer = channel_of(send); peer->copies_out) {
        BoundStep out;
        out.kind = BoundStep::Kind::exchange;
        out.reduces = true;
        out.step = steps[0];
        out.bytes = layout.bytes(send);
        out.from_store = out.to_store = send.from.store;
        out.from = out.to = layout.offset(send.from);
        out.inputs = out.outputs = 1;
        out.channels = static_cast<std::uint32_t>(bound.channels.size());
        bound.channels.insert(bound.channels.end(), {peer, peer});
        out.state = bound.streams++;
        bound.lanes[lane].push_back(out);
        ++exchanges;
        continue;
      }
    }
    // Prefix counts, so that binding stays linear in the number of steps.
    std::vector<std::uint32_t> sends_before(steps.size() + 1, 0);
    for (std::size_t i = 0; i < steps.size(); ++i)
      sends_before[i + 1] =
          sends_before[i] + (program.steps[static_cast<std::size_t>(steps[i])].op == Op::send ? 1u : 0u);
    const auto sends_up_to = [&](std::int32_t last) {
      const auto end = std::upper_bound(steps.begin(), steps.end(), last) - steps.begin();
      return sends_before[static_cast<std::size_t>(end)];
    };
    const auto others_up_to = [&](std::int32_t last) {
      const auto end = std::upper_bound(steps.begin(), steps.end(), last) - steps.begin();
      return static_cast<std::uint32_t>(end) - sends_before[static_cast<std::size_t>(end)];
    };

    for (const Piece& piece : cut(program, steps, fusing)) {
      const Step& first = program.steps[static_cast<std::size_t>(piece.steps.front())];
      BoundStep out;
      out.step = piece.steps.front();
      out.bytes = layout.bytes(first);
      out.from_store = first.from.store;
      out.to_store = first.to.store;
      if (first.reads()) out.from = layout.offset(first.from);
      if (first.writes()) out.to = layout.offset(first.to);
      out.channels = static_cast<std::uint32_t>(bound.channels.size());
      for (const std::int32_t index : piece.steps) {
        const Step& step = program.steps[static_cast<std::size_t>(index)];
        if (step.talks()) bound.channels.push_back(channel_of(step));
        // What the later steps of a piece wait for is the piece's own doing.
        if (step.after < out.step) out.need_done = std::max(out.need_done, others_up_to(step.after));
        if (step.after_send < out.step && !(options.answers && is_answer(program, step)))
          out.need_sent = std::max(out.need_sent, sends_up_to(step.after_send));
        if (const auto* use = stages.use(index); use != nullptr) {
          out.staged = layout.scratch_bytes() + use->stage * stage_bytes;
          if (use->freed_by >= 0) out.need_done = std::max(out.need_done, others_up_to(use->freed_by));
        }
      }
      if (piece.inputs > 0) {
        out.kind = BoundStep::Kind::stream;
        out.reduces = first.op == Op::recv_reduce;
        out.inputs = static_cast<std::uint16_t>(piece.inputs);
        out.outputs = static_cast<std::uint16_t>(piece.steps.size() - piece.inputs);
        out.state = bound.streams++;
        out.outs = bound.stream_outputs;
        // A result that no cache can hold until it is read, of memory that was not just read: that it need not be read
        // in order to be written saves a third of the traffic. What is sent likewise goes straight to such memory.
        if (options.past_cache && out.reduces && out.to_store == Store::out && !shape.in_place)
          out.around = options.direct_out ? 1u + out.outputs : 1u;
        // Memory of the peer's that was just read is written like any other. A slot lies in another core's cache,
        // whence a copy of some KiB fetches it two to four times as fast as single stores do.
        out.writes_all = options.direct_out || bound.stages;
        bound.stream_outputs += out.outputs;
        bound.widest = std::max<std::uint32_t>(bound.widest, 2u + out.inputs + out.outputs);
      } else {
        switch (first.op) {
          case Op::send:
            out.kind = BoundStep::Kind::send;
            out.outputs = 1;
            break;
          case Op::recv:
            out.kind = BoundStep::Kind::recv;
            out.inputs = 1;
            break;
          case Op::reduce: out.kind = BoundStep::Kind::reduce; break;
          case Op::copy: out.kind = BoundStep::Kind::copy; break;
          case Op::recv_reduce: GRADRAIL_CHECK(!"a recv_reduce is a stream");
        }
      }
      bound.lanes[lane].push_back(out);
    }
  }
  if (exchanges > 0 && std::count_if(by_lane.begin(), by_lane.end(), [](const auto& lane) { return !lane.empty(); }) ==
                           static_cast<std::ptrdiff_t>(exchanges))
    bound.scratch_bytes = 0;  // all that was to be there is not
  bound.each_channel = bound.channels;
  std::sort(bound.each_channel.begin(), bound.each_channel.end());
  bound.each_channel.erase(std::unique(bound.each_channel.begin(), bound.each_channel.end()), bound.each_channel.end());
  return bound;
}

}  // namespace gradrail
