// `gradrail p2p` as a person types it: two ranks, all pairs of three, files, mistakes, and a rank that dies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class P2pCommand : public CommandTest {
 protected:
  static void expect_refused(const std::string& options, const std::string& says) {
    const auto run = gradrail(words("p2p " + options));
    EXPECT_EQ(run.code, 2) << options;
    EXPECT_THAT(run.err, HasSubstr(says)) << options;
    EXPECT_THAT(lines_of(run.err), SizeIs(1)) << run.err;
    EXPECT_EQ(run.out, "") << options;
  }
};

TEST_F(P2pCommand, TwoRanksOverTwoTransports) {
  const std::string json = folder_ / "p2p.jsonl", csv = folder_ / "p2p.csv", svg = folder_ / "p2p.svg";
  const auto run =
      gradrail(words("p2p --transport shm,tcp --test all -b 8 -e 64K -f 8192 --rounds 3 --time-per-point 0.03") +
               Words{"--json", json, "--csv", csv, "--svg", svg});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("t_typical"), HasSubstr("Gb/s"), HasSubstr("Mpps"), HasSubstr("# wrote")));
  const auto points = of_kind(records_of(json), "p2p");
  ASSERT_THAT(points, SizeIs(4 * 2 * 2));
  for (const auto& point : points) {
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_EQ(point["rounds"], 3);
    EXPECT_GT(point["time_us"]["median"], 0);
    EXPECT_EQ(point["from"], 0);
    EXPECT_EQ(point["to"], 1);
    if (point["transport"] == "tcp") {
      EXPECT_EQ(point["path"], "socket");
    }
    const bool latency = point["test"] == "latency";
    EXPECT_EQ(point["depth"], latency ? 1 : 64);
    if (latency) {
      EXPECT_EQ(point["samples_us"].size(), point["iterations"].get<std::size_t>());
      EXPECT_GE(point["p999_us"], point["time_us"]["median"]);
      EXPECT_EQ(point["bandwidth_gbs"], 0);
      continue;
    }
    EXPECT_THAT(point["samples_us"], SizeIs(3));
    // Mpps and GB/s say the same, in both directions together where there are two.
    EXPECT_NEAR(point["bandwidth_gbs"].get<double>() * 1e3,
                point["message_mpps"].get<double>() * point["bytes"].get<double>(),
                1e-3 * point["bandwidth_gbs"].get<double>() * 1e3);
  }
  EXPECT_THAT(lines_of(text_of(csv)), SizeIs(1 + 16));
  EXPECT_THAT(text_of(svg), HasSubstr("shm latency"));
}

TEST_F(P2pCommand, AllPairsOfThree) {
  const std::string svg = folder_ / "pairs.svg";
  const auto run =
      gradrail(words("p2p -n 3 --matrix --transport tcp --rounds 3 --time-per-point 0.02 --test latency,bandwidth "
                     "-b 1K --json -") +
               Words{"--svg", svg});
  EXPECT_EQ(run.code, 0) << run.err;
  std::vector<nlohmann::json> records;
  for (const auto& line : lines_of(run.out)) records.push_back(nlohmann::json::parse(line, nullptr, false));
  const auto points = of_kind(records, "p2p");
  EXPECT_THAT(points, SizeIs(3 + 6)) << "latency has no direction";
  EXPECT_THAT(run.err, AllOf(HasSubstr("latency of 1 KiB over tcp"), HasSubstr("bandwidth of 1 KiB over tcp")));
  EXPECT_THAT(text_of(svg), HasSubstr("<title>rank 2 "));
}

TEST_F(P2pCommand, AnyPairLanesDepthAndPlainBuffers) {
  const auto run =
      gradrail(words("p2p -n 3 --pair 2,1 --transport shm --test bandwidth,bidirectional -b 4K --lanes 3 "
                     "--depth 4 --buffers plain --rounds 2 --iters 20 --json -"));
  EXPECT_EQ(run.code, 0) << run.err;
  std::vector<nlohmann::json> records;
  for (const auto& line : lines_of(run.out)) records.push_back(nlohmann::json::parse(line, nullptr, false));
  const auto points = of_kind(records, "p2p");
  ASSERT_THAT(points, SizeIs(2));
  for (const auto& point : points) {
    EXPECT_EQ(point["from"], 2);
    EXPECT_EQ(point["to"], 1);
    EXPECT_EQ(point["lanes"], 3);
    EXPECT_EQ(point["depth"], 4);
    EXPECT_EQ(point["iterations"], 40);
    EXPECT_EQ(point["buffers"], "plain");
  }
}

TEST_F(P2pCommand, PicturesAndTablesMayGoToStandardOutput) {
  const auto svg = gradrail(words("p2p --rounds 1 --iters 5 -b 8 --svg -"));
  EXPECT_EQ(svg.code, 0) << svg.err;
  EXPECT_TRUE(svg.out.starts_with("<svg ")) << svg.out;
  const auto csv = gradrail(words("p2p --rounds 1 --iters 5 -b 8 --csv -"));
  EXPECT_TRUE(csv.out.starts_with("test,transport,")) << csv.out;
}

TEST_F(P2pCommand, MistakesAreOneSentence) {
  expect_refused("--transport pigeon", "there is no transport 'pigeon'");
  expect_refused("--test speed", "'speed' is no test");
  expect_refused("-n 1", "at least 2 ranks");
  expect_refused("--pair 0,0", "--pair '0,0' is not two different ranks");
  expect_refused("--pair 0,2", "names rank 2, and the job has 2");
  expect_refused("-b 1K -e 8", "below the smallest");
  expect_refused("--lanes 1000", "--queue-pairs 1000 is not from 1 to 64");
  expect_refused("--transport shm --inline 64", "--inline is a choice of verbs alone; shm has none");
  expect_refused("--operation read", "--operation read is a choice of verbs and ucx; shm has pipes only");
  expect_refused("--transport ucx,tcp --operation send", "of verbs and ucx; tcp has pipes only");
  expect_refused("--operation fetch", "'fetch' is no operation; known are pipe");
  expect_refused("--buffers cold", "--buffers is plain or registered, not 'cold'");
  expect_refused("--json - --csv -", "two outputs cannot go to one file");
  const auto deep = gradrail(words("p2p --transport tcp --depth 65 -b 8"));
  EXPECT_EQ(deep.code, 2);
  EXPECT_THAT(deep.err, HasSubstr("tcp keeps at most 64 messages outstanding"));
}

TEST_F(P2pCommand, OperationsOfUcxBesideItsPipe) {
  const auto run = gradrail(
      words("p2p --transport ucx --operation pipe,send,write,read --test latency,bandwidth -b 8 -e 64K -f 8192 "
            "--rounds 2 --iters 40 --json -"));
  if (run.err.find("built without") != std::string::npos) GTEST_SKIP() << run.err;
  EXPECT_EQ(run.code, 0) << run.err;
  std::vector<nlohmann::json> records;
  for (const auto& line : lines_of(run.out)) records.push_back(nlohmann::json::parse(line, nullptr, false));
  const auto points = of_kind(records, "p2p");
  ASSERT_THAT(points, SizeIs(4 * 2 * 2));
  for (const auto& point : points) {
    SCOPED_TRACE(point.dump());
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_GT(point["time_us"]["median"], 0);
    EXPECT_EQ(point["path"], "library");
    const int depth = point.contains("operation") ? 128 : 64;
    EXPECT_EQ(point["depth"], point["test"] == "latency" ? 1 : depth);
  }
  const auto pairs = gradrail(words("p2p --transport ucx --operation send --test bandwidth --queue-pairs 2 -b 8 -T 5"));
  EXPECT_EQ(pairs.code, 2);
  EXPECT_THAT(pairs.err, HasSubstr("--queue-pairs 2 is for pipes"));
}

TEST_F(P2pCommand, ARankThatDiesIsNamed) {
  for (const char* transport : {"shm", "tcp"}) {
    const std::string json = folder_ / fmt::format("{}.jsonl", transport);
    auto process =
        start_gradrail(words(fmt::format("p2p -n 3 --matrix --transport {} --test latency -b 8 -e 1M -i 4K "
                                         "--time-per-point 0.05 -T 2 --json {}",
                                         transport, json)));
    const auto ranks = ranks_after("\"p2p\"", json, process, 3);
    ASSERT_FALSE(HasFailure());
    ::kill(static_cast<pid_t>(std::atol(ranks[1].c_str())), SIGKILL);
    const auto run = ended(process, Seconds(20));
    EXPECT_EQ(run.code, 1);
    EXPECT_THAT(run.err, HasSubstr(fmt::format("rank 1 (pid {})", ranks[1])));
  }
}

}  // namespace
}  // namespace gradrail::test
