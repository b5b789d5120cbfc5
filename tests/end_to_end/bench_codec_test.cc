// `gradrail bench --codec`: codecs beside none in one table and one file, with what they cost, what they send, and how
// far off they are; and `gradrail tune --error-budget`, which chooses among them.
#include <cmath>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class BenchCodec : public CommandTest {};

TEST_F(BenchCodec, PutsThemBesideNoneWithWhatTheyCostAndDo) {
  const auto ran =
      gradrail(words("bench -n 3 --transport shm,tcp -a two_shot,ring --codec none,bf16,int8,powersgd:4+ef "
                     "-b 1K -e 256K -f 256 --iters 8 --json") +
               Words{folder_ / "out.json", "--csv", folder_ / "out.csv", "--svg", folder_ / "out.svg"});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  EXPECT_THAT(ran.out,
              AllOf(HasSubstr(" codec "), HasSubstr("pays below"), HasSubstr("L2 error"), HasSubstr("decode")));
  EXPECT_THAT(ran.out, HasSubstr("# Codecs: allreduce of 256 KiB, 3 ranks as 1x3, tcp\n"));
  EXPECT_THAT(ran.out, HasSubstr("\n# Out of bounds values : 0 OK"));
  EXPECT_THAT(text_of(folder_ / "out.csv"), HasSubstr("break_even_gbs"));

  const auto points = of_kind(records_of(folder_ / "out.json"), "point");
  ASSERT_THAT(points, SizeIs(2u * 4 * 2 * 2));
  std::map<std::string, std::int64_t> sent;  // two_shot over shm, 256 KiB
  for (const json& point : points) {
    SCOPED_TRACE(point.dump().substr(0, 400));
    for (const char* key : {"codec", "wire_bytes", "wire_ratio", "rel_l2_error", "max_error"})
      ASSERT_TRUE(point.contains(key)) << key;
    const std::string codec = point["codec"];
    const double error = point["rel_l2_error"];
    EXPECT_EQ(point["wrong"], 0);
    if (codec == "none") {
      EXPECT_LT(error, 1e-6);
      EXPECT_FALSE(point.contains("encode_us"));
    } else {
      for (const char* key : {"codec_where", "encode_us", "wire_us", "decode_us", "break_even_gbs"})
        ASSERT_TRUE(point.contains(key)) << key;
      const double all =
          point["encode_us"].get<double>() + point["wire_us"].get<double>() + point["decode_us"].get<double>();
      EXPECT_NEAR(all, point["time_us"]["median"].get<double>(), 1e-5 * all) << "the time is split";
    }
    const double most = codec == "bf16" ? 0.004 : codec == "int8" ? 0.02 : 1.5;
    EXPECT_LT(error, most);
    if (point["algorithm"] == "two_shot" && point["transport"] == "shm" && point["bytes"] == 256 << 10)
      sent[codec] = point["wire_bytes"];
  }
  EXPECT_NEAR(static_cast<double>(sent["none"]) / static_cast<double>(sent["int8"]), 3.93, 0.05);
  EXPECT_NEAR(static_cast<double>(sent["none"]) / static_cast<double>(sent["bf16"]), 2, 0.01);
  EXPECT_NEAR(static_cast<double>(sent["none"]), 256 * 1024 * 2 * 2 / 3.0, 64) << "least bytes, by the plan";
}

TEST_F(BenchCodec, SparseDataSaysWhichExchangeItTook) {
  const auto ran = gradrail(words("bench -n 2 -a sparse,gather --codec topk:0.01 -b 64K -e 64K --iters 8 --json") +
                            Words{folder_ / "out.json"});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  EXPECT_THAT(ran.out, HasSubstr(" sparse:gather "));
  const auto points = of_kind(records_of(folder_ / "out.json"), "point");
  ASSERT_THAT(points, SizeIs(2));
  EXPECT_EQ(points[0]["requested"], "sparse");
  EXPECT_EQ(points[0]["algorithm"], "gather");
  EXPECT_FALSE(points[1].contains("requested"));
  EXPECT_LT(points[0]["wire_bytes"].get<int>(), 2000) << "164 pairs, and what goes before them";
}

// Slices of a rank, by what was done: how many, how many bytes, in which phases, with whom.
struct Done {
  int times = 0;
  std::int64_t bytes = 0;
  std::set<int> phases, peers;
};
std::map<std::string, Done> done_by(const json& events, int rank) {
  std::map<std::string, Done> all;
  for (const json& event : events) {
    if (event["ph"] != "X" || event["cat"] != "step" || event["args"]["rank"] != rank) continue;
    Done& done = all[event["args"]["op"]];
    ++done.times;
    done.bytes += event["args"]["bytes"].get<std::int64_t>();
    if (event["args"].contains("phase")) done.phases.insert(event["args"]["phase"].get<int>());
    if (event["args"].contains("peer")) done.peers.insert(event["args"]["peer"].get<int>());
  }
  return all;
}

TEST_F(BenchCodec, TracesEncodedSteps) {
  const std::string trace = folder_ / "coded.trace", records = folder_ / "out.json";
  const auto ran = gradrail(words("bench -n 2 -a two_shot --codec int8 -b 1M -e 1M --iters 8 --json") +
                            Words{records, "--trace", trace});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  const auto events = json::parse(text_of(trace), nullptr, false);
  ASSERT_TRUE(events.is_array());
  const auto points = of_kind(records_of(records), "point");
  ASSERT_THAT(points, SizeIs(1));
  for (int rank = 0; rank < 2; ++rank) {
    auto all = done_by(events, rank);
    for (const char* op : {"encode", "send", "decode"}) EXPECT_GE(all[op].times, 2) << op << " of rank " << rank;
    EXPECT_GE(done_by(events, 0)["await"].times + done_by(events, 1)["await"].times, 1);
    EXPECT_EQ(all["send"].bytes, points[0]["wire_bytes"]) << "all that was sent";
    EXPECT_EQ(all["send"].peers, std::set<int>{1 - rank});
  }
}

TEST_F(BenchCodec, TracesPhasesOfExchanges) {
  const std::string trace = folder_ / "sparse.trace";
  const auto ran =
      gradrail(words("bench -n 3 -a split --codec topk:0.01 -b 1M -e 1M --iters 8 --trace") + Words{trace});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  const auto events = json::parse(text_of(trace), nullptr, false);
  for (int rank = 0; rank < 3; ++rank) {
    auto all = done_by(events, rank);
    EXPECT_EQ(all["encode"].times, 1);
    EXPECT_EQ(all["decode"].times, 3) << "the sums of every rank";
    // Parts to both others, and sums to both.
    EXPECT_EQ(all["send"].times, 4);
    EXPECT_EQ(all["send"].phases, (std::set<int>{0, 1}));
    EXPECT_EQ(all["await"].times, 4);
    EXPECT_EQ(all["await"].phases, (std::set<int>{0, 1}));
    EXPECT_EQ(all["await"].peers, all["send"].peers);
  }
}

TEST_F(BenchCodec, TracesBothRoundsOfPowerSgd) {
  const std::string trace = folder_ / "rounds.trace";
  const auto ran =
      gradrail(words("bench -n 2 -a rounds --codec powersgd:4 -b 1M -e 1M --iters 8 --trace") + Words{trace});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  auto all = done_by(json::parse(text_of(trace), nullptr, false), 0);
  EXPECT_EQ(all["encode"].phases, (std::set<int>{0, 1}));
  EXPECT_EQ(all["decode"].times, 1);
  EXPECT_GE(all["send"].times + all["recv_reduce"].times, 2) << "the sums' own plans";
}

TEST_F(BenchCodec, EncodesBetweenHostsOnlyWhereAskedTo) {
  const auto ran = gradrail(words("bench -n 4 --inner shm --outer tcp --topology 2x2 -a hierarchical --codec none,int8 "
                                  "--codec-where between-hosts -b 256K -e 256K --iters 8 --in-place --json") +
                            Words{folder_ / "out.json"});
  ASSERT_EQ(ran.code, 0) << ran.err << ran.out;
  const auto points = of_kind(records_of(folder_ / "out.json"), "point");
  ASSERT_THAT(points, SizeIs(2));
  EXPECT_EQ(points[1]["codec_where"], "between-hosts");
  // Of one and a half times the data that a rank sends, half of it crosses hosts.
  EXPECT_NEAR(points[1]["wire_ratio"].get<double>(), 1.5 / (1 + 0.5 / 3.93), 0.01);

  const auto alone = gradrail(words("bench -n 2 -a auto --codec int8 --codec-where between-hosts -b 4K -e 4K"));
  EXPECT_EQ(alone.code, 1);
  EXPECT_THAT(alone.err, HasSubstr("all ranks are on one"));
}

TEST_F(BenchCodec, LeavesOutWhatCodecsAreNotFor) {
  const auto ran = gradrail(words("bench -n 2 -a all --collective allreduce,broadcast -d float,half --codec none,int8 "
                                  "-b 4K -e 4K --iters 6 --json") +
                            Words{folder_ / "out.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  for (const json& point : of_kind(records_of(folder_ / "out.json"), "point")) {
    if (point.value("codec", "none") == "none") continue;
    EXPECT_EQ(point["collective"], "allreduce");
    EXPECT_EQ(point["type"], "f32");
    EXPECT_FALSE(point.contains("error")) << point["error"];
  }
}

TEST_F(BenchCodec, IsChosenByAnErrorBudgetWhereItPays) {
  const auto ran = gradrail(words("tune -n 2 --transport shm -b 16K -e 64K --budget 3 --error-budget 1e-2 --codec "
                                  "int8,int4 --table") +
                                Words{folder_ / "table.json", "--json", folder_ / "out.json"},
                            Seconds(100));
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("# Codecs within an error of 0.01\n"));
  std::set<std::string> measured;
  for (const json& point : of_kind(records_of(folder_ / "out.json"), "point"))
    measured.insert(point.value("codec", ""));
  EXPECT_TRUE(measured.contains("int8"));
  EXPECT_FALSE(measured.contains("int4")) << "it is off by more";

  const auto without = gradrail(words("tune -n 2 --codec int8 --table") + Words{folder_ / "table.json"});
  EXPECT_EQ(without.code, 2);
  EXPECT_THAT(without.err, HasSubstr("--error-budget"));
  const auto beyond = gradrail(words("tune -n 2 --error-budget 2 --table") + Words{folder_ / "table.json"});
  EXPECT_EQ(beyond.code, 2);
  EXPECT_THAT(beyond.err, HasSubstr("--error-budget is 2"));
}

}  // namespace
}  // namespace gradrail::test
