// Tables as JSON. What is read comes from a file that anyone may have edited, cut short or made up: every value is
// checked for its kind and bounds before it is used, and the first that is wrong is named by its path.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "collectives/select/table.h"

namespace gradrail {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t k_longest_text = std::size_t{16} << 20;
constexpr std::size_t k_most_entries = 10'000;
constexpr std::size_t k_most_ranges = 10'000;
constexpr std::size_t k_most_choices = 100;  // at a size
constexpr std::size_t k_longest_string = 1000;
constexpr std::uint64_t k_most_bytes = std::uint64_t{1} << 62;

// Reads the members of one object. The first thing wrong is kept; later reads return defaults.
class Reader {
 public:
  Reader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) fault_ = where_.empty() ? "it is not a JSON object" : where_ + " is not an object";
  }

  [[nodiscard]] std::string text(const char* key, bool needed = true) {
    const Json* value = member(key, needed);
    if (value == nullptr) return {};
    if (!value->is_string()) return blame(key, "is not a text"), std::string();
    auto text = value->get<std::string>();
    if (text.size() > k_longest_string) return blame(key, "is too long"), std::string();
    return text;
  }
  [[nodiscard]] std::uint64_t whole(const char* key, std::uint64_t least, std::uint64_t most, bool needed = true) {
    const Json* value = member(key, needed);
    if (value == nullptr) return least;
    // Negative whole numbers are is_number_integer() only.
    if (!value->is_number_unsigned()) return blame(key, "is not a whole number of at least 0"), least;
    const auto number = value->get<std::uint64_t>();
    if (number < least || number > most)
      return blame(key, fmt::format("is {}; it may be {} to {}", number, least, most)), least;
    return number;
  }
  // Needed, unless it says what is otherwise.
  [[nodiscard]] double real(const char* key, double least, double most, std::optional<double> or_else = std::nullopt) {
    const Json* value = member(key, !or_else);
    const double otherwise = or_else.value_or(0);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) return blame(key, "is not a number"), otherwise;
    const auto number = value->get<double>();
    if (!(number >= least && number <= most))
      return blame(key, fmt::format("is {}; it may be {} to {}", number, least, most)), otherwise;
    return number;
  }
  [[nodiscard]] const Json* list(const char* key, std::size_t most) {
    const Json* value = member(key, true);
    if (value == nullptr) return nullptr;
    if (!value->is_array()) return blame(key, "is not a list"), nullptr;
    if (value->size() > most) return blame(key, fmt::format("has more than {} items", most)), nullptr;
    return value;
  }
  [[nodiscard]] const Json* object(const char* key) { return member(key, true); }
  void blame(const char* key, std::string_view what) {
    if (fault_.empty()) fault_ = fmt::format("{} {}", path(key), what);
  }
  [[nodiscard]] std::string path(std::string_view key) const {
    return where_.empty() ? std::string(key) : fmt::format("{}.{}", where_, key);
  }
  [[nodiscard]] Result<void> done() const {
    if (fault_.empty()) return {};
    return fail(Code::malformed, fault_);
  }

 private:
  const Json* member(const char* key, bool needed) {
    if (!fault_.empty()) return nullptr;
    const auto found = json_.find(key);
    if (found != json_.end()) return &*found;
    if (needed) blame(key, "is missing");
    return nullptr;
  }

  const Json& json_;
  std::string where_;
  std::string fault_;
};

Result<TableRange> read_range(const Json& json, std::string where) {
  Reader in(json, std::move(where));
  TableRange range;
  range.from_bytes = in.whole("from_bytes", 0, k_most_bytes);
  range.to_bytes = in.whole("to_bytes", 0, k_most_bytes);
  range.selection.algorithm = in.text("algorithm");
  range.selection.lanes = static_cast<int>(in.whole("lanes", 1, 1 << 20, false));
  range.selection.pieces = static_cast<int>(in.whole("pieces", 1, 1 << 20, false));
  range.median_us = in.real("median_us", 0, 1e18, 0);
  range.margin = in.real("margin", 0, 1e18, 1);
  range.confidence = in.real("confidence", 0, 1, 0);
  range.sizes = static_cast<int>(in.whole("sizes", 0, 1 << 30, false));
  range.runner_up = in.text("runner_up", false);
  GRADRAIL_TRY(in.done());
  return range;
}

Result<CodedChoice> read_choice(const Json& json, std::string where) {
  Reader in(json, std::move(where));
  CodedChoice choice;
  choice.selection.codec = in.text("codec");
  const std::string encoded = in.text("where");
  if (const auto parsed = parse_codec_where(encoded))
    choice.selection.where = *parsed;
  else
    in.blame("where", fmt::format("is '{}'; it may be all or between-hosts", encoded));
  choice.selection.algorithm = in.text("algorithm");
  choice.selection.lanes = static_cast<int>(in.whole("lanes", 1, 1 << 20, false));
  choice.selection.pieces = static_cast<int>(in.whole("pieces", 1, 1 << 20, false));
  choice.time_us = in.real("time_us", 0, 1e18);
  choice.error = in.real("error", 0, 1e18);
  GRADRAIL_TRY(in.done());
  return choice;
}

Result<CodedSize> read_coded_size(const Json& json, std::string where) {
  Reader in(json, std::move(where));
  CodedSize size;
  size.bytes = in.whole("bytes", 1, k_most_bytes);
  size.dense_us = in.real("dense_us", 0, 1e18);
  const Json* choices = in.list("choices", k_most_choices);
  GRADRAIL_TRY(in.done());
  for (std::size_t i = 0; i < choices->size(); ++i) {
    GRADRAIL_ASSIGN(CodedChoice choice, read_choice((*choices)[i], fmt::format("{}[{}]", in.path("choices"), i)));
    size.choices.push_back(std::move(choice));
  }
  return size;
}

Result<TableEntry> read_entry(const Json& json, std::string where) {
  Reader in(json, std::move(where));
  TableEntry entry;
  const std::string collective = in.text("collective");
  if (const auto parsed = parse_collective(collective))
    entry.collective = *parsed;
  else
    in.blame("collective", fmt::format("is '{}', which is no collective", collective));
  entry.transport = in.text("transport");
  entry.ranks = static_cast<int>(in.whole("ranks", 1, 1 << 20));
  entry.ranks_per_host = static_cast<int>(in.whole("ranks_per_host", 1, 1 << 20));
  entry.core_to_core_ns = in.real("core_to_core_ns", 0, 1e18, 0);
  const Json* ranges = in.list("ranges", k_most_ranges);
  GRADRAIL_TRY(in.done());
  for (std::size_t i = 0; i < ranges->size(); ++i) {
    GRADRAIL_ASSIGN(TableRange range, read_range((*ranges)[i], fmt::format("{}[{}]", in.path("ranges"), i)));
    entry.ranges.push_back(std::move(range));
  }
  if (!json.contains("codecs")) return entry;
  const Json* codecs = in.list("codecs", k_most_ranges);
  GRADRAIL_TRY(in.done());
  for (std::size_t i = 0; i < codecs->size(); ++i) {
    GRADRAIL_ASSIGN(CodedSize size, read_coded_size((*codecs)[i], fmt::format("{}[{}]", in.path("codecs"), i)));
    entry.codecs.push_back(std::move(size));
  }
  return entry;
}

Result<TableOrigin> read_origin(const Json& json) {
  Reader in(json, "origin");
  TableOrigin origin;
  origin.cpu_model = in.text("cpu_model");
  origin.cores = static_cast<int>(in.whole("cores", 0, 1 << 20));
  origin.version = in.text("version", false);
  origin.commit = in.text("commit", false);
  origin.date = in.text("date", false);
  origin.buffers = in.text("buffers", false);
  origin.cache = in.text("cache", false);
  origin.type = in.text("type", false);
  origin.op = in.text("op", false);
  origin.phase = in.text("phase", false);
  GRADRAIL_TRY(in.done());
  return origin;
}

// Seven significant digits: more would only be noise.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double scale = std::pow(10, 6 - static_cast<int>(std::floor(std::log10(std::abs(value)))));
  return std::round(value * scale) / scale;
}

Json json_of(const CodedSize& size) {
  Json choices = Json::array();
  for (const CodedChoice& choice : size.choices)
    choices.push_back({{"codec", choice.selection.codec},
                       {"where", to_string(choice.selection.where)},
                       {"algorithm", choice.selection.algorithm},
                       {"lanes", choice.selection.lanes},
                       {"pieces", choice.selection.pieces},
                       {"time_us", rounded(choice.time_us)},
                       {"error", rounded(choice.error)}});
  return {{"bytes", size.bytes}, {"dense_us", rounded(size.dense_us)}, {"choices", std::move(choices)}};
}

}  // namespace

Result<DecisionTable> parse_table(std::string_view text) {
  if (text.size() > k_longest_text)
    return fail(Code::malformed, fmt::format("it has more than {} bytes, which no decision table has", k_longest_text));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    return fail(Code::malformed, "it is not whole JSON; the file was cut short or is something else");
  Reader in(json, "");
  if (in.text("kind", false) != "decision_table" && in.done())
    return fail(Code::malformed, "kind is not \"decision_table\"; it is JSON, but no decision table");
  const auto schema = in.whole("schema", 1, 1'000'000);
  if (in.done() && schema > k_table_schema)
    return fail(Code::malformed, fmt::format("its schema is {}, made by a later version; this one reads schema 1 to {}",
                                             schema, k_table_schema));
  const Json* origin = in.object("origin");
  const Json* entries = in.list("entries", k_most_entries);
  GRADRAIL_TRY(in.done());
  DecisionTable table;
  GRADRAIL_ASSIGN(table.origin, read_origin(*origin));
  for (std::size_t i = 0; i < entries->size(); ++i) {
    GRADRAIL_ASSIGN(TableEntry entry, read_entry((*entries)[i], fmt::format("entries[{}]", i)));
    table.entries.push_back(std::move(entry));
  }
  GRADRAIL_TRY(check_table(table));
  return table;
}

std::string format_table(const DecisionTable& table) {
  Json json;
  json["kind"] = "decision_table";
  json["schema"] = k_table_schema;
  const TableOrigin& o = table.origin;
  json["origin"] = {{"cpu_model", o.cpu_model}, {"cores", o.cores}, {"version", o.version}, {"commit", o.commit},
                    {"date", o.date},           {"type", o.type},   {"op", o.op},           {"buffers", o.buffers},
                    {"cache", o.cache},         {"phase", o.phase}};
  json["entries"] = Json::array();
  for (const TableEntry& entry : table.entries) {
    Json ranges = Json::array();
    for (const TableRange& range : entry.ranges) {
      Json one = {{"from_bytes", range.from_bytes},
                  {"to_bytes", range.to_bytes},
                  {"algorithm", range.selection.algorithm},
                  {"lanes", range.selection.lanes},
                  {"pieces", range.selection.pieces},
                  {"median_us", rounded(range.median_us)},
                  {"margin", rounded(range.margin)},
                  {"confidence", rounded(range.confidence)},
                  {"sizes", range.sizes}};
      if (!range.runner_up.empty()) one["runner_up"] = range.runner_up;
      ranges.push_back(std::move(one));
    }
    Json one = {{"collective", to_string(entry.collective)},
                {"transport", entry.transport},
                {"ranks", entry.ranks},
                {"ranks_per_host", entry.ranks_per_host},
                {"core_to_core_ns", rounded(entry.core_to_core_ns)},
                {"ranges", std::move(ranges)}};
    for (const CodedSize& size : entry.codecs) one["codecs"].push_back(json_of(size));
    json["entries"].push_back(std::move(one));
  }
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace gradrail
