// Do both ends of each message, and both operands of each local step, agree on its length whatever the count is?
#include <fmt/format.h>

#include "collectives/schedule/proof.h"
#include "collectives/schedule/render.h"

namespace gradrail::proof {

namespace {

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

Result<void> check_lengths(const Schedule& schedule, const Matching& matching) {
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
  return {};
}

}  // namespace gradrail::proof
