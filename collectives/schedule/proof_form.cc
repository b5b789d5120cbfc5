// Each program by itself: are its steps well formed, and ordered wherever they conflict?
#include <fmt/format.h>

#include <algorithm>

#include "collectives/schedule/proof.h"
#include "collectives/schedule/render.h"

namespace gradrail::proof {

std::string name_of(const Program& program, std::size_t step) {
  const Step& s = program.steps[step];
  std::string peer;
  if (s.op == Op::send) peer = fmt::format(" to rank {}", s.peer);
  if (s.receives()) peer = fmt::format(" from rank {}", s.peer);
  return fmt::format("rank {}, step {} ({}{}, lane {})", program.rank, step, to_string(s.op), peer, s.lane);
}

tl::unexpected<Error> wrong(const Program& program, std::size_t step, std::string what) {
  return fail(Code::malformed, fmt::format("{} {}", name_of(program, step), what), program.rank);
}

namespace {

Result<void> check_shape(const Schedule& schedule) {
  const Shape& shape = schedule.shape;
  const auto bad = [](std::string what) { return fail(Code::malformed, std::move(what)); };
  if (shape.ranks < 1 || shape.ranks > 65536) return bad(fmt::format("{} ranks are not 1 to 65536", shape.ranks));
  if (shape.ranks_per_host < 1 || shape.ranks % shape.ranks_per_host != 0)
    return bad(fmt::format("{} ranks are not whole hosts of {}", shape.ranks, shape.ranks_per_host));
  if (shape.root < 0 || shape.root >= shape.ranks)
    return bad(fmt::format("root {} is not one of {} ranks", shape.root, shape.ranks));
  if (shape.lanes < 1 || shape.lanes > 64) return bad(fmt::format("{} lanes are not 1 to 64", shape.lanes));
  if (schedule.programs.size() != static_cast<std::size_t>(shape.ranks))
    return bad(fmt::format("there are {} programs for {} ranks", schedule.programs.size(), shape.ranks));
  for (std::size_t rank = 0; rank < schedule.programs.size(); ++rank) {
    const Program& program = schedule.programs[rank];
    if (program.rank != static_cast<int>(rank))
      return bad(fmt::format("program {} says that it is rank {}'s", rank, program.rank));
    if (program.shape != shape) return bad(fmt::format("rank {}'s program is for another shape", rank));
    if (program.grid != schedule.programs[0].grid)
      return bad(fmt::format("rank {} divides the data into {} chunks, rank 0 into {}", rank, program.grid,
                             schedule.programs[0].grid));
    if (program.grid < 1) return bad(fmt::format("rank {}'s program has no chunks", rank));
  }
  if (is_blocked(shape.collective) && schedule.programs[0].grid % static_cast<std::uint32_t>(shape.ranks) != 0)
    return bad(fmt::format("{} chunks are not one block for each of {} ranks", schedule.programs[0].grid, shape.ranks));
  return {};
}

bool inside(const Window& window, std::uint32_t chunk, std::uint32_t chunks) {
  return chunk >= window.first && std::uint64_t{chunk} + chunks <= window.end();
}

class FormCheck {
 public:
  explicit FormCheck(const Program& program)
      : program_(program),
        in_(window_of(Store::in, program.shape, program.rank, program.grid)),
        out_(window_of(Store::out, program.shape, program.rank, program.grid)) {}

  Result<void> step(std::size_t index) const {
    const Step& s = program_.steps[index];
    if (s.op > Op::copy) return wrong(program_, index, "is no known operation");
    if (s.lane >= program_.shape.lanes)
      return wrong(program_, index,
                   fmt::format("is on a lane that does not exist; there are {}", program_.shape.lanes));
    if (s.talks() && s.peer >= program_.shape.ranks) return wrong(program_, index, "names a peer that does not exist");
    if (s.talks() && s.peer == program_.rank) return wrong(program_, index, "talks to its own rank");
    if (s.chunks < 1) return wrong(program_, index, "has no chunks");
    for (const std::int32_t watermark : {s.after, s.after_send})
      if (watermark < -1 || watermark >= static_cast<std::int32_t>(index))
        return wrong(program_, index, fmt::format("waits for step {}, which is not an earlier one", watermark));
    if (s.reads()) GRADRAIL_TRY(place(index, s.from, "reads"));
    if (s.writes()) GRADRAIL_TRY(place(index, s.to, "writes"));
    if (s.writes() && s.to.store == Store::in && !(program_.shape.in_place && inside(out_, s.to.chunk, s.chunks)))
      return wrong(program_, index,
                   fmt::format("writes {}, an input that is not the output", to_string(s.to, s.chunks)));
    if (s.reads() && s.writes()) {
      const bool one_buffer = buffer_of(s.from, program_.shape.in_place) == buffer_of(s.to, program_.shape.in_place);
      const bool same = one_buffer && s.from.chunk == s.to.chunk;
      const bool overlap = one_buffer && s.from.chunk < std::uint64_t{s.to.chunk} + s.chunks &&
                           s.to.chunk < std::uint64_t{s.from.chunk} + s.chunks;
      if (overlap && !(same && s.op == Op::recv_reduce))
        return wrong(program_, index,
                     fmt::format("reads {} and writes {}, which overlap", to_string(s.from, s.chunks),
                                 to_string(s.to, s.chunks)));
    }
    return {};
  }

 private:
  Result<void> place(std::size_t index, const Place& place, const char* does) const {
    const std::uint32_t chunks = program_.steps[index].chunks;
    const auto bad = [&](std::string_view why) {
      return wrong(program_, index, fmt::format("{} {}, {}", does, to_string(place, chunks), why));
    };
    if (place.store > Store::scratch) return wrong(program_, index, "names no known buffer");
    if (place.store == Store::scratch) {
      if (place.plane >= program_.planes)
        return bad(fmt::format("but the program has {} scratch planes", program_.planes));
      if (!inside({0, program_.grid}, place.chunk, chunks))
        return bad(fmt::format("but there are {} chunks", program_.grid));
      return {};
    }
    if (place.plane != 0) return bad("but only scratch has planes");
    const Window& window = place.store == Store::in ? in_ : out_;
    if (window.count == 0) return bad("but this rank has no such buffer");
    if (!inside(window, place.chunk, chunks))
      return bad(fmt::format("but this rank's buffer is chunks {}..{}", window.first, window.end() - 1));
    return {};
  }

  const Program& program_;
  Window in_;
  Window out_;
};

}  // namespace

Result<void> check_form(const Schedule& schedule) {
  GRADRAIL_TRY(check_shape(schedule));
  for (const Program& program : schedule.programs) {
    const FormCheck check(program);
    for (std::size_t step = 0; step < program.steps.size(); ++step) GRADRAIL_TRY(check.step(step));
  }
  return {};
}

// A step starts after its own watermarks, and after every earlier step of its lane has *started*, which was after
// theirs. So what surely has completed when a step starts is the largest watermark of its lane up to it, and nothing
// else: that a receive "must have" completed because of what a peer sent is timing, and does not count.
Result<void> check_order(const Program& program) {
  struct Chunk {
    std::int32_t written = -1;  // last step that wrote it
    std::int32_t read = -1;     // last step other than a send that read it
    std::int32_t sent = -1;     // last send that read it
    std::int32_t lane = -1;
  };
  struct Lane {
    std::int32_t after = -1;
    std::int32_t after_send = -1;
  };
  std::vector<std::vector<Chunk>> buffers(2u + program.planes);
  std::vector<Lane> lanes(static_cast<std::size_t>(program.shape.lanes));
  const auto run_at = [&](const Place& place) {
    auto& chunks = buffers[buffer_of(place, program.shape.in_place)];
    if (chunks.empty()) chunks.resize(program.grid);
    return chunks.data() + place.chunk;
  };
  for (std::size_t index = 0; index < program.steps.size(); ++index) {
    const Step& s = program.steps[index];
    const auto me = static_cast<std::int32_t>(index);
    Lane& lane = lanes[s.lane];
    lane.after = std::max(lane.after, s.after);
    lane.after_send = std::max(lane.after_send, s.after_send);
    const auto bad = [&](const Place& place, std::uint32_t chunk, std::int32_t other, const char* did,
                         const char* does) {
      return wrong(program, index,
                   fmt::format("{} {} but does not wait for step {}, which {} it", does,
                               to_string({place.store, place.plane, place.chunk + chunk}, 1), other, did));
    };
    for (const bool writing : {false, true}) {
      if (writing ? !s.writes() : !s.reads()) continue;
      const Place& place = writing ? s.to : s.from;
      Chunk* const chunks = run_at(place);
      for (std::uint32_t i = 0; i < s.chunks; ++i) {
        Chunk& chunk = chunks[i];
        if (chunk.lane >= 0 && chunk.lane != s.lane)
          return wrong(program, index,
                       fmt::format("touches {}, which lane {} touches too",
                                   to_string({place.store, place.plane, place.chunk + i}, 1), chunk.lane));
        chunk.lane = s.lane;
        // A step's own read before its own write is no conflict; both loops see only earlier steps (below).
        if (chunk.written > lane.after) return bad(place, i, chunk.written, "writes", writing ? "writes" : "reads");
        if (!writing) continue;
        if (chunk.read > lane.after) return bad(place, i, chunk.read, "reads", "writes");
        if (chunk.sent > lane.after_send) return bad(place, i, chunk.sent, "sends", "writes");
      }
    }
    if (s.reads()) {
      Chunk* const chunks = run_at(s.from);
      for (std::uint32_t i = 0; i < s.chunks; ++i) (s.op == Op::send ? chunks[i].sent : chunks[i].read) = me;
    }
    if (s.writes()) {
      Chunk* const chunks = run_at(s.to);
      for (std::uint32_t i = 0; i < s.chunks; ++i) chunks[i].written = me;
    }
  }
  return {};
}

}  // namespace gradrail::proof
