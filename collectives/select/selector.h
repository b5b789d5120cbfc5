// Which algorithm to use for a call. Pure: what is known goes in, a choice comes out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "collectives/types.h"
#include "transports/base/result.h"

namespace gradrail {

// Whether peers reach the memory of a call themselves.
enum class Reached : std::uint8_t { unknown, no, yes };

struct Question {
  Collective collective = Collective::allreduce;
  std::uint64_t bytes = 0;  // of the collective's data: its largest buffer, as the benchmark's size column has it
  int ranks = 1;
  int ranks_per_host = 1;
  std::string transport;  // "shm", or "shm+tcp" where the one inside a host and the one between differ
  bool in_place = false;
  Reached reached = Reached::unknown;
  // The relative error that the caller bears, of float32 that is summed, averaged or gathered. 0: none, and no answer
  // names a codec.
  double error_budget = 0;
};

struct Selection {
  std::string algorithm;  // as parse_algorithm() reads it; with a codec, an exchange's name too (collectives/exec/)
  int lanes = 1;
  int pieces = 1;
  std::string codec{};  // as make_codec() reads it; empty: data travels as it is
  CodecWhere where = CodecWhere::everywhere;
  friend bool operator==(const Selection&, const Selection&) = default;
};

class Selector {
 public:
  virtual ~Selector() = default;
  // Always finds one: every collective has a planner for any number of ranks.
  [[nodiscard]] virtual Selection choose(const Question& question) const = 0;
  // For tables and records: "table FILE", "cost model".
  [[nodiscard]] virtual std::string describe() const = 0;
};

// Lanes and pieces for an algorithm when nobody said: pieces small enough to overlap receiving with sending on,
// large enough that a message's fixed cost does not show.
[[nodiscard]] Selection with_default_tuning(std::string_view algorithm, const Question& question);

// What is best whatever links were measured, as it rests on how a plan is executed, which no model of links shows; with
// no name where there is no such thing.
[[nodiscard]] Selection known_selection(const Question& question);

// What to use where there is neither a table nor a measured link: small data by few rounds, large data by few bytes.
[[nodiscard]] Selection default_selection(const Question& question);

}  // namespace gradrail
