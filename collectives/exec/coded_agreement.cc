// Runs the coded programs of all ranks on symbols: a value is a hash of how it came to be, encoding makes another value
// of it, the same one wherever the same value is encoded (codecs are functions of their input, and state that was fed
// alike stays alike).
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "collectives/exec/coded_program.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

using Kind = CodedStep::Kind;

struct Symbol {
  std::uint64_t value = 0;
  int encoded = 0;  // how often, along the contribution that was most often
};

std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x ^= x >> 32;
  x *= 0xD6E8FEB86659FD93u;
  x ^= x >> 29;
  return x;
}

class Symbolic {
 public:
  Symbolic(const CodedProgram& program, int rank) : program_(program), next_(program.lanes.size(), 0) {
    buffers_.assign(2u + program.planes, std::vector<Symbol>(program.grid));
    const Window in = window_of(Store::in, program.shape, rank, program.grid);
    for (std::uint32_t chunk = in.first; chunk < in.end(); ++chunk)
      memory({Store::in, 0, chunk}) = {mixed(static_cast<std::uint64_t>(rank) + 1, chunk), 0};
    for (std::uint32_t i = 0; i < program.messages.size(); ++i) {
      const CodedMessage& message = program.messages[i];
      messages_.emplace_back(message.chunks);
      if (message.received) due_[{message.peer, message.lane}].push_back(i);
    }
  }

  using Pipes = std::map<std::tuple<int, int, int>, std::deque<std::vector<Symbol>>>;  // from, to, lane

  // Goes on as far as what has arrived allows. True if anything was done.
  bool advance(Pipes& pipes) {
    bool moved = false;
    for (std::size_t lane = 0; lane < next_.size(); ++lane)
      while (next_[lane] < program_.lanes[lane].main.size()) {
        const CodedStep& step = program_.lanes[lane].main[next_[lane]];
        if (step.kind == Kind::await) {
          take_up(pipes);
          if (!arrived_.contains(step.from.message)) break;
        } else if (step.kind == Kind::send) {
          std::vector<Symbol> run;
          for (std::uint32_t i = 0; i < step.chunks; ++i) run.push_back(at(step.from, step.chunk + i));
          pipes[{program_.rank, step.peer, static_cast<int>(lane)}].push_back(std::move(run));
        } else {
          apply(step);
        }
        ++next_[lane];
        moved = true;
      }
    return moved;
  }
  [[nodiscard]] bool done() const {
    for (std::size_t lane = 0; lane < next_.size(); ++lane)
      if (next_[lane] < program_.lanes[lane].main.size()) return false;
    return true;
  }
  // What remains is written; then the result's chunks, by chunk (those that this rank has).
  std::map<std::uint32_t, Symbol> finish(Pipes& pipes) {
    take_up(pipes);
    for (const auto& [from, messages] : due_) GRADRAIL_CHECK(messages.empty());  // the plan itself would never end
    for (const CodedLane& lane : program_.lanes)
      for (const CodedStep& step : lane.later) apply(step);
    std::map<std::uint32_t, Symbol> result;
    const Window out = window_of(Store::out, program_.shape, program_.rank, program_.grid);
    for (std::uint32_t chunk = out.first; chunk < out.end(); ++chunk) result[chunk] = memory({Store::out, 0, chunk});
    return result;
  }

 private:
  // Messages of a channel come in order.
  void take_up(Pipes& pipes) {
    for (auto& [from, messages] : due_) {
      auto& pipe = pipes[{from.first, program_.rank, from.second}];
      while (!pipe.empty()) {
        GRADRAIL_CHECK(!messages.empty() && pipe.front().size() == messages_[messages.front()].size());
        messages_[messages.front()] = std::move(pipe.front());
        arrived_.insert(messages.front());
        messages.pop_front();
        pipe.pop_front();
      }
    }
  }
  Symbol& memory(Place place) {
    if (program_.shape.in_place && place.store == Store::out) place.store = Store::in;
    return buffers_[place.store == Store::scratch ? 2u + place.plane
                    : place.store == Store::out   ? 1u
                                                  : 0u][place.chunk];
  }
  Symbol& at(const CodedPlace& place, std::uint32_t chunk) {
    if (!place.wire) return memory(place.memory);
    return messages_[place.message][chunk - program_.messages[place.message].chunk];
  }
  void apply(const CodedStep& step) {
    const Symbol from = at(step.from, step.chunk);
    Symbol& to = at(step.to, step.chunk);
    switch (step.kind) {
      case Kind::encode: to = {mixed(from.value, 0xC0DEC), from.encoded + 1}; break;
      case Kind::store: to = from; break;
      case Kind::add:
        to = {mixed(std::min(to.value, from.value), std::max(to.value, from.value)),
              std::max(to.encoded, from.encoded)};
        break;
      case Kind::send:
      case Kind::await: break;
    }
  }

  const CodedProgram& program_;
  std::vector<std::size_t> next_;
  std::vector<std::vector<Symbol>> buffers_;
  std::vector<std::vector<Symbol>> messages_;
  std::map<std::pair<int, int>, std::deque<std::uint32_t>> due_;  // by peer and lane: received messages, in order
  std::set<std::uint32_t> arrived_;
};

struct Outcome {
  bool agreed = true;
  int encoded = 0;
};

Outcome outcome_of(const std::vector<CodedProgram>& programs) {
  std::vector<Symbolic> ranks;
  for (std::size_t rank = 0; rank < programs.size(); ++rank) ranks.emplace_back(programs[rank], static_cast<int>(rank));
  Symbolic::Pipes pipes;
  for (bool moved = true; moved;) {
    moved = false;
    for (Symbolic& rank : ranks) moved |= rank.advance(pipes);
  }
  Outcome outcome;
  std::map<std::uint32_t, Symbol> first;
  for (Symbolic& rank : ranks) {
    GRADRAIL_CHECK(rank.done());  // the plan itself cannot end
    for (const auto& [chunk, symbol] : rank.finish(pipes)) {
      const Symbol& other = first.try_emplace(chunk, symbol).first->second;
      outcome.agreed &= other.value == symbol.value;
      outcome.encoded = std::max(outcome.encoded, symbol.encoded);
    }
  }
  return outcome;
}

}  // namespace

Result<Agreement> agreement_of(const Planner& planner, Shape shape, CodecWhere where) {
  shape.lanes = shape.pieces = 1;
  GRADRAIL_ASSIGN(const Schedule schedule, plan_all(planner, shape));
  for (const bool round_trip : {false, true}) {
    std::vector<CodedProgram> programs;
    programs.reserve(schedule.programs.size());
    for (const Program& program : schedule.programs) programs.push_back(coded(program, where, round_trip));
    if (const Outcome outcome = outcome_of(programs); outcome.agreed) return Agreement{round_trip, outcome.encoded};
  }
  return fail(Code::unsupported,
              fmt::format("{} with data encoded {} would leave ranks with different bits; {}", planner.name,
                          where == CodecWhere::everywhere ? "everywhere" : "between hosts only",
                          where == CodecWhere::everywhere ? "choose another algorithm"
                                                          : "choose hierarchical, or encode everywhere"));
}

}  // namespace gradrail
