// The programs run against each other on symbols. check_order() has shown that no two conflicting steps of a rank can
// overlap, so every run gives the same values and one run proves them all; and starting and completing are monotone
// (nothing that may happen is ever forbidden again), so if this run ends, every run ends.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "collectives/schedule/proof.h"
#include "collectives/schedule/render.h"

namespace gradrail::proof {

namespace {

std::uint64_t mixed(std::uint64_t x) {  // the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// What a chunk holds. Each (rank, chunk of its input) is a symbol, a 64-bit hash. A reduction holds the sum of its
// symbols, which with their number tells a contribution that is missing or there twice; and a hash of the tree that it
// was computed by, in which the two operands may be exchanged, as in IEEE arithmetic.
struct Value {
  std::uint64_t sum = 0;
  std::uint64_t tree = 0;
  std::uint64_t count = 0;  // 0: nothing was ever written here
};

Value symbol(std::uint32_t rank, std::uint32_t chunk) {
  const std::uint64_t hash = mixed(mixed(rank) ^ (std::uint64_t{chunk} << 32));
  return {hash, hash, 1};
}

Value combined(const Value& a, const Value& b) {
  return {a.sum + b.sum, mixed(mixed(a.tree) + mixed(b.tree)), a.count + b.count};
}

class Machine {
 public:
  Machine(const Schedule& schedule, const Matching& matching, int credits)
      : schedule_(schedule),
        matching_(matching),
        credits_(static_cast<std::uint32_t>(credits)),
        grid_(schedule.programs[0].grid) {
    pipes_.resize(matching.pipes.size());
    in_flight_.resize(matching.messages.size());
    queued_.resize(schedule.programs.size() * static_cast<std::size_t>(schedule.shape.lanes));
    for (const Program& program : schedule.programs) prepare(program);
  }

  Result<void> run() {
    while (!ready_.empty()) {
      const std::size_t id = ready_.back();
      ready_.pop_back();
      LaneProgress& lane = lanes_[id];
      while (!lane.all_started() && lane.may_start()) {
        const std::uint32_t index = lane.next();
        lane.start();
        GRADRAIL_TRY(start(rank_of(id), index));
      }
      queued_[id] = false;
    }
    return check_ended();
  }

  Result<void> check_promises() const;

 private:
  struct PipeState {
    std::uint32_t sent = 0;      // sends started
    std::uint32_t received = 0;  // receives started
  };
  using Buffers = std::vector<std::vector<Value>>;  // by buffer_of(), by chunk

  void prepare(const Program& program) {
    Buffers& buffers = buffers_.emplace_back(2u + program.planes);
    const auto touch = [&](const Place& place) {
      auto& buffer = buffers[buffer_of(place, program.shape.in_place)];
      if (buffer.empty()) buffer.resize(grid_);
    };
    touch({Store::in, 0, 0});
    touch({Store::out, 0, 0});
    for (const Step& s : program.steps) {
      if (s.reads()) touch(s.from);
      if (s.writes()) touch(s.to);
    }
    const Window in = window_of(Store::in, program.shape, program.rank, grid_);
    for (std::uint32_t chunk = in.first; chunk < in.end(); ++chunk)
      buffers[0][chunk] = symbol(static_cast<std::uint32_t>(program.rank), chunk);
    for (int lane = 0; lane < program.shape.lanes; ++lane) {
      lanes_.emplace_back(program, lane);
      wake(static_cast<std::uint32_t>(program.rank), static_cast<std::uint32_t>(lane));
    }
  }

  [[nodiscard]] std::size_t lane_id(std::size_t rank, std::size_t lane) const {
    return rank * static_cast<std::size_t>(schedule_.shape.lanes) + lane;
  }
  [[nodiscard]] std::size_t rank_of(std::size_t lane) const {
    return lane / static_cast<std::size_t>(schedule_.shape.lanes);
  }

  Value* values(std::size_t rank, const Place& place) {
    return buffers_[rank][buffer_of(place, schedule_.shape.in_place)].data() + place.chunk;
  }

  void wake(std::size_t rank, std::uint32_t lane) {
    const std::size_t id = lane_id(rank, lane);
    if (queued_[id]) return;
    queued_[id] = true;
    ready_.push_back(id);
  }

  void complete(std::size_t rank, std::uint32_t index) {
    const std::uint32_t lane = schedule_.programs[rank].steps[index].lane;
    lanes_[lane_id(rank, lane)].complete(index);
    wake(rank, lane);
  }

  Result<void> start(std::size_t rank, std::uint32_t index) {
    const Program& program = schedule_.programs[rank];
    const Step& s = program.steps[index];
    if (s.reads()) GRADRAIL_TRY(defined(rank, index, s.from));
    if (s.op == Op::reduce) GRADRAIL_TRY(defined(rank, index, s.to));
    switch (s.op) {
      case Op::copy: std::copy_n(values(rank, s.from), s.chunks, values(rank, s.to)); break;
      case Op::reduce: {
        const Value* from = values(rank, s.from);
        Value* to = values(rank, s.to);
        for (std::uint32_t i = 0; i < s.chunks; ++i) to[i] = combined(to[i], from[i]);
        break;
      }
      case Op::send: return start_send(rank, index);
      case Op::recv:
      case Op::recv_reduce: start_receive(rank, index); return {};
    }
    complete(rank, index);
    return {};
  }

  Result<void> defined(std::size_t rank, std::uint32_t index, const Place& place) {
    const Program& program = schedule_.programs[rank];
    const Value* held = values(rank, place);
    for (std::uint32_t i = 0; i < program.steps[index].chunks; ++i)
      if (held[i].count == 0)
        return wrong(program, index,
                     fmt::format("reads {}, which nothing has been written to",
                                 to_string({place.store, place.plane, place.chunk + i}, 1)));
    return {};
  }

  Result<void> start_send(std::size_t rank, std::uint32_t index) {
    const Step& s = schedule_.programs[rank].steps[index];
    const std::uint32_t message = matching_.message_of[rank][index];
    const std::uint32_t id = matching_.messages[message].pipe;
    PipeState& pipe = pipes_[id];
    const std::uint32_t number = pipe.sent++;
    // What is sent cannot change before the send completes (check_order), so its start is as good a moment as any.
    if (number < pipe.received) {
      deliver(message, values(rank, s.from));
      complete(rank, index);
    } else {
      in_flight_[message].assign(values(rank, s.from), values(rank, s.from) + s.chunks);
      if (number < pipe.received + credits_) complete(rank, index);
    }
    return {};
  }

  void start_receive(std::size_t rank, std::uint32_t index) {
    const std::uint32_t message = matching_.message_of[rank][index];
    const std::uint32_t id = matching_.messages[message].pipe;
    PipeState& pipe = pipes_[id];
    const Pipe& ends = matching_.pipes[id];
    const std::uint32_t number = pipe.received++;
    if (number < pipe.sent) {
      deliver(message, in_flight_[message].data());
      in_flight_[message] = {};
    }
    // One more place in the pipe: this message's send completes, or with credits a later one.
    const std::uint32_t released = number + credits_;
    if (released < pipe.sent) complete(ends.from, matching_.messages[ends.first + released].send);
  }

  void deliver(std::uint32_t message, const Value* incoming) {
    const Message& m = matching_.messages[message];
    const Pipe& pipe = matching_.pipes[m.pipe];
    const Step& s = schedule_.programs[pipe.to].steps[m.receive];
    Value* to = values(pipe.to, s.to);
    if (s.op == Op::recv) {
      std::copy_n(incoming, s.chunks, to);
    } else {
      const Value* from = values(pipe.to, s.from);
      for (std::uint32_t i = 0; i < s.chunks; ++i) to[i] = combined(from[i], incoming[i]);
    }
    complete(pipe.to, m.receive);
  }

  Result<void> check_ended() {
    for (std::size_t id = 0; id < lanes_.size(); ++id)
      if (!lanes_[id].all_started())
        return wrong(schedule_.programs[rank_of(id)], lanes_[id].next(),
                     fmt::format("never starts: it waits for step {}, and no rank can go on (credits {})",
                                 lanes_[id].waits_for(), credits_));
    return {};  // all steps have started and every message has two ends, so all have completed
  }

  const Schedule& schedule_;
  const Matching& matching_;
  const std::uint32_t credits_;
  const std::uint32_t grid_;
  std::vector<Buffers> buffers_;  // by rank
  std::vector<LaneProgress> lanes_;
  std::vector<std::size_t> ready_;  // lanes that may be able to go on
  std::vector<bool> queued_;        // those of them, and the one that is going on
  std::vector<PipeState> pipes_;
  std::vector<std::vector<Value>> in_flight_;  // by message
};

// The rank whose input a chunk of `rank`'s output comes from, and which chunk of it. For collectives that move data
// only.
std::pair<std::uint32_t, std::uint32_t> source_of(const Shape& shape, std::uint32_t rank, std::uint32_t grid,
                                                  std::uint32_t chunk) {
  const auto n = static_cast<std::uint32_t>(shape.ranks);
  const std::uint32_t pieces = std::max(1u, grid / n);
  switch (shape.collective) {
    case Collective::all_gather:
    case Collective::gather: return {chunk / pieces, chunk};
    case Collective::broadcast:
    case Collective::scatter: return {static_cast<std::uint32_t>(shape.root), chunk};
    case Collective::all_to_all: return {chunk / pieces, rank * pieces + chunk % pieces};
    case Collective::send_recv: return {(rank + n - 1) % n, chunk};
    case Collective::allreduce:
    case Collective::reduce_scatter:
    case Collective::reduce: break;
  }
  return {rank, chunk};
}

Result<void> Machine::check_promises() const {
  const Shape& shape = schedule_.shape;
  const auto n = static_cast<std::uint64_t>(shape.ranks);
  const bool reducing = reduces(shape.collective);
  std::vector<std::uint64_t> full(reducing ? grid_ : 0);  // by chunk, the sum of all ranks' symbols
  for (std::uint32_t chunk = 0; chunk < full.size(); ++chunk)
    for (std::uint32_t rank = 0; rank < n; ++rank) full[chunk] += symbol(rank, chunk).sum;
  struct Tree {
    std::uint64_t hash = 0;
    int rank = -1;  // the first that holds it
  };
  std::vector<Tree> trees(full.size());

  for (const Program& program : schedule_.programs) {
    const auto rank = static_cast<std::uint32_t>(program.rank);
    const Window out = window_of(Store::out, shape, program.rank, grid_);
    const auto& held = buffers_[rank][shape.in_place ? 0 : 1];
    for (std::uint32_t chunk = out.first; chunk < out.end(); ++chunk) {
      const Value& value = held[chunk];
      const auto bad = [&](std::string what) {
        return fail(Code::malformed, fmt::format("rank {} ends with out {} {}", rank, chunk, what), program.rank);
      };
      if (value.count == 0) return bad("never written");
      if (!reducing) {
        const auto [owner, its_chunk] = source_of(shape, rank, grid_, chunk);
        const Value wanted = symbol(owner, its_chunk);
        if (value.count != 1 || value.sum != wanted.sum || value.tree != wanted.tree)
          return bad(fmt::format("not holding chunk {} of rank {}'s input", its_chunk, owner));
        continue;
      }
      if (value.count != n || value.sum != full[chunk]) {
        for (std::uint32_t other = 0; other < n; ++other) {
          const std::uint64_t its = symbol(other, chunk).sum;
          if (value.count + 1 == n && value.sum + its == full[chunk])
            return bad(fmt::format("lacking rank {}'s contribution", other));
          if (value.count == n + 1 && value.sum - its == full[chunk])
            return bad(fmt::format("holding rank {}'s contribution twice", other));
        }
        return bad(fmt::format("holding {} contributions that are not each of {} ranks' once", value.count, n));
      }
      Tree& tree = trees[chunk];
      if (tree.rank < 0) tree = {value.tree, program.rank};
      if (tree.hash != value.tree)
        return bad(fmt::format("reduced in another order than rank {}'s, so the bits may differ", tree.rank));
    }
  }
  return {};
}

}  // namespace

Result<void> check_outcome(const Schedule& schedule, const Matching& matching, int credits) {
  Machine machine(schedule, matching, credits);
  GRADRAIL_TRY(machine.run());
  return machine.check_promises();
}

}  // namespace gradrail::proof
