#include "bench/command/tune.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "bench/command/axes.h"
#include "bench/command/job.h"
#include "bench/command/run_record.h"
#include "bench/measure/placement.h"
#include "bench/measure/selectors.h"
#include "bench/measure/statistics.h"
#include "bench/measure/tuning_job.h"
#include "bench/report/progress.h"
#include "bench/report/tuned.h"
#include "collectives/select/cost_selector.h"
#include "results/store.h"

namespace gradrail {

namespace {

struct TuneTexts {
  AxisTexts axes;
  std::string table = "gradrail-table.json";
  std::string json;
  double budget = 120;
};

Result<TuneOptions> parse_options(const TuneTexts& texts, int ranks) {
  TuneOptions options;
  GRADRAIL_ASSIGN(options.axes, parse_axes(texts.axes, ranks));
  if (!(texts.budget >= 1 && texts.budget <= 1e6))
    return fail(Code::bad_usage, fmt::format("--budget is {} seconds; it may be 1 to 1000000", texts.budget));
  options.budget = Seconds(texts.budget);
  // A table is of one case; what it says is used for the other types, where a byte costs about as much.
  if (options.axes.types.size() > 1 || options.axes.ops.size() > 1)
    return fail(Code::bad_usage, "a table is tuned with one type (-d) and one reduction (-o)");
  if (options.axes.algorithms.size() != 1 || options.axes.algorithms.front() != "all")
    return fail(Code::bad_usage, "tuning tries all algorithms; leave --algorithm out");
  if (options.axes.lanes != 0 || options.axes.pieces != 0)
    return fail(Code::bad_usage, "tuning tries lanes and pieces itself; leave --lanes and --pieces out");
  if (texts.table.empty()) return fail(Code::bad_usage, "--table needs the name of the file to write");
  if (texts.table == texts.json)
    return fail(Code::bad_usage, fmt::format("two outputs cannot go to one file, '{}'", texts.json));
  return options;
}

// Rank 0's side: what people and files get to see.
class Reporter : public TuneListener {
 public:
  Reporter(const TuneTexts& texts, const TuneOptions& options) : texts_(texts), options_(options) {}

  Result<void> begin(const Run& run) {
    run_ = run;
    if (!texts_.json.empty()) {
      GRADRAIL_ASSIGN(json_, RecordWriter::create(texts_.json));
      GRADRAIL_TRY(json_->write(run));
    }
    const Machine& m = run.machine;
    return say(fmt::format("# gradrail tune {} {}: {} ranks on {}, {} core{}; about {:.0f} s\n", run.build.version,
                           run.build.commit, run.job.ranks, m.cpu_model.empty() ? "unknown processor" : m.cpu_model,
                           m.cores, m.cores == 1 ? "" : "s", options_.budget.count()));
  }

  Result<void> begin_case(const Question& question, const LinkCalibration& links) override {
    question_ = question;
    model_ = links.model;
    const bool several = question.ranks > question.ranks_per_host;
    return say(
        fmt::format("#\n# {} over {}, {} host{} of {}\n# links: {}; the model is off by {:.0f} % on {} trials\n{}",
                    to_string(question.collective), question.transport, question.ranks / question.ranks_per_host,
                    several ? "s" : "", question.ranks_per_host, to_string(links.model, several),
                    (std::exp(links.error) - 1) * 100, links.observations, tuned_size_header()));
  }

  void note(const std::string& what) override { (void)say("# " + what + "\n"); }
  void next(double fraction_done, const std::string& what) override { progress_.update(fraction_done, what); }

  Result<void> block(const Block& block) override {
    std::vector<std::vector<double>> samples;
    for (const Outcome& outcome : block.outcomes) {
      samples.push_back(outcome.wrong == 0 ? outcome.samples_us : std::vector<double>());
      if (outcome.wrong > 0) wrong_ = true;
    }
    if (!block.held_out) GRADRAIL_TRY(say(tuned_size_row(block.bytes, block.selections, samples)));
    phase_ = block.phase;
    if (!json_) return {};
    for (std::size_t i = 0; i < block.selections.size(); ++i) GRADRAIL_TRY(json_->write(point_of(block, i)));
    return {};
  }

  Result<void> end_case(const TunedCase& done) override {
    if (done.tuned.hurried)
      note("the time ran out: only finalists were measured at the last sizes, and crossings are coarse (--budget)");
    GRADRAIL_TRY(say(ranges_text(done.entry.ranges)));
    GRADRAIL_TRY(say(regret_text(done.regret)));
    if (!done.entry.ranges.empty()) table_.entries.push_back(done.entry);
    return {};
  }

  Result<void> finish() {
    if (wrong_) return fail(Code::malformed, "some results were wrong; no table is written");
    const SweepOptions& axes = options_.axes;
    table_.origin = {run_.machine.cpu_model,
                     run_.machine.cores,
                     run_.build.version,
                     run_.build.commit,
                     run_.started,
                     axes.buffers == BufferKind::plain ? "plain" : "registered",
                     cache_name(),
                     std::string(to_string(axes.types.front())),
                     std::string(to_string(axes.ops.front())),
                     phase_};
    GRADRAIL_TRY(write_whole_file(texts_.table, format_table(table_)));
    if (!texts_.json.empty()) GRADRAIL_TRY(say(fmt::format("# wrote {}\n", texts_.json)));
    return say(fmt::format("# wrote {}; use it with: gradrail bench --algorithm auto --table {}\n", texts_.table,
                           texts_.table));
  }

 private:
  [[nodiscard]] const char* cache_name() const {
    switch (options_.axes.cache) {
      case Cache::hot: return "hot";
      case Cache::rotate: return "rotate";
      case Cache::flush: return "flush";
    }
    return "";
  }

  Result<void> say(const std::string& text) {
    progress_.clear();
    fmt::print("{}", text);
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
    return fail_errno("writing to standard output", errno);
  }

  Point point_of(const Block& block, std::size_t i) const {
    const Outcome& outcome = block.outcomes[i];
    const SweepOptions& axes = options_.axes;
    Point point;
    point.collective = to_string(block.collective);
    point.algorithm = block.selections[i].algorithm;
    point.transport = block.transport;
    point.topology = block.topology;
    point.ranks = block.ranks;
    point.bytes = block.bytes;
    point.count = block.count;
    point.type = to_string(axes.types.front());
    if (reduces(block.collective)) point.op = to_string(axes.ops.front());
    if (has_root(block.collective)) point.root = axes.root;
    point.in_place = axes.in_place;
    point.buffers = axes.buffers == BufferKind::plain ? "plain" : "registered";
    point.cache = cache_name();
    point.lanes = block.selections[i].lanes;
    point.phase = block.phase;
    if (outcome.refused) {
      point.error = outcome.refused->message;
      return point;
    }
    point.path = outcome.path;
    point.chunks = static_cast<int>(outcome.ran.chunks);
    if (axes.rules.check) point.wrong = static_cast<std::int64_t>(outcome.wrong);
    if (outcome.wrong > 0) {
      point.error = fmt::format("{} elements came out wrong; the point was not timed", outcome.wrong);
      return point;
    }
    Question question = question_;
    question.bytes = static_cast<std::uint64_t>(block.bytes);
    if (const auto seconds = predict(block.selections[i], question, model_, axes.root)) point.model_us = *seconds * 1e6;
    point.samples_us = outcome.samples_us;
    if (point.samples_us.empty()) return point;
    point.time_us = summarise(point.samples_us, outcome.batch);
    point.algbw_gbs = static_cast<double>(block.bytes) / point.time_us->median * 1e-3;
    point.busbw_gbs = point.algbw_gbs * bus_factor(block.collective, block.ranks);
    return point;
  }

  const TuneTexts& texts_;
  const TuneOptions& options_;
  Run run_;
  DecisionTable table_;
  Question question_;
  CostModel model_;
  std::string phase_;
  Progress progress_;
  std::optional<RecordWriter> json_;
  bool wrong_ = false;
};

Result<void> tune(Bootstrap& bootstrap, const TuneTexts& texts, const std::vector<std::string>& argv) {
  GRADRAIL_ASSIGN(TuneOptions options, parse_options(texts, bootstrap.ranks()));
  const Run run = describe_run(bootstrap, argv);  // before this rank is bound to a core
  GRADRAIL_ASSIGN(const Placement placement, place_rank(bootstrap));
  options.axes.cores = placement.cores;
  if (bootstrap.rank() != 0) return run_tuning(bootstrap, options, nullptr);
  Reporter reporter(texts, options);
  GRADRAIL_TRY(reporter.begin(run));
  GRADRAIL_TRY(run_tuning(bootstrap, options, &reporter));
  return reporter.finish();
}

}  // namespace

Command add_tune_command(CLI::App& parent, std::vector<std::string> argv) {
  auto texts = std::make_shared<TuneTexts>();
  CLI::App* app = parent.add_subcommand("tune",
                                        "Find the best algorithm for each size by adaptive measurement, judge the "
                                        "choice on sizes held out, and write it as a table for --algorithm auto");
  add_axis_options(*app, texts->axes);
  const std::string where = "Where results go";
  app->add_option("--table", texts->table, "The decision table to write")->group(where)->capture_default_str();
  app->add_option("--json", texts->json, "Records with every sample, one JSON object a line")->group(where);
  app->add_option("--budget", texts->budget, "Seconds to spend, about")->group("How to measure")->capture_default_str();
  return {app, [texts, argv] {
            JobOptions job;
            job.ranks = texts->axes.ranks;
            job.argv = argv;
            const auto before = [&](int ranks) -> Result<void> {
              GRADRAIL_TRY(parse_options(*texts, ranks));
              GRADRAIL_TRY(OutputFile::can_create(texts->table));
              if (!texts->json.empty()) GRADRAIL_TRY(OutputFile::can_create(texts->json));
              return {};
            };
            return run_as_job(job, before, [&](Bootstrap& bootstrap) { return tune(bootstrap, *texts, argv); });
          }};
}

}  // namespace gradrail
