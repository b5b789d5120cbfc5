#include "bench/report/tuned.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "bench/measure/statistics.h"
#include "bench/report/figures.h"
#include "results/size.h"

namespace gradrail {

namespace {

std::string size_of_range(std::uint64_t bytes) { return format_size(static_cast<std::int64_t>(bytes)); }

// "+3 %": what is lost against the oracle. Below zero is noise between the halves of the samples.
std::string percent(double regret) { return fmt::format("{:+.0f} %", (regret - 1) * 100); }

std::string spread_text(const Spread& spread) {
  std::string text = fmt::format("{:+.1f} % in the geometric mean, {:+.0f} % at worst", (spread.mean - 1) * 100,
                                 (spread.worst - 1) * 100);
  if (spread.worst_low != spread.worst_high)
    text += fmt::format(" (95 % interval there: {:+.0f} .. {:+.0f} %)", (spread.worst_low - 1) * 100,
                        (spread.worst_high - 1) * 100);
  return text;
}

}  // namespace

std::string format_selection(const Selection& selection) {
  std::string text = selection.algorithm;
  if (selection.lanes > 1) text += fmt::format(", {} lanes", selection.lanes);
  if (selection.pieces > 1) text += fmt::format(", {} pieces", selection.pieces);
  return text;
}

std::string tuned_size_header() {
  return fmt::format("#{:>12}  {:<30} {:>10}  {:>7}  {:<24} {:>8}\n", "size", "fastest", "time (us)", "margin",
                     "next algorithm", "measured");
}

std::string tuned_size_row(std::int64_t bytes, std::span<const Selection> selections,
                           std::span<const std::vector<double>> samples_us) {
  std::optional<std::size_t> best;
  std::optional<std::size_t> next;
  std::vector<double> times(selections.size());
  int measured = 0;
  for (std::size_t i = 0; i < selections.size(); ++i) {
    if (samples_us[i].empty()) continue;
    ++measured;
    times[i] = median(samples_us[i]);
    if (!best || times[i] < times[*best]) best = i;
  }
  if (!best) return fmt::format(" {:>12}  nothing could be measured\n", format_size(bytes));
  for (std::size_t i = 0; i < selections.size(); ++i) {
    if (samples_us[i].empty() || selections[i].algorithm == selections[*best].algorithm) continue;
    if (!next || times[i] < times[*next]) next = i;
  }
  return fmt::format(" {:>12}  {:<30} {:>10}  {:>7}  {:<24} {:>8}\n", format_size(bytes),
                     format_selection(selections[*best]), format_us(times[*best]),
                     next ? format_factor(times[*next] / times[*best]) : "-",
                     next ? format_selection(selections[*next]) : "-", measured);
}

std::string ranges_text(const std::vector<TableRange>& ranges) {
  std::string text = fmt::format("# Decision table\n#{:>12} {:>12}  {:<30} {:>7}  {:<20} {}\n", "from", "to", "use",
                                 "margin", "runner-up", "sizes beyond doubt");
  for (const TableRange& range : ranges)
    text += fmt::format(" {:>12} {:>12}  {:<30} {:>7}  {:<20} {:.0f} of {}\n", size_of_range(range.from_bytes),
                        size_of_range(range.to_bytes), format_selection(range.selection), format_factor(range.margin),
                        range.runner_up.empty() ? "-" : range.runner_up, range.confidence * range.sizes, range.sizes);
  return text;
}

std::string regret_text(const Regret& regret) {
  std::string text = "# Held out: sizes that the table was not fitted on; time lost against the best measured there\n";
  if (regret.sizes.empty()) return text + "# none: the sizes leave no room between them\n";
  text += fmt::format("#{:>12}  {:<30} {:>10}  {:<30} {:>7}  {:<30} {:>7}  {:>8}\n", "size", "best", "time (us)",
                      "by table", "lost", "by cost model", "lost", "one only");
  for (const HeldOutSize& row : regret.sizes)
    text += fmt::format(" {:>12}  {:<30} {:>10}  {:<30} {:>7}  {:<30} {:>7}  {:>8}", format_size(row.bytes),
                        format_selection(row.best), format_us(row.best_us),
                        row.table == row.best ? "=" : format_selection(row.table), percent(row.table_regret),
                        row.model == row.best ? "=" : format_selection(row.model), percent(row.model_regret),
                        percent(row.fixed_regret)) +
            (row.same_phase ? "\n" : "  another phase\n");
  const auto same =
      std::count_if(regret.sizes.begin(), regret.sizes.end(), [](const HeldOutSize& row) { return row.same_phase; });
  const auto add = [&](std::string_view who, const Spread& all, const Spread& in_phase) {
    text += fmt::format("# auto by {} loses {}\n", who, spread_text(all));
    if (same > 0 && same < static_cast<std::ptrdiff_t>(regret.sizes.size()))
      text += fmt::format("#   at the {} of {} sizes judged in the machine's phase of fitting: {}\n", same,
                          regret.sizes.size(), spread_text(in_phase));
  };
  add("this table", regret.table, regret.table_same_phase);
  add("cost model", regret.model, regret.model_same_phase);
  if (!regret.fixed.algorithm.empty())
    text += fmt::format("# {} for every size, the best single choice, loses {}\n", format_selection(regret.fixed),
                        spread_text(regret.fixed_spread));
  text +=
      "# (the best is picked on one half of the samples and judged on the other, so below 0 is noise; what may be the "
      "best was measured twice)\n";
  return text;
}

std::string codecs_text(std::span<const CodedSize> sizes, double error_budget) {
  std::string text = fmt::format("# Codecs within an error of {:g}\n", error_budget);
  if (sizes.empty())
    return text + "# none was tried: no codec is so exact, no size is worth encoding, or there was no time\n";
  const auto choice_at = [&](std::size_t i) {
    Question question;
    question.bytes = sizes[i].bytes;
    question.error_budget = error_budget;
    return find_choice(sizes, question);
  };
  text += fmt::format("#{:>12} {:>12}  {:<18} {:<13} {:<24} {:>17}  {}\n", "from", "to", "codec", "where", "by",
                      "faster than none", "error");
  for (std::size_t i = 0; i < sizes.size();) {
    const CodedChoice* const first = choice_at(i);
    double least = 0, most = 0, error = 0;
    std::size_t end = i;
    for (; end < sizes.size(); ++end) {
      const CodedChoice* const here = choice_at(end);
      if ((here == nullptr) != (first == nullptr) || (here != nullptr && here->selection != first->selection)) break;
      if (here == nullptr) continue;
      const double gain = sizes[end].dense_us / here->time_us;
      least = end == i ? gain : std::min(least, gain);
      most = std::max(most, gain);
      error = std::max(error, here->error);
    }
    text += fmt::format(" {:>12} {:>12}  ", size_of_range(sizes[i].bytes), size_of_range(sizes[end - 1].bytes));
    if (first == nullptr) {
      text += "none               no codec within the error pays\n";
    } else {
      const std::string gains = format_factor(least) == format_factor(most)
                                    ? format_factor(least)
                                    : format_factor(least) + " - " + format_factor(most);
      text += fmt::format("{:<18} {:<13} {:<24} {:>17}  {:.2g}\n", first->selection.codec,
                          to_string(first->selection.where), format_selection(first->selection), gains, error);
    }
    i = end;
  }
  return text;
}

}  // namespace gradrail
