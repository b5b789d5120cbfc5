#include "bench/command/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "bench/command/measuring.h"
#include "bench/command/outputs.h"
#include "bench/doctor/readers.h"
#include "bench/measure/machine.h"
#include "bench/measure/selectors.h"
#include "bench/peers/configurations.h"
#include "bench/report/against.h"
#include "bench/report/against_chart.h"
#include "bench/report/chart.h"
#include "bench/report/choose.h"
#include "bench/report/codecs.h"
#include "bench/report/csv.h"
#include "bench/report/expected.h"
#include "bench/report/figures.h"
#include "bench/report/progress.h"
#include "bench/report/summary.h"
#include "bench/report/table.h"
#include "bench/report/trace.h"
#include "results/store.h"

namespace gradrail {

namespace {

struct BenchTexts {
  MeasuringTexts measuring;
  TableTexts table;
  std::string csv;
  std::string trace;
  std::string svg;
  std::string against;

  [[nodiscard]] std::array<Output, 4> outputs() const {
    return {{{"--json", &measuring.json, true}, {"--csv", &csv, true}, {"--trace", &trace}, {"--svg", &svg}}};
  }
};

// Rank 0's side: everything that people and files get to see.
class Reporter : public SweepListener {
 public:
  Reporter(const SweepOptions& options, const BenchTexts& texts, Run run, std::string_view origin)
      : options_(options), texts_(texts), run_(std::move(run)), table_(table_options(options, origin)) {
    for (const Planner* planner : planners()) simplest_first_.emplace_back(planner->name);
  }

  Result<void> begin() override {
    const Run& run = run_;
    if (!texts_.measuring.json.empty()) {
      GRADRAIL_ASSIGN(json_, RecordWriter::create(texts_.measuring.json));
      GRADRAIL_TRY(json_->write(run));
    }
    if (!texts_.csv.empty()) {
      GRADRAIL_ASSIGN(csv_, CsvWriter::create(texts_.csv));
    }
    if (!texts_.trace.empty()) {
      GRADRAIL_ASSIGN(trace_, TraceWriter::create(texts_.trace));
    }
    GRADRAIL_TRY(give_way(texts_.outputs()));
    const Machine& m = run.machine;
    fmt::print("# gradrail {} {}, {} ranks on {} host{}: {} ({}), {} core{}\n", run.build.version, run.build.commit,
               run.job.ranks, run.job.hosts, run.job.hosts == 1 ? "" : "s", m.hostname,
               m.cpu_model.empty() ? "unknown processor" : m.cpu_model, m.cores, m.cores == 1 ? "" : "s");
    if (run.build.type != "Release" || !run.build.sanitize.empty())
      fmt::print("# This is a {} build{}: its figures say nothing about speed\n", run.build.type,
                 run.build.sanitize.empty() ? "" : " with sanitizers");
    if (run.job.ranks > m.cores * run.job.hosts)
      fmt::print("# {} ranks share {} cores: ranks wait for each other's turn, and times show it\n", run.job.ranks,
                 m.cores * run.job.hosts);
    fmt::print(
        "# {} buffers{}, {}, {}; time: median over samples of the slowest rank; busbw: algbw x factor of the "
        "collective\n",
        options_.registered_too ? "plain and registered" : to_string(options_.buffers),
        options_.buffers == BufferKind::huge ? " (plain: huge pages)" : "",
        options_.cache == Cache::hot      ? "hot"
        : options_.cache == Cache::rotate ? "rotating"
                                          : "flushed caches",
        options_.in_place ? "in place" : "out of place");
    fmt::print("{}", with_newline(table_.header()));
    return say({});
  }

  Result<void> block(std::span<const Point> points) override {
    progress_.clear();
    const auto marked = marks(points, simplest_first_);
    for (std::size_t i = 0; i < points.size(); ++i) {
      Point point = points[i];
      expect(point, limits_of(point), cache_bytes(run_.machine), rdma_);
      fmt::print("{}", with_newline(table_.row(point, marked[i])));
      if (point.wrong.value_or(0) > 0) wrong_ = true;
      if (json_) GRADRAIL_TRY(json_->write(point));
      if (csv_) GRADRAIL_TRY(csv_->write(point));
      points_.push_back(point);
    }
    // The best algorithm is said for the buffers that were asked for first.
    std::vector<Point> first;
    std::copy_if(points.begin(), points.end(), std::back_inserter(first),
                 [&](const Point& point) { return point.buffers == to_string(options_.buffers); });
    for (const Choice& choice : choose(first, simplest_first_)) {
      if (json_) GRADRAIL_TRY(json_->write(choice));
      choices_.push_back(choice);
    }
    for (const Comparison& comparison : compare_with_peers(points)) {
      if (json_) GRADRAIL_TRY(json_->write(comparison));
      comparisons_.push_back(comparison);
    }
    return say({});
  }

  Result<void> steps(const Point& point, std::span<const RankStep> steps) override {
    if (!trace_) return {};
    GRADRAIL_TRY(
        trace_->begin_point(fmt::format("{} {} {} {} {} B{}", point.collective, point.algorithm, point.transport,
                                        point.topology, point.bytes, is_encoded(point) ? " " + *point.codec : "")));
    for (const RankStep& step : steps) {
      std::string name = step.peer < 0 ? step.name : fmt::format("{} rank {}", step.name, step.peer);
      if (step.phase >= 0) name += fmt::format(", phase {}", step.phase);
      TraceEvent event;
      event.name = name;
      event.rank = step.rank;
      event.lane = step.lane;
      event.start_us = std::max(0.0, step.start_us);
      event.duration_us = step.duration_us;
      event.step = step.step;
      event.op = step.name;
      event.phase = step.phase;
      event.peer = step.peer;
      event.bytes = step.bytes;
      GRADRAIL_TRY(trace_->add(event));
    }
    return {};
  }

  void group(const Communicator& group, const LinkCalibration&, const Selector& selector) override {
    for (const std::string& line : group.describe_transports()) {
      progress_.clear();
      fmt::print("# rank 0 uses {}\n", line);
      if (!line.starts_with("verbs: ")) continue;
      rdma_ = path_in_use(line, doctor::expected_paths(doctor::read_facts(Files())));
      if (rdma_) fmt::print("# {} carries {} GB/s at best: {}\n", rdma_->name, format_gbs(rdma_->gbs), rdma_->limit);
    }
    const auto& wanted = options_.algorithms;
    if (std::find(wanted.begin(), wanted.end(), "auto") == wanted.end()) return;
    progress_.clear();
    fmt::print("# over {}, auto is answered by {}\n", group.transport_name(), selector.describe());
  }

  void peer(const PeerRecord& peer) override {
    progress_.clear();
    fmt::print("# against {} {}: {}\n", peer.library, peer.configuration, peer.error ? *peer.error : peer.version);
    if (json_) (void)json_->write(peer);
  }

  void next(double fraction_done, const std::string& what) override { progress_.update(fraction_done, what); }

  void bare_sockets(const Point& of, std::uint64_t bytes, double us) override {
    bounds_.push_back({of, us,
                       fmt::format("bare sockets between pairs of ranks take that for {:.3g} MB each way",
                                   static_cast<double>(bytes) / 1e6)});
  }

  void limits(const Limits& limits) override {
    if (limits_.empty() || limits_.back().phase != limits.phase) {
      limits_.push_back(limits);
      if (json_) (void)json_->write(limits);
    }
  }

  Result<void> finish() {
    progress_.clear();
    fmt::print("{}", with_newline(table_.footer()));
    std::vector<Bound> bounds = bounds_;
    const std::int64_t caches = cache_bytes(run_.machine);
    for (const Choice& choice : choices_) {
      for (const Point& point : points_) {
        if (is_encoded(point) || point.bytes != choice.bytes || point.algorithm != choice.algorithm ||
            point.collective != choice.collective || point.transport != choice.transport ||
            point.topology != choice.topology || point.type != choice.type || point.op != choice.op)
          continue;
        // Held against the bandwidth of the phase that it was measured in.
        if (const auto bound = shared_memory_bound(point, limits_of(point), caches)) {
          bounds.push_back(*bound);
        } else if (point.expected_share && rdma_) {
          bounds.push_back({point, point.time_us->median * *point.expected_share,
                            fmt::format("{} carries {} GB/s", rdma_->name, format_gbs(rdma_->gbs))});
        }
        break;
      }
    }
    const Limits limits = limits_.empty() ? Limits{} : limits_.back();
    fmt::print("{}", with_newline(summary(choices_, points_, limits, bounds)));
    if (const std::string codecs = codec_summary(points_); !codecs.empty()) fmt::print("{}", codecs);
    if (!options_.against.empty())
      fmt::print("{}", comparisons_.empty()
                           ? "# Against the best peer: nothing could be compared; the rows above say why\n"
                           : against_table(comparisons_));
    if (trace_) GRADRAIL_TRY(trace_->finish());
    if (!texts_.svg.empty()) GRADRAIL_TRY(draw());
    for (const Output& output : texts_.outputs())
      if (!output.path->empty() && *output.path != OutputFile::k_standard) fmt::print("# wrote {}\n", *output.path);
    GRADRAIL_TRY(say({}));
    if (wrong_) return fail(Code::malformed, "some results were wrong; see the #wrong column");
    if (std::none_of(points_.begin(), points_.end(), [](const Point& point) { return point.time_us.has_value(); }))
      return fail(Code::unsupported, points_.empty() || !points_.front().error
                                         ? "there was nothing to measure: no algorithm that was named is for a "
                                           "collective that was"
                                         : "nothing could be measured: " + *points_.front().error);
    return {};
  }

 private:
  // The limits of the phase that it was measured in; those seen last if there are none.
  [[nodiscard]] Limits limits_of(const Point& point) const {
    const auto its =
        std::find_if(limits_.begin(), limits_.end(), [&](const Limits& one) { return one.phase == point.phase; });
    return its != limits_.end() ? *its : limits_.empty() ? Limits{} : limits_.back();
  }

  static TableOptions table_options(const SweepOptions& options, std::string_view origin) {
    TableOptions table;
    // mpirun gives its ranks a pseudo-terminal, wherever its own output goes.
    table.colour = origin != "pmix" && wants_colour(stdout);
    table.collective_column = options.collectives.size() > 1;
    for (const auto& pair : options.transports)
      table.transport_width =
          std::max(table.transport_width,
                   static_cast<int>(pair.inner.size() + (pair.outer.empty() ? 3 : pair.outer.size())) + 1);
    for (const std::string& codec : options.codecs)
      if (options.codecs.size() > 1 || codec != "none")
        table.codec_width = std::max(table.codec_width, std::max(6, static_cast<int>(codec.size())));
    table.say_registered = options.registered_too;
    if (!options.against.empty()) table.algorithm_width = 30;  // "openmpi:ob1,recursive_doubling"
    if (options.registered_too) table.algorithm_width = 36;    // "auto:recursive_doubling (registered)"
    // "hierarchical" is the longest name of its own; what auto chose stands behind it.
    for (const std::string& name : options.algorithms)
      table.algorithm_width = std::max(table.algorithm_width, name == "auto" ? 23 : static_cast<int>(name.size()));
    return table;
  }
  static std::string with_newline(std::string text) {
    if (!text.empty() && text.back() != '\n') text += '\n';
    return text;
  }

  Result<void> draw() {
    ChartOptions chart;
    const std::string& first = points_.empty() ? std::string("sweep") : points_.front().collective;
    chart.title = fmt::format("{}, {} ranks", first, run_.job.ranks);
    chart.subtitle = fmt::format("{}, {} cores; {}", run_.machine.cpu_model, run_.machine.cores, run_.started);
    std::vector<Point> shown;
    for (const Point& point : points_)
      if (point.collective == first) {
        shown.push_back(point);
        if (is_encoded(point)) shown.back().algorithm += " " + *point.codec;
      }
    GRADRAIL_ASSIGN(auto file, OutputFile::create(texts_.svg));
    if (!options_.against.empty()) {
      chart.title += " against other libraries";
      return file.write(against_svg(comparisons_, chart));
    }
    return file.write(chart_svg(shown, chart));
  }

  const SweepOptions& options_;
  const BenchTexts& texts_;
  Run run_;
  Table table_;
  Progress progress_;
  std::optional<RecordWriter> json_;
  std::optional<CsvWriter> csv_;
  std::optional<TraceWriter> trace_;
  std::vector<std::string> simplest_first_;
  std::vector<Point> points_;
  std::vector<Bound> bounds_;  // by bare sockets
  std::vector<Choice> choices_;
  std::vector<Comparison> comparisons_;
  std::vector<Limits> limits_;
  std::optional<PathInUse> rdma_;
  bool wrong_ = false;
};

// What is compared with others is what a user gets: auto, and whatever else was named.
bool names_auto(const std::string& list) { return ("," + list + ",").find(",auto,") != std::string::npos; }
std::string with_auto(const std::string& algorithms) {
  if (algorithms == AxisTexts().algorithms) return "auto";
  return names_auto(algorithms) ? algorithms : "auto," + algorithms;
}

Result<void> take_peers(const std::string& text, const Bootstrap& bootstrap, SweepOptions& options) {
  // scripts/namespace-lab says that the launchers of others find its hosts.
  const char* const hosts = std::getenv("GRADRAIL_PEER_HOSTS");
  if (bootstrap.origin() != "launcher" && (hosts == nullptr || *hosts == '\0'))
    return fail(Code::bad_usage,
                "--against starts other libraries' ranks on this host, and needs ours to be started by "
                "gradrail as well: without mpirun, srun or torchrun, with -n");
  options.runner_folder = runner_folder();
  GRADRAIL_ASSIGN(options.against, parse_peers(text, options.runner_folder));
  return {};
}

Result<void> bench(MeasuringRank& rank, const BenchTexts& texts) {
  Bootstrap& bootstrap = rank.bootstrap;
  GRADRAIL_ASSIGN(SweepOptions options, parse_axes(texts.measuring.axes, bootstrap.ranks()));
  if (!texts.against.empty()) GRADRAIL_TRY(take_peers(texts.against, bootstrap, options));
  options.trace = !texts.trace.empty();
  options.table_texts = texts.table;
  GRADRAIL_ASSIGN(options.table, share_table(bootstrap, texts.table, rank.run.machine, options.rules.timeout));
  options.cores = rank.placement.cores;
  options.cpus = rank.placement.cpus;
  options.bind = rank.placement.bind;
  if (bootstrap.rank() != 0) return run_sweep(bootstrap, options, nullptr);
  Reporter reporter(options, texts, rank.run, bootstrap.origin());
  GRADRAIL_TRY(run_sweep(bootstrap, options, &reporter));
  return reporter.finish();
}

}  // namespace

Command add_bench_command(CLI::App& parent, std::vector<std::string> argv) {
  auto texts = std::make_shared<BenchTexts>();
  CLI::App* app = parent.add_subcommand("bench",
                                        "Sweep sizes, algorithms, transports and topologies; check every point; "
                                        "choose the best for each size");
  add_measuring_options(*app, texts->measuring);
  const std::string what = "What to measure";
  app->add_option("--table", texts->table.path,
                  "Decision table that answers auto, made by gradrail tune; default: the "
                  "cost model with measured links")
      ->group(what);
  app->add_option("--on-foreign-table", texts->table.on_foreign,
                  "A table from other hardware, or fitted while cache lines took another time between cores: refuse "
                  "(the latter: measure algorithms instead), or warn and use it")
      ->group(what)
      ->capture_default_str();
  app->add_option("--error-budget", texts->measuring.axes.error_budget,
                  "Measures beside the rest what auto does where it may choose a codec too: the table's, or by a short "
                  "trial, whose result is off by no more than this (relative L2); none where none pays")
      ->group(what);
  app->add_option("--against", texts->against,
                  "Other libraries to measure beside ours, turn and turn about: openmpi, mpich, gloo, ucc, nccl, or "
                  "all that were found; ours is then auto")
      ->group(what);
  const std::string where = "Where results go";
  app->add_option("--csv", texts->csv, "One row a point; - for standard output")->group(where);
  app->add_option("--trace", texts->trace, "Chrome/Perfetto trace of one call of each point")->group(where);
  app->add_option("--svg", texts->svg,
                  "A chart of time and bus bandwidth by size; with --against, of how much faster ours is")
      ->group(where);
  return {app, [texts, argv = std::move(argv)] {
            if (!texts->against.empty()) texts->measuring.axes.algorithms = with_auto(texts->measuring.axes.algorithms);
            if (std::string& codecs = texts->measuring.axes.codecs;
                texts->measuring.axes.error_budget != 0 && !names_auto(codecs))
              codecs += ",auto";
            const auto before = [&](int ranks) -> Result<void> {
              if (!texts->against.empty()) GRADRAIL_TRY(parse_peers(texts->against, runner_folder()));
              GRADRAIL_TRY(parse_axes(texts->measuring.axes, ranks));
              GRADRAIL_TRY(open_table(texts->table, describe_machine(), false));
              return can_write(texts->outputs());
            };
            return measure_as_job(texts->measuring, argv, before,
                                  [&](MeasuringRank& rank) { return bench(rank, *texts); });
          }};
}

}  // namespace gradrail
