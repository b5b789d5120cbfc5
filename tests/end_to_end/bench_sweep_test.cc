// `gradrail bench` from the command line to its table and its files: what is measured is all there, agrees with itself,
// and can be read by what reads such files.
#include <cmath>
#include <map>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

const Words k_allreduces = {"ring",     "tree",     "recursive_doubling", "halving_doubling",
                            "one_shot", "two_shot", "hierarchical"};

double bus_factor(const std::string& collective, double n) {
  if (collective == "allreduce") return 2 * (n - 1) / n;
  if (collective == "reduce_scatter" || collective == "all_gather" || collective == "all_to_all" ||
      collective == "gather" || collective == "scatter")
    return (n - 1) / n;
  return 1;
}

double median_of(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto half = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

// Figures keep seven significant digits.
void expect_close(double a, double b, const std::string& what) {
  EXPECT_NEAR(a, b, 2e-6 * std::max(std::abs(a), std::abs(b))) << what;
}

// A measured point agrees with itself.
void expect_sound(const json& point) {
  SCOPED_TRACE(point.dump().substr(0, 300));
  for (const char* key : {"library", "collective", "algorithm", "transport", "topology",  "ranks",     "bytes",
                          "count",   "type",       "op",        "in_place",  "buffers",   "path",      "lanes",
                          "chunks",  "wrong",      "phase",     "time_us",   "algbw_gbs", "busbw_gbs", "samples_us"})
    ASSERT_TRUE(point.contains(key)) << key;
  EXPECT_EQ(point["library"], "gradrail");
  EXPECT_EQ(point["wrong"], 0);
  const auto samples = point["samples_us"].get<std::vector<double>>();
  const json& time = point["time_us"];
  for (const char* key : {"median", "ci", "p95", "p99", "min", "cv", "n"}) ASSERT_TRUE(time.contains(key)) << key;
  ASSERT_FALSE(samples.empty());
  EXPECT_EQ(time["n"], samples.size());
  const double median = time["median"];
  expect_close(median, median_of(samples), "median");
  expect_close(time["min"], *std::min_element(samples.begin(), samples.end()), "min");
  EXPECT_LE(time["ci"][0], median);
  EXPECT_GE(time["ci"][1], median);
  EXPECT_GE(time["p99"], time["p95"]);
  EXPECT_GE(time["p95"], median);
  const double bytes = point["bytes"];
  expect_close(point["algbw_gbs"], bytes / median * 1e-3, "algbw");
  expect_close(point["busbw_gbs"], point["algbw_gbs"].get<double>() * bus_factor(point["collective"], point["ranks"]),
               "busbw");
}

// The rows of the table, without its comments.
std::vector<std::string> rows_of(const std::string& out) {
  std::vector<std::string> rows;
  for (const auto& line : lines_of(out))
    if (!line.empty() && line[0] != '#') rows.push_back(line);
  return rows;
}

// Enough of XML for a chart: every element that is opened is closed, in order.
void expect_xml(const std::string& text) {
  std::vector<std::string> open;
  for (std::size_t at = text.find('<'); at != text.npos; at = text.find('<', at + 1)) {
    const auto end = text.find('>', at);
    ASSERT_NE(end, text.npos) << "an element without an end";
    const auto tag = text.substr(at + 1, end - at - 1);
    ASSERT_FALSE(tag.empty());
    if (tag[0] == '?' || tag[0] == '!' || tag.back() == '/') continue;
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty()) << tag;
      EXPECT_EQ(open.back(), tag.substr(1));
      open.pop_back();
    } else {
      open.push_back(tag.substr(0, tag.find_first_of(" \n\t")));
    }
  }
  EXPECT_THAT(open, IsEmpty());
}

class BenchSweep : public CommandTest {};

TEST_F(BenchSweep, TellsTheSameInItsTableAndInEveryFile) {
  const auto ran = gradrail(words("bench -n 4 --transport shm,tcp -b 8 -e 64K -f 8192 --iters 9 --json") +
                            Words{folder_ / "all.json", "--csv", folder_ / "all.csv", "--svg", folder_ / "all.svg",
                                  "--trace", folder_ / "all.trace"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.err, "") << "no progress line where nobody watches";
  EXPECT_THAT(ran.out, Not(HasSubstr("\033"))) << "no colours where nobody watches";

  // The table: each of six planners at two sizes over two transports.
  const auto rows = rows_of(ran.out);
  EXPECT_THAT(rows, SizeIs(6u * 2 * 2));
  for (const char* word : {"algbw", "busbw", "(GB/s)", "(us)", "#wrong", "95% interval", "p99"})
    EXPECT_THAT(ran.out, HasSubstr(word));
  EXPECT_THAT(ran.out, HasSubstr("\n# Out of bounds values : 0 OK\n"));
  EXPECT_THAT(ran.out, AllOf(HasSubstr("4 ranks as 1x4, shm"), HasSubstr("4 ranks as 1x4, tcp")));
  for (const char* name : {"all.json", "all.csv", "all.svg", "all.trace"})
    EXPECT_THAT(ran.out, HasSubstr("# wrote " + (folder_ / name)));

  // The records.
  const auto records = records_of(folder_ / "all.json");
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records[0]["kind"], "run");
  EXPECT_EQ(records[0]["schema"], 1);
  EXPECT_EQ(records[0]["args"][1], "bench");
  EXPECT_TRUE(records[0]["machine"].is_object() && records[0]["build"].is_object());
  EXPECT_THAT(of_kind(records, "run"), SizeIs(1));
  EXPECT_FALSE(of_kind(records, "limits").empty());
  const auto points = of_kind(records, "point");
  EXPECT_THAT(points, SizeIs(rows.size()));
  std::map<std::string, std::set<std::string>> algorithms;  // by transport and size
  for (const json& point : points) {
    expect_sound(point);
    EXPECT_EQ(point["time_us"]["n"], 9);
    EXPECT_EQ(point["topology"], "1x4");
    EXPECT_EQ(point["path"] == "socket", point["transport"] == "tcp");
    algorithms[fmt::format("{} {}", point["transport"].get<std::string>(), point["bytes"].get<int>())].insert(
        point["algorithm"].get<std::string>());
  }
  EXPECT_THAT(algorithms, SizeIs(4));
  for (const auto& [where, names] : algorithms)
    EXPECT_THAT(names,
                UnorderedElementsAre("ring", "tree", "recursive_doubling", "halving_doubling", "one_shot", "two_shot"))
        << where;

  // One choice for each size and transport, of something that was measured; its row is the marked one.
  const auto choices = of_kind(records, "choice");
  EXPECT_THAT(choices, SizeIs(4));
  for (const json& choice : choices) {
    EXPECT_THAT(k_allreduces, Contains(choice["algorithm"].get<std::string>()));
    EXPECT_GT(choice["margin"], 0);
    EXPECT_TRUE(choice["confident"].is_boolean());
    const auto marked = std::count_if(rows.begin(), rows.end(), [&](const std::string& row) {
      const auto cells = words(row);
      return cells[0] == std::to_string(choice["bytes"].get<int>()) && (cells[5] == "*" || cells[5] == "~") &&
             cells[6] == choice["algorithm"] && cells[7] == choice["transport"];
    });
    EXPECT_EQ(marked, 1) << choice.dump();
  }

  // The rows of the other file.
  const auto csv = lines_of(text_of(folder_ / "all.csv"));
  ASSERT_THAT(csv, SizeIs(points.size() + 1));
  EXPECT_THAT(csv[0], StartsWith("library,collective,algorithm,transport,topology,ranks,bytes,"));
  for (std::size_t i = 0; i < points.size(); ++i)
    EXPECT_THAT(csv[i + 1],
                StartsWith(fmt::format("gradrail,allreduce,{},{},1x4,4,{},", points[i]["algorithm"].get<std::string>(),
                                       points[i]["transport"].get<std::string>(), points[i]["bytes"].get<int>())));

  const auto svg = text_of(folder_ / "all.svg");
  EXPECT_THAT(svg, HasSubstr("<svg"));
  expect_xml(svg);
}

TEST_F(BenchSweep, TracesWhatThePlanSays) {
  const auto ran = gradrail(words("bench -n 4 -a ring,halving_doubling --in-place -b 64K -e 64K --iters 1 --trace") +
                            Words{folder_ / "steps.trace"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto text = text_of(folder_ / "steps.trace");
  EXPECT_THAT(text, ::testing::EndsWith("]\n"));
  const auto events = json::parse(text, nullptr, false);
  ASSERT_TRUE(events.is_array());
  std::map<std::string, std::pair<double, double>> points;  // name -> begin and end
  for (const json& event : events)
    if (event["ph"] == "X" && event["cat"] == "point")
      points[words(event["name"])[1]] = {event["ts"], event["ts"].get<double>() + event["dur"].get<double>()};
  ASSERT_THAT(points, SizeIs(2));
  for (const auto& [algorithm, when] : points) {
    const auto planned = gradrail(words("plan " + algorithm + " -n 4 --in-place --json -"));
    ASSERT_EQ(planned.code, 0) << planned.err;
    const auto plan = json::parse(planned.out, nullptr, false);
    for (std::size_t rank = 0; rank < 4; ++rank) {
      SCOPED_TRACE(fmt::format("{} rank {}", algorithm, rank));
      const json& steps = plan["programs"][rank]["steps"];
      // Sends may be fused with the receive before them; receives are all there, each once.
      std::multiset<int> wanted, seen;
      for (std::size_t i = 0; i < steps.size(); ++i)
        if (steps[i]["op"] != "send") wanted.insert(static_cast<int>(i));
      for (const json& event : events) {
        if (event["ph"] != "X" || event["cat"] != "step" || event["args"]["rank"] != rank) continue;
        if (event["ts"] < when.first || event["ts"] > when.second) continue;
        const json& step = steps[event["args"]["step"].get<std::size_t>()];
        EXPECT_EQ(event["args"]["op"], step["op"]);
        EXPECT_EQ(event["args"]["peer"], step["peer"]);
        EXPECT_GE(event["dur"], 0);
        if (step["op"] != "send") seen.insert(event["args"]["step"].get<int>());
      }
      EXPECT_EQ(seen, wanted);
    }
  }
}

TEST_F(BenchSweep, RecordsWhetherRanksWereBound) {
  const std::string path = folder_ / "results.json";
  const auto sweep = [&](const std::string& options) {
    EXPECT_EQ(gradrail(words(fmt::format("bench -a ring -b 8 -e 8 --iters 2 --json {} {}", path, options))).code, 0);
    return records_of(path);
  };
  auto records = sweep("-n 1");
  ASSERT_FALSE(of_kind(records, "point").empty());
  EXPECT_EQ(of_kind(records, "point")[0]["bind"], "core");
  EXPECT_EQ(records.at(0)["job"]["cpus"].size(), 1u);
  records = sweep("-n 1 --bind none");
  ASSERT_FALSE(of_kind(records, "point").empty());
  EXPECT_EQ(records.at(0)["job"]["cpus"].size(), 0u);
  if (records.at(0)["machine"]["cores"] > 1) {
    EXPECT_EQ(of_kind(records, "point")[0]["bind"], "none");
  }
}

TEST_F(BenchSweep, GivesRecordsToAPipeAndTheTableToPeople) {
  const auto ran = gradrail(words("bench -n 2 -a ring -b 64 -e 128 -f 2 --iters 2 --json -"), Seconds(60));
  ASSERT_EQ(ran.code, 0) << ran.err;
  std::map<std::string, int> kinds;
  for (const auto& line : lines_of(ran.out)) ++kinds[json::parse(line)["kind"].get<std::string>()];
  EXPECT_EQ(kinds["run"], 1);
  EXPECT_EQ(kinds["point"], 2);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("busbw"), Not(HasSubstr("wrote"))));
}

TEST_F(BenchSweep, HasHostsOnOneMachine) {
  const auto ran =
      gradrail(words("bench -n 4 --topology 2x2,1x4 --inner shm --outer tcp -b 4K -e 4K --iters 3 --json") +
               Words{folder_ / "hosts.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  std::map<std::string, std::set<std::string>> algorithms;
  for (const json& point : of_kind(records_of(folder_ / "hosts.json"), "point")) {
    expect_sound(point);
    EXPECT_EQ(point["transport"], point["topology"] == "2x2" ? "shm+tcp" : "shm");
    algorithms[point["topology"]].insert(point["algorithm"].get<std::string>());
  }
  EXPECT_THAT(algorithms["2x2"], Contains("hierarchical"));
  EXPECT_THAT(algorithms["1x4"], Not(Contains("hierarchical"))) << "one host has no levels";
  const auto named =
      gradrail(words("bench -n 4 --topology 2x2 --transport shm+tcp -a hierarchical:ring+tree -e 8 "
                     "--iters 1"));
  EXPECT_EQ(named.code, 0) << named.err;
  EXPECT_THAT(named.out, HasSubstr(" hierarchical:ring+tree shm+tcp "));
}

TEST_F(BenchSweep, AutoSaysWhatItChose) {
  const auto ran = gradrail(words("bench -n 3 --algorithm auto -b 64 -e 64K -f 1024 --iters 3 --json") +
                            Words{folder_ / "auto.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto points = of_kind(records_of(folder_ / "auto.json"), "point");
  ASSERT_THAT(points, SizeIs(2));
  const auto rows = rows_of(ran.out);
  ASSERT_THAT(rows, SizeIs(2));
  for (std::size_t i = 0; i < 2; ++i) {
    expect_sound(points[i]);
    EXPECT_EQ(points[i]["requested"], "auto");
    EXPECT_THAT(k_allreduces, Contains(points[i]["algorithm"].get<std::string>()));
    EXPECT_THAT(rows[i], HasSubstr(" auto:" + points[i]["algorithm"].get<std::string>() + " "));
  }
}

// Every collective, by every algorithm that it has, with whatever else can be said on the command line.
struct Way {
  std::string name;
  std::string options;
  std::string key;  // of every point, and what it must say
  json value;
};
class BenchWays : public CommandTest, public ::testing::WithParamInterface<Way> {};

TEST_P(BenchWays, MeasuresEveryCollective) {
  const Way& way = GetParam();
  const auto ran = gradrail(words("bench --collective all --iters 2 -w 1 " + way.options +
                                  (way.name == "flushed" ? "" : " -b 40") + " -e 4K -f 100 --json") +
                            Words{folder_ / "all.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("# Out of bounds values : 0 OK"));
  std::set<std::string> collectives;
  for (const json& point : of_kind(records_of(folder_ / "all.json"), "point")) {
    EXPECT_FALSE(point.contains("error")) << point.dump();
    expect_sound(point);
    if (way.key != "root" || point["root"] != -1) {
      EXPECT_EQ(point[way.key], way.value) << point.dump();
    }
    collectives.insert(point["collective"].get<std::string>());
  }
  EXPECT_THAT(collectives, UnorderedElementsAre("allreduce", "reduce_scatter", "all_gather", "broadcast", "reduce",
                                                "all_to_all", "gather", "scatter", "send_recv"));
}

INSTANTIATE_TEST_SUITE_P(
    Over, BenchWays,
    ::testing::Values(Way{"one_rank", "-n 1", "ranks", 1}, Way{"three_ranks", "-n 3 -d half -o max", "type", "f16"},
                      Way{"five_ranks_with_a_root", "-n 5 -r 3 --transport tcp --connections 2", "root", 3},
                      Way{"in_place", "-n 4 --in-place -d double -o avg", "in_place", true},
                      Way{"registered", "-n 2 --buffers registered --transport shm,tcp", "buffers", "registered"},
                      Way{"rotating", "-n 2 --cache rotate --in-place", "cache", "rotate"},
                      Way{"flushed", "-n 2 --cache flush -b 4K", "cache", "flush"},
                      Way{"lanes_and_pieces", "-n 3 --lanes 2 --pieces 3 -d bfloat16", "lanes", 2},
                      Way{"hosts", "-n 4 --topology 2x2 --inner shm --outer tcp", "topology", "2x2"}),
    [](const auto& instance) { return instance.param.name; });

TEST_F(BenchSweep, TakesTypesOperationsAndSteps) {
  const auto ran =
      gradrail(words("bench -n 2 -a ring -d all -o all -b 64 -e 64 --iters 1 --json") + Words{folder_ / "types.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  std::set<std::pair<std::string, std::string>> kinds;
  for (const json& point : of_kind(records_of(folder_ / "types.json"), "point")) {
    expect_sound(point);
    kinds.emplace(point["type"], point["op"]);
  }
  EXPECT_THAT(kinds, SizeIs(10u * 5));

  const auto stepped =
      gradrail(words("bench -n 2 -a ring -i 1000 -b 1000 -e 3500 --iters 1 --json") + Words{folder_ / "steps.json"});
  ASSERT_EQ(stepped.code, 0) << stepped.err;
  std::vector<int> sizes;
  for (const json& point : of_kind(records_of(folder_ / "steps.json"), "point")) sizes.push_back(point["bytes"]);
  EXPECT_THAT(sizes, ElementsAre(1000, 2000, 3000));

  const auto unchecked = gradrail(words("bench -n 2 -a ring -b 8 -e 8 -c 0 --iters 1"));
  EXPECT_EQ(unchecked.code, 0);
  EXPECT_THAT(unchecked.out, HasSubstr("not checked"));
}

TEST_F(BenchSweep, RunsAsManyRanksAsAMachineBears) {
  const auto ran = gradrail(words("bench -n 24 -a ring,tree -b 1K -e 1K --iters 1 -w 1"));
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("# Out of bounds values : 0 OK"));
}

}  // namespace
}  // namespace gradrail::test
