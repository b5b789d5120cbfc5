#include <fmt/format.h>

#include <iterator>

#include "collectives/schedule/render.h"

namespace gradrail {

namespace {

std::string watermark(std::int32_t step) { return step < 0 ? std::string() : std::to_string(step); }

void print_program(std::string& text, const Program& program) {
  std::uint64_t messages = 0;
  std::uint64_t chunks = 0;
  for (const Step& s : program.steps)
    if (s.op == Op::send) {
      ++messages;
      chunks += s.chunks;
    }
  auto out = std::back_inserter(text);
  fmt::format_to(out, "\nrank {}: {} steps; sends {} chunks in {} messages\n", program.rank, program.steps.size(),
                 chunks, messages);
  if (program.steps.empty()) return;
  constexpr std::string_view k_row = "  {:>5}  {:>4}  {:<11}  {:>7}  {:<18}  {:<18}  {:>5}  {}";
  const auto row = [&](auto&&... cells) {
    std::string line = fmt::format(k_row, cells...);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  row("step", "lane", "operation", "peer", "from", "to", "after", "after send");
  for (std::size_t index = 0; index < program.steps.size(); ++index) {
    const Step& s = program.steps[index];
    const std::string peer = !s.talks() ? "" : fmt::format("{} {}", s.op == Op::send ? "->" : "<-", s.peer);
    row(index, s.lane, to_string(s.op), peer, s.reads() ? to_string(s.from, s.chunks) : "",
        s.writes() ? to_string(s.to, s.chunks) : "", watermark(s.after), watermark(s.after_send));
  }
}

}  // namespace

std::string to_text(const Schedule& schedule) {
  const Shape& shape = schedule.shape;
  std::string text = fmt::format("{}, {} ranks", to_string(shape.collective), shape.ranks);
  if (shape.hosts() > 1) text += fmt::format(" on {} hosts of {}", shape.hosts(), shape.ranks_per_host);
  if (has_root(shape.collective)) text += fmt::format(", root {}", shape.root);
  text += fmt::format(", lanes {}, pieces {}{}\n", shape.lanes, shape.pieces, shape.in_place ? ", in place" : "");
  if (!schedule.programs.empty()) {
    const Program& any = schedule.programs.front();
    text += fmt::format("data in {} chunk{}, {} scratch plane{}\n", any.grid, any.grid == 1 ? "" : "s", any.planes,
                        any.planes == 1 ? "" : "s");
  }
  for (const Program& program : schedule.programs) print_program(text, program);
  return text;
}

}  // namespace gradrail
