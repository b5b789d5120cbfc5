// `gradrail p2p` over RDMA devices: what its rows say of the pipe and of each operation, and a rank that dies. Needs
// devices that the software RoCE machine of scripts/soft-roce has; CTest starts it there as soft_roce.p2p.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class P2pLab : public CommandTest {
 protected:
  void SetUp() override {
    if (std::getenv("SOFT_ROCE") == nullptr) GTEST_SKIP() << "needs the devices of scripts/soft-roce";
    CommandTest::SetUp();
  }
  // The p2p records of a run that must succeed.
  std::vector<nlohmann::json> rows(const std::string& options) {
    const std::string json = folder_ / "rows.jsonl";
    const auto run = gradrail(
        words("p2p --transport verbs --verbs device=rxe1+rxe2 -T 60 " + options) + Words{"--json", json}, Seconds(100));
    EXPECT_EQ(run.code, 0) << run.err;
    table_ = run.out;
    return of_kind(records_of(json), "p2p");
  }
  std::string table_;
};

TEST_F(P2pLab, EveryOperationMovesTheRightBytesAndHasItsRow) {
  const auto points = rows("--operation pipe,write,send,read --test all -b 8 -e 64K -f 8192 --rounds 2 --iters 40");
  ASSERT_THAT(points, SizeIs(4 * 2 * 4));
  int operations = 0;
  for (const auto& point : points) {
    SCOPED_TRACE(point.dump());
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_GT(point["time_us"]["median"], 0);
    operations += point.contains("operation") ? 1 : 0;
    const auto operation = point.value("operation", "pipe");
    const bool straight = operation == "read" || point["bytes"] == 64 << 10;
    EXPECT_EQ(point["path"], straight ? "zero-copy" : "inline");
    if (point["test"] != "latency") {
      EXPECT_EQ(point["depth"], operation == "pipe" ? 64 : 128);
    }
    EXPECT_FALSE(point.contains("expected_gbs")) << "a device of software promises nothing";
  }
  EXPECT_EQ(operations, 3 * 2 * 4);
  EXPECT_THAT(table_, AllOf(HasSubstr("verbs write"), HasSubstr("verbs send"), HasSubstr("verbs read")));
}

TEST_F(P2pLab, QueuePairsDepthAndInlineAreTheUsers) {
  const auto points = rows(
      "--operation write,send,read --test bandwidth,bidirectional -b 100 --queue-pairs 3 "
      "--queue-depth 5 --inline 64 --rounds 2 --iters 60");
  ASSERT_THAT(points, SizeIs(3 * 2));
  for (const auto& point : points) {
    SCOPED_TRACE(point.dump());
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_EQ(point["lanes"], 3);
    EXPECT_EQ(point["depth"], 5);
    EXPECT_EQ(point["path"], "zero-copy") << "100 bytes do not go in line";
  }
}

TEST_F(P2pLab, WhatADeviceCannotIsOneSentence) {
  for (const auto& [options, says] :
       {std::pair{"--buffers plain", "registered memory only"}, {"-b 0", "is no size to measure"}}) {
    const auto mistake = gradrail(words(fmt::format("p2p --transport verbs --operation write {}", options)));
    EXPECT_EQ(mistake.code, 2);
    EXPECT_THAT(mistake.err, HasSubstr(says));
  }
  const auto large = gradrail(words("p2p --transport verbs --operation write --test bandwidth -b 16M -T 20"));
  EXPECT_EQ(large.code, 2);
  EXPECT_THAT(large.err, HasSubstr("moves at most 8388608 bytes"));
  EXPECT_THAT(lines_of(large.err), SizeIs(1)) << large.err;
  const auto deep =
      gradrail(words("p2p --transport verbs --operation write --test bandwidth --queue-depth 1000000 -T 20"));
  EXPECT_EQ(deep.code, 2);
  EXPECT_THAT(deep.err, HasSubstr("lower --queue-depth"));
}

TEST_F(P2pLab, ARankThatDiesIsNamedByEveryWay) {
  for (const char* way : {"verbs --operation write", "verbs --operation send", "ucx", "ucx --operation send"}) {
    SCOPED_TRACE(way);
    const std::string json = folder_ / "dies.jsonl";
    std::filesystem::remove(json);
    auto process = start_gradrail(words(fmt::format(
        "p2p --transport {} --test latency -b 8 -e 64K -i 4K --time-per-point 0.3 -T 10 --json {}", way, json)));
    const auto ranks = ranks_after("\"p2p\"", json, process, 2);
    ASSERT_FALSE(HasFailure());
    ::kill(static_cast<pid_t>(std::atol(ranks[1].c_str())), SIGKILL);
    const auto run = ended(process, Seconds(40));
    EXPECT_EQ(run.code, 1);
    EXPECT_THAT(run.err, HasSubstr(fmt::format("rank 1 (pid {})", ranks[1])));
  }
}

}  // namespace
}  // namespace gradrail::test
