#include "bench/command/plan.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "collectives/plan/planner.h"
#include "collectives/schedule/render.h"
#include "collectives/schedule/verify.h"

namespace gradrail {

namespace {

constexpr int k_default_ranks = 4;
constexpr int k_most_ranks = 65536;

struct Options {
  std::string algorithm;
  std::string collective = "allreduce";
  std::optional<int> ranks;
  std::string topology;
  int lanes = 1;
  int pieces = 1;
  int root = 0;
  bool in_place = false;
  std::optional<int> rank;
  std::string json;
  std::string svg;
  bool verify = false;
};

Result<int> positive(std::string_view text, std::string_view whole) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > k_most_ranks)
    return fail(Code::bad_usage, fmt::format("'{}' is not a topology; write hosts x ranks a host, such as 2x4", whole));
  return value;
}

Result<void> in_range(std::string_view option, int value, int least, int most) {
  if (value >= least && value <= most) return {};
  return fail(Code::bad_usage, fmt::format("{} must be from {} to {}, not {}", option, least, most, value));
}

// Everything of the shape but what the algorithm's own name says.
Result<Shape> shape_of(const Options& options) {
  Shape shape;
  const auto collective = parse_collective(options.collective);
  if (!collective) {
    std::string known;
    for (const Collective c : k_collectives) known += fmt::format("{}{}", known.empty() ? "" : ", ", to_string(c));
    return fail(Code::bad_usage, fmt::format("there is no collective '{}'; known are {}", options.collective, known));
  }
  shape.collective = *collective;
  if (options.topology.empty()) {
    shape.ranks = options.ranks.value_or(k_default_ranks);
    GRADRAIL_TRY(in_range("-n", shape.ranks, 1, k_most_ranks));
    shape.ranks_per_host = shape.ranks;
  } else {
    const std::string_view text = options.topology;
    const auto x = text.find('x');
    GRADRAIL_ASSIGN(const int hosts, positive(text.substr(0, x), text));
    GRADRAIL_ASSIGN(shape.ranks_per_host, positive(x == text.npos ? "" : text.substr(x + 1), text));
    if (hosts > k_most_ranks / shape.ranks_per_host)
      return fail(Code::bad_usage, fmt::format("topology {} has more than {} ranks", text, k_most_ranks));
    shape.ranks = hosts * shape.ranks_per_host;
    if (options.ranks && *options.ranks != shape.ranks)
      return fail(Code::bad_usage, fmt::format("topology {} has {} ranks, but -n says {}; leave one of them out", text,
                                               shape.ranks, *options.ranks));
  }
  GRADRAIL_TRY(in_range("--lanes", options.lanes, 1, 64));
  GRADRAIL_TRY(in_range("--pieces", options.pieces, 1, 1024));
  GRADRAIL_TRY(in_range("--root", options.root, 0, shape.ranks - 1));
  shape.lanes = options.lanes;
  shape.pieces = options.pieces;
  shape.root = options.root;
  shape.in_place = options.in_place;
  return shape;
}

Result<void> write(const std::string& path, const std::string& text) {
  const bool standard = path == "-";
  std::FILE* const file = standard ? stdout : std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    auto error = fail_errno(fmt::format("cannot write {}", path), errno);
    error.value().code = Code::bad_usage;
    return error;
  }
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
  const int sys_errno = errno;
  if (!standard) std::fclose(file);
  if (!written) return fail_errno(fmt::format("writing {}", standard ? "standard output" : path), sys_errno);
  if (!standard) fmt::print(stderr, "wrote {}\n", path);
  return {};
}

Result<void> list_algorithms(Collective collective) {
  std::string text = fmt::format("algorithms for {}:\n", to_string(collective));
  for (const Planner* planner : planners())
    if (planner->collective == collective) text += fmt::format("  {:<24} {}\n", planner->name, planner->summary);
  text += "\nnext: gradrail plan ALGORITHM -n 4 --collective " + std::string(to_string(collective)) + "\n";
  return write("-", text);
}

Result<void> prove(const Schedule& schedule) {
  for (const int credits : {0, 1, 4}) GRADRAIL_TRY(verify(schedule, {.credits = credits}));
  return {};
}

Result<void> run(const Options& options) {
  GRADRAIL_ASSIGN(Shape shape, shape_of(options));
  if (options.algorithm.empty()) return list_algorithms(shape.collective);
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(options.algorithm, shape));

  Schedule schedule;
  if (options.rank) {
    if (!options.json.empty() || !options.svg.empty() || options.verify)
      return fail(Code::bad_usage, "--rank prints the table of one rank; --json, --svg and --verify need all ranks");
    GRADRAIL_TRY(in_range("--rank", *options.rank, 0, shape.ranks - 1));
    schedule.shape = shape;
    GRADRAIL_ASSIGN(Program program, plan(*planner, shape, *options.rank));
    schedule.programs.push_back(std::move(program));
    return write("-", fmt::format("{}: {}", options.algorithm, to_text(schedule)));
  }
  GRADRAIL_ASSIGN(schedule, plan_all(*planner, shape));

  const bool table = options.json.empty() && options.svg.empty();
  if (table) GRADRAIL_TRY(write("-", fmt::format("{}: {}", options.algorithm, to_text(schedule))));
  // A drawing follows the plan's order in time, which only a right plan has.
  if (options.verify || !options.svg.empty()) {
    auto proved = prove(schedule);
    if (!proved) return tl::unexpected(std::move(proved.error()).in("the plan is wrong"));
  }
  if (!options.json.empty()) GRADRAIL_TRY(write(options.json, to_json(schedule)));
  if (!options.svg.empty()) GRADRAIL_TRY(write(options.svg, to_svg(schedule, options.algorithm)));
  if (options.verify) {
    const std::string verdict = fmt::format(
        "verified: every output is as {} promises, no two steps race, and it ends with 0, 1 and 4 credits\n",
        to_string(shape.collective));
    // Standard output may be the JSON document itself.
    if (table) return write("-", "\n" + verdict);
    fmt::print(stderr, "{}", verdict);
  }
  return {};
}

}  // namespace

Command add_plan_command(CLI::App& parent) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("plan", "Print, verify, export or draw the plan of an algorithm");
  app->add_option("algorithm", options->algorithm,
                  "ring, tree, hierarchical:ring+tree, ...; without it, the algorithms are listed");
  app->add_option("-n,--ranks", options->ranks, "Ranks (default: 4)");
  app->add_option("--collective", options->collective, "Collective")->capture_default_str();
  app->add_option("--topology", options->topology, "HxR: H hosts of R ranks, instead of -n ranks on one host");
  app->add_option("--lanes", options->lanes, "Independent pipes that the data is divided over")->capture_default_str();
  app->add_option("--pieces", options->pieces, "Parts that a lane's block is pipelined in")->capture_default_str();
  app->add_option("--root", options->root, "Root, for collectives that have one")->capture_default_str();
  app->add_flag("--in-place", options->in_place, "Input and output are one buffer");
  app->add_option("--rank", options->rank, "Print this rank's steps only, without planning the others'");
  app->add_option("--json", options->json, "Write the plan as JSON to FILE, - for standard output")->type_name("FILE");
  app->add_option("--svg", options->svg, "Draw the plan to FILE, - for standard output")->type_name("FILE");
  app->add_flag("--verify", options->verify, "Prove the plan right");
  return {app, [options] {
            auto done = run(*options);
            return done ? 0 : report(done.error());
          }};
}

}  // namespace gradrail
