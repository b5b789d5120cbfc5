// The options that say what to measure, shared by the commands that measure: what people type, turned into the plain
// axes of a sweep. Every mistake is one sentence that quotes what was typed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/measure/sweep.h"
#include "transports/base/result.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace gradrail {

// As typed.
struct AxisTexts {
  int ranks = 0;
  std::string collectives = "allreduce";
  std::string algorithms = "all";
  std::string transports = "shm";
  std::string inner;
  std::string outer;
  std::string topologies;
  std::string min_bytes = "8";
  std::string max_bytes = "64M";
  double factor = 4;
  std::string step_bytes;
  std::string types = "float";
  std::string ops = "sum";
  std::string codecs = "none";
  std::string codec_where = "all";
  double error_budget = 0;
  std::string buffers = "plain";
  std::string memory = "host";
  std::string cache = "hot";
  int root = 0;
  bool in_place = false;
  int lanes = 0;
  int pieces = 0;
  int connections = 1;
  std::string verbs;
  std::string connect;
  int iterations = 0;
  double time_per_point = 0.2;
  int warmup = 5;
  int check = 1;
  double timeout = 30;
};

// "a,b": the parts between commas.
[[nodiscard]] std::vector<std::string> split_words(const std::string& text, char separator = ',');
// From the smallest to the largest, by factor, or by step where one is given. Errors: bad_usage.
[[nodiscard]] Result<std::vector<std::int64_t>> parse_sizes(const std::string& min_bytes, const std::string& max_bytes,
                                                            double factor, const std::string& step_bytes);
// Errors: bad_usage naming the known ones; why it is not available here.
[[nodiscard]] Result<void> known_transport(const std::string& name);

// -n, which refuses what is no number of ranks.
CLI::Option* add_ranks_option(CLI::App& app, AxisTexts& texts, const std::string& default_ranks);
void add_axis_options(CLI::App& app, AxisTexts& texts);

// --verbs, and what has an option of its own.
[[nodiscard]] std::string verbs_settings(const AxisTexts& texts);

// `ranks`: of the job, for checking topologies. Errors: bad_usage.
[[nodiscard]] Result<SweepOptions> parse_axes(const AxisTexts& texts, int ranks);

}  // namespace gradrail
