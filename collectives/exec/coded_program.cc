#include "collectives/exec/coded_program.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "transports/base/check.h"

namespace gradrail {

namespace {

using Kind = CodedStep::Kind;

// A value of one chunk, and the forms in which this rank has it.
struct Version {
  std::vector<Place> homes;              // memory that holds it in float32, as long as it was not encoded
  std::optional<std::uint32_t> encoded;  // the message that holds it encoded: that is its value then
  std::optional<std::uint32_t> floats;   // a message that holds it in float32
  bool own = false;                      // this rank's input
  bool summed = false;                   // made here
  std::size_t ready = 0;                 // main steps of its lane after which it is there in the form it has
};

struct Location {
  int version = -1;
  std::size_t since = 0;  // main steps of its lane that were there when it got this version
  std::uint8_t lane = 0;
};

class Coder {
 public:
  Coder(const Program& program, CodecWhere where, bool round_trip)
      : program_(program), where_(where), round_trip_(round_trip) {
    out_.shape = program.shape;
    out_.rank = program.rank;
    out_.grid = program.grid;
    out_.planes = program.planes;
    out_.lanes.resize(static_cast<std::size_t>(program.shape.lanes));
    locations_.resize(2u + program.planes, std::vector<Location>(program.grid));
    const Window in = window_of(Store::in, program.shape, program.rank, program.grid);
    for (std::uint32_t chunk = in.first; chunk < in.end(); ++chunk) {
      Version version;
      version.own = true;
      version.homes.push_back({Store::in, 0, chunk});
      at({Store::in, 0, chunk}).version = add_version(std::move(version));
    }
    if (round_trip) find_results();
  }

  CodedProgram run() && {
    for (const Step& step : program_.steps) {
      lane_ = step.lane;
      switch (step.op) {
        case Op::send: send(step); break;
        case Op::recv:
        case Op::recv_reduce: receive(step); break;
        case Op::reduce:
          for (std::uint32_t i = 0; i < step.chunks; ++i)
            sum(moved(step.to, i), moved(step.from, i), moved(step.to, i));
          break;
        case Op::copy:
          for (std::uint32_t i = 0; i < step.chunks; ++i) copy(moved(step.from, i), moved(step.to, i));
          break;
      }
      ++index_;
    }
    settle();
    return std::move(out_);
  }

 private:
  static Place moved(Place place, std::uint32_t chunks) {
    place.chunk += chunks;
    return place;
  }
  [[nodiscard]] Place same_buffer(Place place) const {
    if (program_.shape.in_place && place.store == Store::out) place.store = Store::in;
    return place;
  }
  Location& at(Place place) {
    const Place here = same_buffer(place);
    const std::size_t buffer = here.store == Store::scratch ? 2u + here.plane : here.store == Store::out ? 1u : 0u;
    return locations_[buffer][here.chunk];
  }
  int add_version(Version version) {
    versions_.push_back(std::move(version));
    return static_cast<int>(versions_.size()) - 1;
  }
  Version& version_at(Place place) {
    Location& location = at(place);
    GRADRAIL_CHECK(location.version >= 0);
    return versions_[static_cast<std::size_t>(location.version)];
  }
  CodedLane& lane() { return out_.lanes[lane_]; }

  // The location gets another version; whatever it held is there no longer.
  void assign(Place place, int version) {
    Location& location = at(place);
    if (location.version >= 0) {
      auto& homes = versions_[static_cast<std::size_t>(location.version)].homes;
      homes.erase(std::remove(homes.begin(), homes.end(), same_buffer(place)), homes.end());
    }
    location = {version, lane().main.size(), lane_};
  }

  [[nodiscard]] bool crosses(int peer) const {
    return where_ == CodecWhere::everywhere ||
           peer / program_.shape.ranks_per_host != program_.rank / program_.shape.ranks_per_host;
  }

  // Where this rank reads the version from.
  [[nodiscard]] static CodedPlace source(const Version& version) {
    CodedPlace place;
    if (version.encoded || version.homes.empty()) {
      place.wire = true;
      GRADRAIL_CHECK(version.encoded || version.floats);
      place.message = version.encoded ? *version.encoded : *version.floats;
    } else {
      place.memory = version.homes.front();
    }
    return place;
  }
  // The same for a step that follows now: what has to arrive first is waited for, once.
  CodedPlace read(const Version& version) {
    const CodedPlace place = source(version);
    if (place.wire) await(place.message);
    return place;
  }
  void await(std::uint32_t index) {
    const CodedMessage& message = out_.messages[index];
    if (!message.received || !awaited_.insert(index).second) return;
    CodedStep& wait = emit(Kind::await, message.chunk, on_wire(index), {});
    wait.peer = message.peer;
    wait.chunks = message.chunks;
  }
  static CodedPlace on_wire(std::uint32_t message) {
    CodedPlace place;
    place.wire = true;
    place.message = message;
    return place;
  }
  static CodedPlace in_memory(Place memory) {
    CodedPlace place;
    place.memory = memory;
    return place;
  }
  CodedStep& emit(Kind kind, std::uint32_t chunk, CodedPlace from, CodedPlace to) {
    CodedStep step;
    step.kind = kind;
    step.chunk = chunk;
    step.from = from;
    step.to = to;
    return lane().main.emplace_back(step);
  }
  std::uint32_t add_message(std::uint32_t chunk, std::uint32_t chunks, bool is_coded) {
    CodedMessage message;
    message.chunk = chunk;
    message.chunks = chunks;
    message.coded = is_coded;
    message.lane = lane_;
    out_.messages.push_back(message);
    return static_cast<std::uint32_t>(out_.messages.size()) - 1;
  }

  void encode(Version& version, std::uint32_t chunk, std::uint32_t message) {
    const CodedPlace from = read(version);
    CodedStep& step = emit(Kind::encode, chunk, from, on_wire(message));
    step.own = version.own;
    step.site = out_.sites++;
    version.encoded = message;
    version.floats.reset();
    version.homes.clear();
    version.ready = lane().main.size();
  }

  void send(const Step& step) {
    const bool is_coded = crosses(step.peer);
    const std::uint32_t first = step.from.chunk;
    const auto version = [&](std::uint32_t i) -> Version& { return version_at(moved(step.from, i)); };
    if (!is_coded)
      for (std::uint32_t i = 0; i < step.chunks; ++i) must_agree(moved(step.from, i));
    const auto form = [&](std::uint32_t i) { return is_coded ? version(i).encoded : version(i).floats; };
    bool as_it_is = form(0).has_value();
    for (std::uint32_t i = 1; i < step.chunks && as_it_is; ++i) as_it_is = form(i) == form(0);
    std::uint32_t message = as_it_is ? *form(0) : 0;
    if (as_it_is) {
      await(message);
    } else {
      message = add_message(first, step.chunks, is_coded);
      for (std::uint32_t i = 0; i < step.chunks; ++i) {
        Version& one = version(i);
        if (is_coded && !one.encoded) {
          encode(one, first + i, message);
        } else {
          const CodedPlace from = read(one);
          emit(Kind::store, first + i, from, on_wire(message));
          if (!is_coded) one.floats = message;
        }
      }
    }
    CodedStep& out = emit(Kind::send, first, on_wire(message), {});
    out.chunks = step.chunks;
    out.peer = step.peer;
  }

  void receive(const Step& step) {
    const std::uint32_t message = add_message(step.to.chunk, step.chunks, crosses(step.peer));
    out_.messages.back().received = true;
    out_.messages.back().peer = step.peer;
    const bool is_coded = out_.messages.back().coded;
    if (step.op == Op::recv_reduce) await(message);
    for (std::uint32_t i = 0; i < step.chunks; ++i) {
      Version came;
      (is_coded ? came.encoded : came.floats) = message;
      came.ready = lane().main.size();
      const Place to = moved(step.to, i);
      if (step.op == Op::recv) {
        assign(to, add_version(std::move(came)));
      } else {
        const Place from = moved(step.from, i);
        begin_sum(from, to);
        emit(Kind::add, to.chunk, on_wire(message), in_memory(to));
        end_sum(to);
      }
    }
  }

  // Makes `to` hold what stands at `from`, to be added to.
  void begin_sum(Place from, Place to) {
    const CodedPlace operand = read(version_at(from));
    if (operand.wire || !(same_buffer(operand.memory) == same_buffer(to)))
      emit(Kind::store, to.chunk, operand, in_memory(to));
  }
  void end_sum(Place to) {
    Version result;
    result.summed = true;
    result.homes.push_back(same_buffer(to));
    result.ready = lane().main.size();
    assign(to, add_version(std::move(result)));
  }
  void sum(Place a, Place b, Place to) {
    const CodedPlace other = read(version_at(b));
    begin_sum(a, to);
    emit(Kind::add, to.chunk, other, in_memory(to));
    end_sum(to);
  }

  void copy(Place from, Place to) {
    const int id = at(from).version;
    GRADRAIL_CHECK(id >= 0);
    if (at(to).version == id) return;
    const CodedPlace operand = source(versions_[static_cast<std::size_t>(id)]);
    if (!operand.wire) emit(Kind::store, to.chunk, operand, in_memory(to));
    assign(to, id);
    Version& version = versions_[static_cast<std::size_t>(id)];
    if (!operand.wire) {
      version.homes.push_back(same_buffer(to));
      version.ready = std::max(version.ready, lane().main.size());
    }
  }

  // --- The round trip. Which step leaves the last version in each chunk of the result is known only at the end, so it
  // is found by a first walk; a version that is final is encoded before anybody gets it in float32.
  void find_results() {
    final_step_.assign(program_.grid, -1);
    const Window out = window_of(Store::out, program_.shape, program_.rank, program_.grid);
    std::map<std::array<std::uint32_t, 3>, std::int32_t> made;  // by location: the step that summed what is there
    const auto key = [&](Place place) {
      const Place here = same_buffer(place);
      return std::array<std::uint32_t, 3>{static_cast<std::uint32_t>(here.store), here.plane, here.chunk};
    };
    for (std::size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      if (!step.writes()) continue;
      for (std::uint32_t c = 0; c < step.chunks; ++c) {
        auto& to = made[key(moved(step.to, c))];
        if (step.op == Op::recv)
          to = -1;
        else if (step.op == Op::copy)
          to = made.contains(key(moved(step.from, c))) ? made[key(moved(step.from, c))] : -1;
        else
          to = static_cast<std::int32_t>(i);
      }
    }
    for (std::uint32_t chunk = out.first; chunk < out.end(); ++chunk)
      if (const auto found = made.find(key({Store::out, 0, chunk})); found != made.end())
        final_step_[chunk] = found->second;
  }
  // Encodes what stands there if it is a result that was summed here, and others have it encoded.
  void must_agree(Place place) {
    if (!round_trip_ || final_step_[place.chunk] < 0 || final_step_[place.chunk] >= index_) return;
    Version& version = version_at(place);
    if (!version.summed || version.encoded) return;
    encode(version, place.chunk, add_message(place.chunk, 1, true));
  }

  // What the result still lacks.
  void settle() {
    const Window out = window_of(Store::out, program_.shape, program_.rank, program_.grid);
    for (std::uint32_t chunk = out.first; chunk < out.end(); ++chunk) {
      const Place place{Store::out, 0, chunk};
      const Location location = at(place);
      GRADRAIL_CHECK(location.version >= 0);
      lane_ = location.lane;
      must_agree(place);
      const Version& version = versions_[static_cast<std::size_t>(location.version)];
      const CodedPlace from = source(version);
      const auto& homes = version.homes;
      if (!from.wire && std::find(homes.begin(), homes.end(), same_buffer(place)) != homes.end()) continue;
      CodedStep step;
      step.kind = Kind::store;
      step.chunk = chunk;
      step.from = from;
      step.to = in_memory(place);
      step.after = static_cast<std::uint32_t>(std::max(version.ready, location.since));
      lane().later.push_back(step);
    }
    for (CodedLane& one : out_.lanes)
      std::stable_sort(one.later.begin(), one.later.end(),
                       [](const CodedStep& a, const CodedStep& b) { return a.after < b.after; });
  }

  const Program& program_;
  CodecWhere where_;
  bool round_trip_;
  CodedProgram out_;
  std::vector<std::vector<Location>> locations_;  // in, out, scratch planes; by chunk
  std::vector<Version> versions_;
  std::vector<std::int32_t> final_step_;  // by chunk of the result: the step that summed it here, or -1
  std::set<std::uint32_t> awaited_;       // messages
  std::int32_t index_ = 0;                // of the step at hand
  std::uint8_t lane_ = 0;
};

}  // namespace

CodedProgram coded(const Program& program, CodecWhere where, bool round_trip) {
  return Coder(program, where, round_trip).run();
}

}  // namespace gradrail
