// Which send meets which receive, and do both ends of each message agree on its length whatever the count is?
#include <fmt/format.h>

#include <algorithm>

#include "collectives/schedule/proof.h"
#include "collectives/schedule/render.h"

namespace gradrail::proof {

namespace {

// Finds pipes by their ends. One sender's pipes lie together, sorted by (to, lane).
class PipeTable {
 public:
  explicit PipeTable(const Schedule& schedule) {
    const auto lanes = static_cast<std::size_t>(schedule.shape.lanes);
    std::vector<std::uint32_t> sends(schedule.programs.size() * lanes);  // by (to, lane)
    begin_.push_back(0);
    for (const Program& program : schedule.programs) {
      std::vector<std::uint32_t> used;
      for (const Step& s : program.steps) {
        if (s.op != Op::send) continue;
        const auto key = static_cast<std::uint32_t>(s.peer * lanes + s.lane);
        if (sends[key]++ == 0) used.push_back(key);
      }
      std::sort(used.begin(), used.end());
      for (const std::uint32_t key : used) {
        Pipe pipe;
        pipe.from = static_cast<std::uint32_t>(program.rank);
        pipe.to = static_cast<std::uint32_t>(key / lanes);
        pipe.lane = static_cast<std::uint32_t>(key % lanes);
        pipe.first = messages_;
        pipe.count = sends[key];
        messages_ += pipe.count;
        sends[key] = 0;
        pipes_.push_back(pipe);
      }
      begin_.push_back(pipes_.size());
    }
  }

  // The pipe's index, or the number of pipes if nothing is sent on it.
  [[nodiscard]] std::size_t find(std::uint32_t from, std::uint32_t to, std::uint32_t lane) const {
    const auto first = pipes_.begin() + static_cast<std::ptrdiff_t>(begin_[from]);
    const auto last = pipes_.begin() + static_cast<std::ptrdiff_t>(begin_[from + 1]);
    const auto found = std::lower_bound(first, last, std::pair(to, lane), [](const Pipe& pipe, const auto& key) {
      return std::pair(pipe.to, pipe.lane) < key;
    });
    if (found == last || found->to != to || found->lane != lane) return pipes_.size();
    return static_cast<std::size_t>(found - pipes_.begin());
  }
  [[nodiscard]] std::uint32_t messages() const { return messages_; }
  [[nodiscard]] std::vector<Pipe>& pipes() { return pipes_; }

 private:
  std::vector<Pipe> pipes_;
  std::vector<std::size_t> begin_;  // by sender, index of its first pipe
  std::uint32_t messages_ = 0;
};

// Lengths of chunks for even counts, ragged ones, and ones with fewer elements than chunks. Two chunks may stand at the
// two ends of a message only if their lengths agree for each of these.
class Lengths {
 public:
  explicit Lengths(const Schedule& schedule)
      : grid_(schedule.programs[0].grid),
        blocks_(is_blocked(schedule.shape.collective) ? static_cast<std::uint32_t>(schedule.shape.ranks) : 1) {
    const std::uint64_t pieces = grid_ / blocks_;
    const auto ranks = static_cast<std::uint64_t>(schedule.shape.ranks);
    for (const std::uint64_t block : {pieces, 64 * pieces, std::uint64_t{1}, ranks - 1, ranks + 1, pieces - 1,
                                      2 * pieces + 3, 7 * pieces + pieces / 2, std::uint64_t{1000003}})
      if (block > 0) totals_.push_back(block * blocks_);
    signature_.resize(grid_);
    for (std::uint32_t chunk = 0; chunk < grid_; ++chunk)
      for (const std::uint64_t total : totals_)
        for (const std::uint32_t align : k_aligns)
          signature_[chunk] = (signature_[chunk] ^ length(total, align, chunk)) * 0x9e3779b97f4a7c15u + 1;
  }

  [[nodiscard]] bool agree(std::uint32_t a, std::uint32_t b, std::uint32_t chunks) const {
    if (a == b) return true;
    for (std::uint32_t i = 0; i < chunks; ++i)
      if (signature_[a + i] != signature_[b + i]) return false;
    return true;
  }

  // For which count the two runs differ, in words; call it only for runs that do not agree().
  [[nodiscard]] std::string difference(std::uint32_t a, std::uint32_t b, std::uint32_t chunks) const {
    for (std::uint32_t i = 0; i < chunks; ++i)
      for (const std::uint64_t total : totals_)
        for (const std::uint32_t align : k_aligns)
          if (length(total, align, a + i) != length(total, align, b + i))
            return fmt::format("of {} elements, chunk {} is {} and chunk {} is {}", total, a + i,
                               length(total, align, a + i), b + i, length(total, align, b + i));
    return "the chunks differ in length";
  }

 private:
  static constexpr std::uint32_t k_aligns[] = {1, 16};  // elements; 16 is a cache line of f32

  [[nodiscard]] std::uint64_t length(std::uint64_t total, std::uint32_t align, std::uint32_t chunk) const {
    return chunk_begin(total, grid_, blocks_, align, chunk + 1) - chunk_begin(total, grid_, blocks_, align, chunk);
  }

  std::uint32_t grid_;
  std::uint32_t blocks_;
  std::vector<std::uint64_t> totals_;
  std::vector<std::uint64_t> signature_;  // by chunk, hash of its lengths
};

}  // namespace

Result<Matching> match(const Schedule& schedule) {
  Matching matching;
  PipeTable table(schedule);
  matching.messages.resize(table.messages());
  std::vector<std::uint32_t> sent(table.pipes().size());
  std::vector<std::uint32_t> received(table.pipes().size());
  for (const Program& program : schedule.programs) {
    auto& message_of = matching.message_of.emplace_back(program.steps.size());
    const auto rank = static_cast<std::uint32_t>(program.rank);
    for (std::uint32_t index = 0; index < program.steps.size(); ++index) {
      const Step& s = program.steps[index];
      if (!s.talks()) continue;
      const bool sends = s.op == Op::send;
      const std::size_t id = sends ? table.find(rank, s.peer, s.lane) : table.find(s.peer, rank, s.lane);
      const auto none = [&] {
        return wrong(program, index, fmt::format("waits for a message that rank {} never sends", s.peer));
      };
      if (id == table.pipes().size()) return none();
      const Pipe& pipe = table.pipes()[id];
      const std::uint32_t number = (sends ? sent : received)[id]++;
      if (number >= pipe.count) return none();
      message_of[index] = pipe.first + number;
      Message& message = matching.messages[pipe.first + number];
      message.pipe = static_cast<std::uint32_t>(id);
      (sends ? message.send : message.receive) = index;
    }
  }
  for (std::size_t id = 0; id < table.pipes().size(); ++id) {
    const Pipe& pipe = table.pipes()[id];
    if (received[id] < pipe.count)
      return wrong(schedule.programs[pipe.from], matching.messages[pipe.first + received[id]].send,
                   fmt::format("sends a message that rank {} never receives", pipe.to));
  }
  matching.pipes = std::move(table.pipes());

  const Lengths lengths(schedule);
  for (const Message& message : matching.messages) {
    const Pipe& pipe = matching.pipes[message.pipe];
    const Program& sender = schedule.programs[pipe.from];
    const Program& receiver = schedule.programs[pipe.to];
    const Step& send = sender.steps[message.send];
    const Step& receive = receiver.steps[message.receive];
    if (send.chunks != receive.chunks)
      return wrong(receiver, message.receive,
                   fmt::format("expects {} chunks where step {} of rank {} sends {}", receive.chunks, message.send,
                               pipe.from, send.chunks));
    if (!lengths.agree(send.from.chunk, receive.to.chunk, send.chunks))
      return wrong(
          receiver, message.receive,
          fmt::format("expects {} where step {} of rank {} sends {}, which is not as long: {}",
                      to_string(receive.to, receive.chunks), message.send, pipe.from, to_string(send.from, send.chunks),
                      lengths.difference(send.from.chunk, receive.to.chunk, send.chunks)));
  }
  for (const Program& program : schedule.programs)
    for (std::size_t index = 0; index < program.steps.size(); ++index) {
      const Step& s = program.steps[index];
      if (s.reads() && s.writes() && !lengths.agree(s.from.chunk, s.to.chunk, s.chunks))
        return wrong(program, index,
                     fmt::format("combines {} with {}, which is not as long: {}", to_string(s.from, s.chunks),
                                 to_string(s.to, s.chunks), lengths.difference(s.from.chunk, s.to.chunk, s.chunks)));
    }
  return matching;
}

}  // namespace gradrail::proof
