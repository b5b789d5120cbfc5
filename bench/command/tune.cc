#include "bench/command/tune.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>

#include "bench/command/measuring.h"
#include "bench/command/outputs.h"
#include "bench/measure/selectors.h"
#include "bench/measure/tuning_job.h"
#include "bench/report/progress.h"
#include "bench/report/tuned.h"
#include "results/output_file.h"
#include "results/store.h"

namespace gradrail {

namespace {

struct TuneTexts {
  MeasuringTexts measuring;
  std::string table = "gradrail-table.json";
  double budget = 120;

  [[nodiscard]] std::array<Output, 2> outputs() const {
    return {{{"--table", &table}, {"--json", &measuring.json, true}}};
  }
};

Result<TuneOptions> parse_options(const TuneTexts& texts, int ranks) {
  TuneOptions options;
  GRADRAIL_ASSIGN(options.axes, parse_axes(texts.measuring.axes, ranks));
  if (!(texts.budget >= 1 && texts.budget <= 1e6))
    return fail(Code::bad_usage, fmt::format("--budget is {} seconds; it may be 1 to 1000000", texts.budget));
  options.budget = Seconds(texts.budget);
  if (options.axes.error_budget == 0 && options.axes.codecs != SweepOptions().codecs)
    return fail(Code::bad_usage, "tuning chooses among codecs by their error; say how large it may be: --error-budget");
  const auto& codecs = options.axes.codecs;
  if (std::find(codecs.begin(), codecs.end(), "auto") != codecs.end())
    return fail(Code::bad_usage, "tuning finds out what auto is to choose; name the codecs to try, or none of them");
  // A table is of one case; what it says is used for the other types, where a byte costs about as much.
  if (options.axes.types.size() > 1 || options.axes.ops.size() > 1)
    return fail(Code::bad_usage, "a table is tuned with one type (-d) and one reduction (-o)");
  if (options.axes.algorithms.size() != 1 || options.axes.algorithms.front() != "all")
    return fail(Code::bad_usage, "tuning tries all algorithms; leave --algorithm out");
  if (options.axes.lanes != 0 || options.axes.pieces != 0)
    return fail(Code::bad_usage, "tuning tries lanes and pieces itself; leave --lanes and --pieces out");
  if (texts.table.empty()) return fail(Code::bad_usage, "--table needs the name of the file to write");
  return options;
}

// Rank 0's side: what people and files get to see.
class Reporter : public TuneListener {
 public:
  Reporter(const TuneTexts& texts, const TuneOptions& options) : texts_(texts), options_(options) {}

  Result<void> begin(const Run& run) {
    run_ = run;
    if (!texts_.measuring.json.empty()) {
      GRADRAIL_ASSIGN(json_, RecordWriter::create(texts_.measuring.json));
      GRADRAIL_TRY(json_->write(run));
    }
    GRADRAIL_TRY(give_way(texts_.outputs()));
    const Machine& m = run.machine;
    return print(fmt::format("# gradrail tune {} {}: {} ranks on {}, {} core{}; about {:.0f} s\n", run.build.version,
                             run.build.commit, run.job.ranks, m.cpu_model.empty() ? "unknown processor" : m.cpu_model,
                             m.cores, m.cores == 1 ? "" : "s", options_.budget.count()));
  }

  Result<void> begin_case(const Question& question, const LinkCalibration& links) override {
    const bool several = question.ranks > question.ranks_per_host;
    return print(
        fmt::format("#\n# {} over {}, {} host{} of {}\n# links: {}; the model is off by {:.0f} % on {} trials\n{}",
                    to_string(question.collective), question.transport, question.ranks / question.ranks_per_host,
                    several ? "s" : "", question.ranks_per_host, to_string(links.model, several),
                    (std::exp(links.error) - 1) * 100, links.observations, tuned_size_header()));
  }

  void note(const std::string& what) override { (void)print("# " + what + "\n"); }
  void next(double fraction_done, const std::string& what) override { progress_.update(fraction_done, what); }

  Result<void> block(const Block& block) override {
    std::vector<std::vector<double>> samples;
    for (const Outcome& outcome : block.outcomes) {
      samples.push_back(outcome.wrong == 0 ? outcome.samples_us : std::vector<double>());
      if (outcome.wrong > 0) wrong_ = true;
    }
    if (block.what == For::fitting) GRADRAIL_TRY(print(tuned_size_row(block.bytes, block.selections, samples)));
    if (!json_) return {};
    std::vector<Point> points;
    for (std::size_t i = 0; i < block.selections.size(); ++i) {
      points.push_back(point_of(block.setting, block.calls[i], block.outcomes[i]));
      points.back().phase = block.phase;
    }
    say_where_encoding_pays(points);
    for (const Point& point : points) GRADRAIL_TRY(json_->write(point));
    return {};
  }

  Result<void> end_case(const TunedCase& done) override {
    if (done.tuned.hurried)
      note("the time ran out: only finalists were measured at the last sizes, and crossings are coarse (--budget)");
    phase_ = done.phase;
    if (!done.left_out.empty()) note("there was no time (--budget) for: " + done.left_out);
    GRADRAIL_TRY(print(ranges_text(done.entry.ranges)));
    GRADRAIL_TRY(print(regret_text(done.regret)));
    if (options_.axes.error_budget > 0) GRADRAIL_TRY(print(codecs_text(done.entry.codecs, options_.axes.error_budget)));
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
                     std::string(to_string(axes.buffers)),
                     std::string(to_string(axes.cache)),
                     std::string(to_string(axes.types.front())),
                     std::string(to_string(axes.ops.front())),
                     phase_};
    GRADRAIL_TRY(write_whole_file(texts_.table, format_table(table_)));
    if (!texts_.measuring.json.empty() && texts_.measuring.json != OutputFile::k_standard)
      GRADRAIL_TRY(print(fmt::format("# wrote {}\n", texts_.measuring.json)));
    const bool codecs = std::any_of(table_.entries.begin(), table_.entries.end(),
                                    [](const TableEntry& entry) { return !entry.codecs.empty(); });
    return print(fmt::format("# wrote {}; use it with: gradrail bench{} --algorithm auto --table {}{}\n", texts_.table,
                             same_job(), texts_.table,
                             codecs ? fmt::format(" --error-budget {:g}", axes.error_budget) : ""));
  }

 private:
  // A table answers for jobs such as it was made by, and of no others.
  [[nodiscard]] std::string same_job() const {
    const AxisTexts& asked = texts_.measuring.axes;
    const AxisTexts usual;
    std::string options = fmt::format(" -n {}", run_.job.ranks);
    const auto add = [&](std::string_view option, const std::string& value, const std::string& otherwise) {
      if (value != otherwise) options += fmt::format(" {} {}", option, value);
    };
    add("--collective", asked.collectives, usual.collectives);
    add("--transport", asked.transports, usual.transports);
    add("--inner", asked.inner, usual.inner);
    add("--outer", asked.outer, usual.outer);
    add("--topology", asked.topologies, usual.topologies);
    return options;
  }

  // The table is read while it grows, and stands apart from the line of progress.
  Result<void> print(const std::string& text) {
    progress_.clear();
    return say(text);
  }

  const TuneTexts& texts_;
  const TuneOptions& options_;
  Run run_;
  DecisionTable table_;
  std::string phase_;
  Progress progress_;
  std::optional<RecordWriter> json_;
  bool wrong_ = false;
};

Result<void> tune(MeasuringRank& rank, const TuneTexts& texts) {
  GRADRAIL_ASSIGN(TuneOptions options, parse_options(texts, rank.bootstrap.ranks()));
  options.axes.cores = rank.placement.cores;
  options.axes.bind = rank.placement.bind;
  if (rank.bootstrap.rank() != 0) return run_tuning(rank.bootstrap, options, nullptr);
  Reporter reporter(texts, options);
  GRADRAIL_TRY(reporter.begin(rank.run));
  GRADRAIL_TRY(run_tuning(rank.bootstrap, options, &reporter));
  return reporter.finish();
}

}  // namespace

Command add_tune_command(CLI::App& parent, std::vector<std::string> argv) {
  auto texts = std::make_shared<TuneTexts>();
  CLI::App* app = parent.add_subcommand("tune",
                                        "Find the best algorithm for each size by adaptive measurement, judge the "
                                        "choice on sizes held out, and write it as a table for --algorithm auto");
  add_measuring_options(*app, texts->measuring);
  app->add_option("--table", texts->table, "The decision table to write")
      ->group("Where results go")
      ->capture_default_str();
  app->add_option("--budget", texts->budget, "Seconds to spend; what does not fit is left out, and told")
      ->group("How to measure")
      ->capture_default_str();
  app->add_option("--error-budget", texts->measuring.axes.error_budget,
                  "Choose codecs too, for each size: the fastest, by --codec or of all, whose result is off by no more "
                  "than this (relative L2), and none where none pays; the table keeps them, with their errors")
      ->group("What to measure");
  return {app, [texts, argv = std::move(argv)] {
            const auto before = [&](int ranks) -> Result<void> {
              GRADRAIL_TRY(parse_options(*texts, ranks));
              return can_write(texts->outputs());
            };
            return measure_as_job(texts->measuring, argv, before,
                                  [&](MeasuringRank& rank) { return tune(rank, *texts); });
          }};
}

}  // namespace gradrail
