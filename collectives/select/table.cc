#include "collectives/select/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>
#include <utility>

#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

constexpr int k_most_ranks = 65535;  // a Step's peer is 16 bits
constexpr int k_most_lanes = 64;
constexpr int k_most_pieces = 1024;

double log_distance(double a, double b) { return std::abs(std::log2(a / b)); }

bool one_host(int ranks, int ranks_per_host) { return ranks == ranks_per_host; }

// "an AMD EPYC 9B14 with 2 cores"
std::string machine_in_words(std::string_view cpu_model, int cores) {
  if (cpu_model.empty()) return fmt::format("an unknown processor with {} core{}", cores, cores == 1 ? "" : "s");
  const bool vowel = std::string_view("AEIOUaeiou").find(cpu_model.front()) != std::string_view::npos;
  return fmt::format("{} {} with {} core{}", vowel ? "an" : "a", cpu_model, cores, cores == 1 ? "" : "s");
}

Result<void> check_codecs(const TableEntry& entry, const std::string& where) {
  for (std::size_t i = 0; i < entry.codecs.size(); ++i) {
    const CodedSize& size = entry.codecs[i];
    const std::string here = fmt::format("{}.codecs[{}]", where, i);
    if (size.bytes == 0 || (i > 0 && size.bytes <= entry.codecs[i - 1].bytes))
      return fail(Code::malformed, fmt::format("{} is of {} bytes; sizes ascend from 1", here, size.bytes));
    const Question question{entry.collective, size.bytes, entry.ranks, entry.ranks_per_host, entry.transport, false};
    for (std::size_t c = 0; c < size.choices.size(); ++c)
      if (auto can = can_carry(size.choices[c].selection, question); !can)
        return fail(Code::malformed, fmt::format("{}.choices[{}]: {}", here, c, can.error().message));
  }
  return {};
}

Result<void> check_entry(const TableEntry& entry, const std::string& where) {
  if (entry.ranks < 1 || entry.ranks > k_most_ranks)
    return fail(Code::malformed, fmt::format("{}.ranks is {}; it may be 1 to {}", where, entry.ranks, k_most_ranks));
  if (entry.ranks_per_host < 1 || entry.ranks % entry.ranks_per_host != 0)
    return fail(Code::malformed, fmt::format("{}.ranks_per_host is {}, which does not divide {} ranks", where,
                                             entry.ranks_per_host, entry.ranks));
  if (entry.ranges.empty()) return fail(Code::malformed, fmt::format("{}.ranges is empty", where));
  for (std::size_t i = 0; i < entry.ranges.size(); ++i) {
    const TableRange& range = entry.ranges[i];
    const std::string here = fmt::format("{}.ranges[{}]", where, i);
    if (range.to_bytes < range.from_bytes)
      return fail(Code::malformed,
                  fmt::format("{} ends at {} bytes, before it begins at {}", here, range.to_bytes, range.from_bytes));
    if (i > 0 && range.from_bytes <= entry.ranges[i - 1].to_bytes)
      return fail(Code::malformed, fmt::format("{} begins at {} bytes, which the range before it covers already", here,
                                               range.from_bytes));
    const Question question{entry.collective,     range.from_bytes, entry.ranks,
                            entry.ranks_per_host, entry.transport,  false};
    if (auto answer = can_answer(range.selection, question); !answer)
      return fail(Code::malformed, fmt::format("{}: {}", here, answer.error().message));
  }
  return check_codecs(entry, where);
}

}  // namespace

Result<void> can_answer(const Selection& selection, const Question& question) {
  if (selection.lanes < 1 || selection.lanes > k_most_lanes)
    return fail(Code::bad_usage, fmt::format("{} lanes are not possible; 1 to {} are", selection.lanes, k_most_lanes));
  if (selection.pieces < 1 || selection.pieces > k_most_pieces)
    return fail(Code::bad_usage,
                fmt::format("{} pieces are not possible; 1 to {} are", selection.pieces, k_most_pieces));
  Shape shape;
  shape.collective = question.collective;
  shape.ranks = question.ranks;
  shape.ranks_per_host = question.ranks_per_host;
  shape.in_place = question.in_place;
  shape.lanes = selection.lanes;
  shape.pieces = selection.pieces;
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(selection.algorithm, shape));
  return planner->supports(shape);
}

Result<void> check_table(const DecisionTable& table) {
  std::set<std::tuple<Collective, std::string, int, int>> cases;
  for (std::size_t i = 0; i < table.entries.size(); ++i) {
    const TableEntry& entry = table.entries[i];
    const std::string where = fmt::format("entries[{}]", i);
    GRADRAIL_TRY(check_entry(entry, where));
    if (!cases.emplace(entry.collective, entry.transport, entry.ranks, entry.ranks_per_host).second)
      return fail(Code::malformed,
                  fmt::format("{} is of the same collective, transport and ranks as another entry", where));
  }
  return {};
}

std::optional<std::string> foreign(const TableOrigin& made, std::string_view cpu_model, int cores) {
  if (!made.cpu_model.empty() && made.cpu_model == cpu_model && made.cores == cores) return std::nullopt;
  return fmt::format("made on {}; this is {}", machine_in_words(made.cpu_model, made.cores),
                     machine_in_words(cpu_model, cores));
}

const TableEntry* find_entry(const DecisionTable& table, const Question& question) {
  const TableEntry* nearest = nullptr;
  double least = 0;
  for (const TableEntry& entry : table.entries) {
    if (entry.collective != question.collective || entry.transport != question.transport) continue;
    if (one_host(entry.ranks, entry.ranks_per_host) != one_host(question.ranks, question.ranks_per_host)) continue;
    const double ranks = log_distance(entry.ranks, question.ranks);
    const double ranks_per_host = log_distance(entry.ranks_per_host, question.ranks_per_host);
    if (std::max(ranks, ranks_per_host) > std::log2(k_farthest_ranks)) continue;
    if (nearest == nullptr || ranks + ranks_per_host < least) {
      nearest = &entry;
      least = ranks + ranks_per_host;
    }
  }
  return nearest;
}

const TableRange& find_range(const TableEntry& entry, std::uint64_t bytes) {
  const auto after = std::find_if(entry.ranges.begin(), entry.ranges.end(),
                                  [&](const TableRange& range) { return range.to_bytes >= bytes; });
  if (after == entry.ranges.end()) return entry.ranges.back();
  if (after == entry.ranges.begin() || after->from_bytes <= bytes) return *after;
  const TableRange& before = *std::prev(after);
  const auto size = [](std::uint64_t value) { return static_cast<double>(std::max<std::uint64_t>(value, 1)); };
  const bool nearer_above =
      log_distance(size(after->from_bytes), size(bytes)) < log_distance(size(bytes), size(before.to_bytes));
  return nearer_above ? *after : before;
}

const Selection* find_answer(const DecisionTable& table, const Question& question) {
  const TableEntry* const entry = find_entry(table, question);
  if (entry == nullptr) return nullptr;
  const Selection& found = find_range(*entry, question.bytes).selection;
  return can_answer(found, question) ? &found : nullptr;
}

TableSelector::TableSelector(DecisionTable table, std::string name, std::shared_ptr<const Selector> fallback)
    : table_(std::move(table)), name_(std::move(name)), fallback_(std::move(fallback)) {}

Selection TableSelector::choose(const Question& question) const {
  if (const TableEntry* entry = find_entry(table_, question)) {
    if (const CodedChoice* choice = find_choice(entry->codecs, question);
        choice != nullptr && can_carry(choice->selection, question))
      return choice->selection;
    if (entry->codecs.empty() && question.error_budget > 0 && fallback_ != nullptr)
      if (Selection encoded = fallback_->choose(question); !encoded.codec.empty()) return encoded;
  }
  if (const Selection* found = find_answer(table_, question)) return *found;
  return fallback_ != nullptr ? fallback_->choose(question) : default_selection(question);
}

}  // namespace gradrail
