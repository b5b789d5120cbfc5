#include "collectives/schedule/matching.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "collectives/schedule/proof.h"

namespace gradrail {

using proof::wrong;

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
  return matching;
}

}  // namespace gradrail
