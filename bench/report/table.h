// The table that people watch: the columns of nccl-tests, and ours. Made as text, row by row as points come in, with
// fixed widths; lines that are not data start with '#'. Winners carry '*', ties kept by simplicity '~'. Keeps count of
// what came out wrong for the footer. Writes nowhere itself.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bench/report/choose.h"
#include "results/record.h"

namespace gradrail {

// Colour is for a terminal only, and not where NO_COLOR (https://no-color.org) is set or TERM is "dumb".
[[nodiscard]] bool wants_colour(std::FILE* stream);

struct TableOptions {
  bool colour = false;
  bool collective_column = false;  // where a run measures more than one
  bool say_registered = false;     // behind the algorithm, where plain buffers are measured as well
  int algorithm_width = 18;        // of the longest name that will come
  int transport_width = 9;
  int codec_width = 0;  // of the longest name; 0: none is compared, and what is said of codecs is left out
};

class Table {
 public:
  explicit Table(TableOptions options) : options_(options) {}

  [[nodiscard]] std::string header() const;  // names and units
  [[nodiscard]] std::string row(const Point& point, Mark mark);
  // "# Out of bounds values : 0 OK", and how many points could not be run.
  [[nodiscard]] std::string footer() const;

 private:
  TableOptions options_;
  std::int64_t wrong_ = 0;
  int checked_points_ = 0;
  int failed_points_ = 0;
  int points_ = 0;
};

}  // namespace gradrail
