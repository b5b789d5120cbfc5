// A decision table: what was measured to be best, by case and size, and where. Fitted by `gradrail tune`, looked up for
// `--algorithm auto`. Pure: text in, text out; files belong to whoever has a name for them.
//
// Invariants of a table that parse_table() or check_table() accepted: every entry has at least one range;
// the ranges of an entry ascend and do not overlap; every algorithm has a planner that supports the entry's shape; no
// two entries are of one case; sizes with codecs ascend. Ranges say which sizes they rest on; sizes between and beyond
// belong to the nearest.
//
// Schema 2 has codecs; tables of schema 1, which have none, are read as well.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/select/coded_sizes.h"
#include "collectives/select/selector.h"

namespace gradrail {

inline constexpr int k_table_schema = 2;

struct TableRange {
  std::uint64_t from_bytes = 0;  // both included
  std::uint64_t to_bytes = 0;
  Selection selection;
  double median_us = 0;     // at the largest measured size of the range
  double margin = 1;        // runner-up's time / winner's, geometric mean over the measured sizes; 1 without a rival
  double confidence = 0;    // share of the measured sizes at which the intervals part from all rivals', 0 to 1
  int sizes = 0;            // measured in the range
  std::string runner_up{};  // the nearest rival's algorithm; empty if there was none
};

struct TableEntry {
  Collective collective = Collective::allreduce;
  std::string transport;  // as in Question
  int ranks = 1;
  int ranks_per_host = 1;
  std::vector<TableRange> ranges;
  std::vector<CodedSize> codecs{};  // for calls that bear an error; empty: not measured
  double core_to_core_ns = 0;       // a cache line took, when it was fitted; 0: not known
};

// Where and how a table came to be.
struct TableOrigin {
  std::string cpu_model;
  int cores = 0;  // 0: unknown
  std::string version;
  std::string commit;
  std::string date;     // ISO 8601 in UTC
  std::string buffers;  // "plain" or "registered"
  std::string cache;    // "hot", "rotate" or "flush"
  std::string type;     // of the elements: "f32"
  std::string op;
  std::string phase;  // the machine's, at the end
};

struct DecisionTable {
  TableOrigin origin;
  std::vector<TableEntry> entries;
};

// Errors: malformed, saying where and what is wrong ("entries[0].ranges[2].from_bytes is not a whole number").
[[nodiscard]] Result<DecisionTable> parse_table(std::string_view json);
[[nodiscard]] std::string format_table(const DecisionTable& table);
[[nodiscard]] Result<void> check_table(const DecisionTable& table);

// Nothing if the table was made on hardware like this; else how it differs: "made on an AMD EPYC 9B14 with 2 cores;
// this is an Intel Xeon with 8". Without a known processor a table belongs nowhere.
[[nodiscard]] std::optional<std::string> foreign(const TableOrigin& made, std::string_view cpu_model, int cores);

// Another number of ranks than was asked for is taken up to this factor away, in ranks and in ranks per host.
inline constexpr double k_farthest_ranks = 2;

// The entry for the question: same collective and transport, one host or several alike, nearest in the logarithms of
// ranks and of ranks per host. Null if none is near enough.
[[nodiscard]] const TableEntry* find_entry(const DecisionTable& table, const Question& question);
// The range for a size: the one that holds it, else the nearest in the logarithm of the size.
[[nodiscard]] const TableRange& find_range(const TableEntry& entry, std::uint64_t bytes);

// What the table says of data as it is; null if nothing, as no entry is near enough, or another number of ranks is one
// that the algorithm is not defined for.
[[nodiscard]] const Selection* find_answer(const DecisionTable& table, const Question& question);

// Answers from the table, and from another selector where the table says nothing, of codecs too. May be shared between
// threads if the fallback may.
class TableSelector : public Selector {
 public:
  // `name`: of the table, for describe(). `fallback` null: default_selection().
  TableSelector(DecisionTable table, std::string name, std::shared_ptr<const Selector> fallback);
  [[nodiscard]] Selection choose(const Question& question) const override;
  [[nodiscard]] std::string describe() const override { return "table " + name_; }
  [[nodiscard]] const DecisionTable& table() const { return table_; }

 private:
  DecisionTable table_;
  std::string name_;
  std::shared_ptr<const Selector> fallback_;
};

// Whether a planner of that name exists and supports the question's shape with these lanes and pieces.
[[nodiscard]] Result<void> can_answer(const Selection& selection, const Question& question);

}  // namespace gradrail
