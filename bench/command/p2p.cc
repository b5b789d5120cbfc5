#include "bench/command/p2p.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <optional>

#include "bench/command/measuring.h"
#include "bench/command/outputs.h"
#include "bench/doctor/readers.h"
#include "bench/measure/p2p.h"
#include "bench/measure/probe.h"
#include "bench/report/chart.h"
#include "bench/report/csv.h"
#include "bench/report/expected.h"
#include "bench/report/figures.h"
#include "bench/report/heat_map.h"
#include "bench/report/p2p.h"
#include "bench/report/progress.h"
#include "results/store.h"

namespace gradrail {

namespace {

constexpr std::array k_tests = {P2pTest::latency, P2pTest::bandwidth, P2pTest::bidirectional, P2pTest::message_rate};
constexpr int k_most_lanes = 64;

struct P2pTexts {
  MeasuringTexts measuring;  // of which ranks, -T, verbs, connections and the like
  std::string tests = "latency,bandwidth";
  std::string pair = "0,1";
  bool matrix = false;
  std::string min_bytes;
  std::string max_bytes;
  double factor = 4;
  std::string step_bytes;
  int depth = 0;
  int lanes = 1;
  int rounds = 9;
  std::string buffers;  // empty: by memory
  int in_line = -1;
  std::string operations = "pipe";
  std::string csv;
  std::string svg;

  [[nodiscard]] std::array<Output, 3> outputs() const {
    return {{{"--json", &measuring.json, true}, {"--csv", &csv, true}, {"--svg", &svg, true}}};
  }
};

Result<std::vector<P2pTest>> parse_tests(const std::string& text) {
  std::vector<P2pTest> tests;
  for (const std::string& name : split_words(text)) {
    if (name == "all") {
      tests.assign(k_tests.begin(), k_tests.end());
      continue;
    }
    const auto known =
        std::find_if(k_tests.begin(), k_tests.end(), [&](P2pTest test) { return to_string(test) == name; });
    if (known == k_tests.end())
      return fail(
          Code::bad_usage,
          fmt::format("'{}' is no test; known are latency, bandwidth, bidirectional, message-rate and all", name));
    if (std::find(tests.begin(), tests.end(), *known) == tests.end()) tests.push_back(*known);
  }
  return tests;
}

Result<void> parse_pair(const std::string& text, int ranks, P2pOptions& options) {
  const auto number = [](std::string_view part, int& value) {
    const auto read = std::from_chars(part.data(), part.data() + part.size(), value);
    return read.ec == std::errc() && read.ptr == part.data() + part.size() && value >= 0;
  };
  const auto comma = text.find(',');
  if (comma == text.npos || !number(std::string_view(text).substr(0, comma), options.from) ||
      !number(std::string_view(text).substr(comma + 1), options.to) || options.from == options.to)
    return fail(Code::bad_usage, fmt::format("--pair '{}' is not two different ranks, such as 0,1", text));
  if (std::max(options.from, options.to) >= ranks)
    return fail(Code::bad_usage, fmt::format("--pair {} names rank {}, and the job has {} (-n)", text,
                                             std::max(options.from, options.to), ranks));
  return {};
}

constexpr std::array k_operations = {Operation::write, Operation::send, Operation::read};

Result<std::vector<std::optional<Operation>>> parse_operations(const std::string& text) {
  std::vector<std::optional<Operation>> operations;
  for (const std::string& name : split_words(text)) {
    std::optional<Operation> one;
    if (name != "pipe") {
      const auto known = std::find_if(k_operations.begin(), k_operations.end(),
                                      [&](Operation each) { return to_string(each) == name; });
      if (known == k_operations.end())
        return fail(Code::bad_usage,
                    fmt::format("'{}' is no operation; known are pipe (the transport's own messages), and for verbs "
                                "and ucx write, send and read",
                                name));
      one = *known;
    }
    if (std::find(operations.begin(), operations.end(), one) == operations.end()) operations.push_back(one);
  }
  if (operations.empty()) return fail(Code::bad_usage, "--operation names none; leave it out, or name pipe");
  return operations;
}

std::string_view of_memory(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::host: break;
    case MemoryKind::huge: return " of huge pages";
    case MemoryKind::cuda: return " of GPUs";
  }
  return {};
}

// What perftest lets one choose, and what of it concerns verbs alone.
Result<void> parse_choices(const P2pTexts& texts, P2pOptions& options) {
  const auto& transports = options.transports;
  const bool only_verbs = std::all_of(transports.begin(), transports.end(), [](const auto& t) { return t == "verbs"; });
  options.verbs = verbs_settings(texts.measuring.axes);
  if (texts.in_line >= 0) {
    if (!only_verbs)
      return fail(Code::bad_usage,
                  fmt::format("--inline is a choice of verbs alone; {} has none", fmt::join(transports, ", ")));
    options.verbs += fmt::format("{}inline={}", options.verbs.empty() ? "" : ",", texts.in_line);
  }
  GRADRAIL_ASSIGN(options.operations, parse_operations(texts.operations));
  const bool bare =
      std::any_of(options.operations.begin(), options.operations.end(), [](auto o) { return o.has_value(); });
  const auto only_pipes =
      std::find_if(transports.begin(), transports.end(), [](const auto& t) { return t != "verbs" && t != "ucx"; });
  if (bare && only_pipes != transports.end())
    return fail(Code::bad_usage, fmt::format("--operation {} is a choice of verbs and ucx; {} has pipes only",
                                             texts.operations, *only_pipes));
  if (bare && options.memory.kind != MemoryKind::host)
    return fail(Code::bad_usage, fmt::format("--memory {} is for pipes; a device's operations take ordinary memory of "
                                             "the host only",
                                             texts.measuring.axes.memory));
  if (bare && options.buffers == BufferKind::plain)
    return fail(Code::bad_usage, "--buffers plain is for pipes; a device's operations take registered memory only");
  return {};
}

Result<P2pOptions> parse_p2p(const P2pTexts& texts, int ranks) {
  const AxisTexts& axes = texts.measuring.axes;
  P2pOptions options;
  options.transports = split_words(axes.transports);
  for (const std::string& name : options.transports) GRADRAIL_TRY(known_transport(name));
  if (ranks < 2) return fail(Code::bad_usage, "point to point takes at least 2 ranks (-n 2)");
  GRADRAIL_ASSIGN(options.tests, parse_tests(texts.tests));
  options.matrix = texts.matrix;
  GRADRAIL_TRY(parse_pair(texts.pair, ranks, options));
  if (!texts.min_bytes.empty() || !texts.max_bytes.empty()) {
    const std::string smallest = texts.min_bytes.empty() ? "8" : texts.min_bytes;
    const std::string largest = texts.max_bytes.empty() ? smallest : texts.max_bytes;
    GRADRAIL_ASSIGN(options.sizes, parse_sizes(smallest, largest, texts.factor, texts.step_bytes));
  }
  const auto between = [](std::string_view option, double value, double least, double most) -> Result<void> {
    if (value >= least && value <= most) return {};
    return fail(Code::bad_usage, fmt::format("{} {} is not from {} to {}", option, value, least, most));
  };
  GRADRAIL_TRY(between("--queue-depth", texts.depth, 0, 1 << 20));
  GRADRAIL_TRY(between("--queue-pairs", texts.lanes, 1, k_most_lanes));
  GRADRAIL_TRY(between("--rounds", texts.rounds, 1, 10000));
  GRADRAIL_TRY(between("--iters", axes.iterations, 0, 1e6));
  GRADRAIL_TRY(between("--warmup_iters", axes.warmup, 1, 1e6));
  GRADRAIL_TRY(between("--time-per-point", axes.time_per_point, 1e-3, 600));
  GRADRAIL_TRY(between("--timeout", axes.timeout, 0.1, 86400));
  GRADRAIL_TRY(between("--connections", axes.connections, 1, 16));
  GRADRAIL_TRY(between("--check", axes.check, 0, 1));
  GRADRAIL_ASSIGN(options.memory, parse_memory(axes.memory));
  const bool of_host = options.memory.kind == MemoryKind::host;
  const std::string buffers = !texts.buffers.empty() ? texts.buffers : of_host ? "registered" : "plain";
  if (buffers != "plain" && buffers != "registered")
    return fail(Code::bad_usage, fmt::format("--buffers is plain or registered, not '{}'", buffers));
  if (!of_host && buffers == "registered")
    return fail(Code::bad_usage, fmt::format("--memory {} is the caller's own; --buffers registered, the transport's, "
                                             "are ordinary memory of the host",
                                             axes.memory));
  options.depth = texts.depth;
  options.lanes = texts.lanes;
  options.rounds = texts.rounds;
  options.iterations = axes.iterations;
  options.warmup = axes.warmup;
  options.time_per_point = Seconds(axes.time_per_point);
  options.timeout = Seconds(axes.timeout);
  options.check = axes.check != 0;
  options.buffers = buffers == "plain" ? BufferKind::plain : BufferKind::registered;
  options.connections = axes.connections;
  GRADRAIL_TRY(parse_choices(texts, options));
  return options;
}

// Rank 0's side: everything that people and files get to see.
class P2pReporter : public P2pListener {
 public:
  P2pReporter(const P2pOptions& options, const P2pTexts& texts, Run run, std::vector<int> cores)
      : options_(options), texts_(texts), run_(std::move(run)), cores_(std::move(cores)) {}

  Result<void> begin(std::span<const std::string> transports) override {
    if (!texts_.measuring.json.empty()) {
      GRADRAIL_ASSIGN(json_, RecordWriter::create(texts_.measuring.json));
      GRADRAIL_TRY(json_->write(run_));
    }
    if (!texts_.csv.empty()) {
      GRADRAIL_ASSIGN(csv_, OutputFile::create(texts_.csv));
      GRADRAIL_TRY(csv_->write(p2p_csv_header()));
    }
    if (!texts_.svg.empty()) {
      GRADRAIL_ASSIGN(svg_, OutputFile::create(texts_.svg));
    }
    GRADRAIL_TRY(give_way(texts_.outputs()));
    const Machine& m = run_.machine;
    std::string text =
        fmt::format("# gradrail {} {}, {} ranks on {} host{}: {} ({}), {} core{}\n", run_.build.version,
                    run_.build.commit, run_.job.ranks, run_.job.hosts, run_.job.hosts == 1 ? "" : "s", m.hostname,
                    m.cpu_model.empty() ? "unknown processor" : m.cpu_model, m.cores, m.cores == 1 ? "" : "s");
    text += fmt::format(
        "# {} buffers{}, every message from and to the same one; {} rounds, transports in turn; GB/s and "
        "Gb/s are decimal\n",
        to_string(options_.buffers), of_memory(options_.memory.kind), options_.rounds);
    for (const std::string& line : transports) text += fmt::format("# rank 0 uses {}\n", line);
    GRADRAIL_TRY(expectations(transports, text));
    return say(text);
  }

  Result<void> results(std::span<const P2pPoint> points) override {
    progress_.clear();
    std::string text;
    if (!points.empty() && points.front().test != last_test_ && !options_.matrix)
      text += p2p_header(points.front().test);
    if (!points.empty()) last_test_ = points.front().test;
    for (P2pPoint point : points) {
      if (point.from_host == point.to_host) expect(point, memory_gbs_, cache_bytes(run_.machine), rdma_);
      if (json_) GRADRAIL_TRY(json_->write(point));
      if (csv_) GRADRAIL_TRY(csv_->write(p2p_csv_row(point)));
      if (!options_.matrix) text += p2p_row(point);
      if (point.expected_share && !options_.matrix)
        text += fmt::format("# {:.0f} % of what {} carries at best\n", 100 * *point.expected_share,
                            point.transport == "shm" ? std::string("memory") : rdma_->name);
      wrong_ = wrong_ || point.wrong.value_or(0) > 0;
      points_.push_back(std::move(point));
    }
    if (options_.matrix) {
      for (HeatPanel& panel : heat_panels(points, run_.job.ranks)) {
        text += matrix_text(panel);
        panels_.push_back(std::move(panel));
      }
      text += outliers_text(points);
    }
    return say(text);
  }

  void next(double fraction_done, const std::string& what) override { progress_.update(fraction_done, what); }

  Result<void> finish() {
    progress_.clear();
    if (svg_) GRADRAIL_TRY(svg_->write(picture()));
    for (const Output& output : texts_.outputs())
      if (!output.path->empty() && *output.path != OutputFile::k_standard) fmt::print("# wrote {}\n", *output.path);
    GRADRAIL_TRY(say({}));
    if (wrong_) return fail(Code::malformed, "some data came wrong; nothing that was wrong was timed");
    return {};
  }

 private:
  // What the devices that rank 0 uses carry at best, as doctor has it, and memory, where messages outgrow the caches.
  Result<void> expectations(std::span<const std::string> transports, std::string& text) {
    for (const std::string& line : transports) {
      if (!line.starts_with("verbs: ")) continue;
      rdma_ = path_in_use(line, doctor::expected_paths(doctor::read_facts(Files())));
      if (rdma_) text += fmt::format("# {} carries {:.2f} GB/s at best: {}\n", rdma_->name, rdma_->gbs, rdma_->limit);
    }
    const auto caches = cache_bytes(run_.machine);
    const bool large =
        std::any_of(options_.sizes.begin(), options_.sizes.end(), [&](auto b) { return 4 * b > caches; });
    if (!large || caches == 0 || std::count(options_.transports.begin(), options_.transports.end(), "shm") == 0)
      return {};
    ProbeOptions wish;
    wish.cpus = cores_;
    GRADRAIL_ASSIGN(Probe probe, Probe::create(wish));
    memory_gbs_ = probe.phase().memory_gbs;
    text += fmt::format("# memory moves {:.1f} GB/s, bytes read and written together\n", memory_gbs_);
    return {};
  }

  [[nodiscard]] std::string picture() const {
    const std::string title = fmt::format("point to point, {} ranks", run_.job.ranks);
    const std::string subtitle =
        fmt::format("{}, {} cores; {}", run_.machine.cpu_model, run_.machine.cores, run_.started);
    if (options_.matrix) return heat_map_svg(panels_, title, subtitle);
    std::vector<Point> drawn;
    for (const P2pPoint& point : points_) {
      Point one;
      one.algorithm = fmt::format("{} {}", way_of(point), point.test);
      one.bytes = point.bytes;
      one.time_us = point.time_us;
      one.busbw_gbs = point.bandwidth_gbs;
      drawn.push_back(std::move(one));
    }
    ChartOptions chart;
    chart.title = title;
    chart.subtitle = subtitle;
    chart.time = "half the round trip, or time of one of many messages";
    chart.bandwidth = "bandwidth, GB/s (higher is better)";
    return chart_svg(drawn, chart);
  }

  const P2pOptions& options_;
  const P2pTexts& texts_;
  Run run_;
  std::vector<int> cores_;  // that this host's processes may use
  Progress progress_;
  std::optional<RecordWriter> json_;
  std::optional<OutputFile> csv_;
  std::optional<OutputFile> svg_;
  std::vector<P2pPoint> points_;
  std::vector<HeatPanel> panels_;
  std::string last_test_;
  std::optional<PathInUse> rdma_;
  double memory_gbs_ = 0;
  bool wrong_ = false;
};

Result<void> p2p(MeasuringRank& rank, const P2pTexts& texts) {
  GRADRAIL_ASSIGN(P2pOptions options, parse_p2p(texts, rank.bootstrap.ranks()));
  options.bind = rank.placement.bind;
  if (rank.bootstrap.rank() != 0) return run_p2p(rank.bootstrap, options, nullptr);
  P2pReporter reporter(options, texts, rank.run, rank.placement.cores);
  GRADRAIL_TRY(run_p2p(rank.bootstrap, options, &reporter));
  return reporter.finish();
}

void add_p2p_options(CLI::App& app, P2pTexts& t) {
  AxisTexts& axes = t.measuring.axes;
  const std::string what = "What to measure";
  add_ranks_option(app, axes, "2")->group(what);
  app.add_option("--transport", axes.transports, "Transports, separated by commas, which take turns")
      ->group(what)
      ->capture_default_str();
  app.add_option("--test", t.tests, "latency, bandwidth, bidirectional, message-rate, separated by commas, or all")
      ->group(what)
      ->capture_default_str();
  app.add_option("--pair", t.pair, "Which two ranks, from the first to the second")->group(what)->capture_default_str();
  app.add_flag("--matrix", t.matrix, "All pairs of ranks, one at a time; outliers are named")->group(what);
  app.add_option("-b,--minbytes", t.min_bytes, "Smallest message; K, M, G are powers of 1024; default: by test")
      ->group(what);
  app.add_option("-e,--maxbytes", t.max_bytes, "Largest message; default: the smallest")->group(what);
  app.add_option("-f,--stepfactor", t.factor, "Factor from one size to the next")->group(what)->capture_default_str();
  app.add_option("-i,--stepbytes", t.step_bytes, "Bytes from one size to the next (instead of -f)")->group(what);
  app.add_option("--queue-depth,--depth", t.depth,
                 "Messages outstanding on a lane; default: as many as the transport allows, 128 operations")
      ->group(what);
  app.add_option("--queue-pairs,--lanes", t.lanes, "Lanes between two ranks: pipes, or queue pairs; latency takes one")
      ->group(what)
      ->capture_default_str();
  app.add_option("--buffers", t.buffers,
                 "registered (the transport's own memory; the default with --memory host) or plain (the caller's)")
      ->group(what);
  app.add_option("--memory", axes.memory,
                 "host, huge (pages of 2 MiB that the system has reserved), or cuda[:DEVICE] (a GPU; without a number "
                 "the ranks of a host take its GPUs in turn), which goes the best way that there is: rows say which")
      ->group(what)
      ->capture_default_str();
  app.add_option("--inline", t.in_line, "verbs: messages up to so many bytes travel inside their descriptor")
      ->group(what);
  app.add_option("--operation", t.operations,
                 "pipe (the transport's own messages); verbs and ucx also: write, send, read of the device or of UCX, "
                 "as perftest and ucx_perftest measure them; several take turns")
      ->group(what)
      ->capture_default_str();
  const std::string how = "How to measure";
  app.add_option("--rounds", t.rounds, "Rounds, in each of which every transport has its turn")
      ->group(how)
      ->capture_default_str();
  app.add_option("--iters", axes.iterations,
                 "Round trips or messages in a round; default: as fit into --time-per-point")
      ->group(how);
  app.add_option("--time-per-point", axes.time_per_point, "Seconds for all rounds of a size, transport and pair")
      ->group(how)
      ->capture_default_str();
  app.add_option("-w,--warmup_iters", axes.warmup, "Messages before measuring")->group(how)->capture_default_str();
  app.add_option("-c,--check", axes.check, "Check data before measuring: 1, or 0 to skip")
      ->group(how)
      ->capture_default_str();
  app.add_option("-T,--timeout", axes.timeout, "Seconds after which a silent rank has failed")
      ->group(how)
      ->capture_default_str();
  app.add_option("--connections", axes.connections, "tcp: sockets a pipe")->group(how)->capture_default_str();
  app.add_option("--verbs", axes.verbs, "verbs: NAME=VALUE,... as in bench")->group(how);
  app.add_option("--connect", axes.connect, "verbs: how queue pairs connect, as in bench")
      ->group(how)
      ->type_name("exchange|cm");
  add_bind_and_json_options(app, t.measuring);
  const std::string where = "Where results go";
  app.add_option("--csv", t.csv, "One row a result; - for standard output")->group(where);
  app.add_option("--svg", t.svg, "A chart by size, or a heat map of all pairs; - for standard output")->group(where);
}

}  // namespace

Command add_p2p_command(CLI::App& parent, std::vector<std::string> argv) {
  auto texts = std::make_shared<P2pTexts>();
  texts->measuring.default_ranks = 2;
  CLI::App* app = parent.add_subcommand(
      "p2p", "Measures latency, bandwidth and message rate between two ranks or all pairs, transports side by side");
  add_p2p_options(*app, *texts);
  return {app, [texts, argv = std::move(argv)] {
            const auto before = [&](int ranks) -> Result<void> {
              GRADRAIL_TRY(parse_p2p(*texts, ranks));
              return can_write(texts->outputs());
            };
            return measure_as_job(texts->measuring, argv, before,
                                  [&](MeasuringRank& rank) { return p2p(rank, *texts); });
          }};
}

}  // namespace gradrail
