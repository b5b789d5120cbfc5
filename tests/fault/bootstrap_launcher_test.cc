// The launcher and its ranks as real processes: what goes wrong is named in one sentence, and nothing stays.
#include <gmock/gmock.h>

#include "tests/fault/bootstrap_rank.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Seconds k_limit{40};

std::size_t lines_in(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

class Launched : public ::testing::TestWithParam<int> {};

TEST_P(Launched, RanksMeetAndConverse) {
  auto job = launch_ranks(GetParam(), "converse");
  EXPECT_EQ(job.wait(k_limit), 0) << job.err();
  EXPECT_THAT(job.err(), IsEmpty());
  const auto joined = job.lines("joined ");
  ASSERT_THAT(joined, SizeIs(GetParam()));
  for (const auto& line : joined)
    EXPECT_THAT(line, HasSubstr(fmt::format("of {} by launcher listening on 127.0.0.1", GetParam())));
  EXPECT_TRUE(all_gone(job.lines("pid "), Seconds(0)));
}
INSTANTIATE_TEST_SUITE_P(Ranks, Launched, ::testing::Values(1, 2, 3, 8));

struct Mishap {
  const char* scene;
  int victim;
  const char* sentence;  // regular expression
};

class LaunchedWith : public ::testing::TestWithParam<Mishap> {};

TEST_P(LaunchedWith, OneSentenceNamesTheCulpritAndNobodyStays) {
  const auto& [scene, victim, sentence] = GetParam();
  auto job = launch_ranks(
      4, scene,
      {{"GRADRAIL_TEST_VICTIM", std::to_string(victim)}, {"GRADRAIL_TEST_PATIENCE", "1"}, {"GRADRAIL_TEST_WAIT", "2"}});
  EXPECT_EQ(job.wait(k_limit), 1);
  EXPECT_THAT(job.err(), ContainsRegex(sentence));
  EXPECT_EQ(lines_in(job.err()), 1u) << job.err();
  EXPECT_TRUE(all_gone(job.lines("pid "), Seconds(0)));
}
INSTANTIATE_TEST_SUITE_P(
    A, LaunchedWith,
    ::testing::Values(Mishap{"kill", 2, "^gradrail: rank 2 \\(pid [0-9]+\\) was killed by signal 9 \\(SIGKILL\\)"},
                      Mishap{"kill", 0, "^gradrail: rank 0 \\(pid [0-9]+\\) was killed by signal 9 \\(SIGKILL\\)"},
                      Mishap{"abort", 1, "^gradrail: rank 1 \\(pid [0-9]+\\) was killed by signal 6 \\(SIGABRT\\)"},
                      Mishap{"stop", 2, "^gradrail: rank 2 \\(pid [0-9]+\\) is stopped"},
                      Mishap{"stop", 0, "^gradrail: rank 0 \\(pid [0-9]+\\) is stopped"},
                      Mishap{"exit3", 1, "^gradrail: rank 1 \\(pid [0-9]+\\) exited with status 3 without saying why"},
                      Mishap{"exit3", 0, "^gradrail: rank 0 \\(pid [0-9]+\\) exited with status 3 without saying why"},
                      Mishap{"leave", 3, "^gradrail: rank 3 \\(pid [0-9]+\\) exited before the others were done"},
                      Mishap{"give_up", 3, "^gradrail: rank 3 \\(pid [0-9]+\\): the scratch memory is used up"},
                      Mishap{"absent", 2,
                             "^gradrail: rank 0 \\(pid [0-9]+\\): rank 2 of 4 did not come to rank 0 .* within 2 s"},
                      Mishap{"mixed", 1,
                             "^gradrail: rank 0 .*: rank 1 \\(pid [0-9]+ on .*\\) is another build of gradrail: it is "
                             "'build-B', and rank 0 .* is 'build-A'"}),
    [](const auto& each) { return fmt::format("{}_{}", each.param.scene, each.param.victim); });

TEST(Launched, AllRanksLearnWhoEnded) {
  auto job = launch_ranks(4, "kill", {{"GRADRAIL_TEST_VICTIM", "2"}, {"GRADRAIL_TEST_PATIENCE", "5"}});
  EXPECT_EQ(job.wait(k_limit), 1);
  for (const int rank : {0, 1, 3}) {
    EXPECT_THAT(job.out(),
                ContainsRegex(fmt::format("rank {} got peer gone peer 2: rank 2 \\(pid [0-9]+ on .*\\) ended", rank)));
  }
}

TEST(Launched, AllRanksLearnWhoIsStopped) {
  auto job = launch_ranks(4, "stop", {{"GRADRAIL_TEST_VICTIM", "1"}, {"GRADRAIL_TEST_PATIENCE", "1"}});
  EXPECT_EQ(job.wait(k_limit), 1);
  for (const int rank : {0, 2, 3}) {
    EXPECT_THAT(job.out(), ContainsRegex(fmt::format(
                               "rank {} got timed out peer 1: rank 1 \\(pid [0-9]+ on .*\\) did not answer", rank)));
  }
}

TEST(Launched, ABriefStopIsNoFailure) {
  auto job = launch_ranks(3, "brief_stop", {{"GRADRAIL_TEST_VICTIM", "1"}, {"GRADRAIL_TEST_PATIENCE", "20"}});
  EXPECT_EQ(job.wait(k_limit), 0) << job.err();
  EXPECT_THAT(job.err(), IsEmpty());
}

TEST(Launched, RanksDieWithAKilledLauncher) {
  auto job = launch_ranks(3, "sleep");
  const auto deadline = Deadline::after(k_limit);
  while (job.lines("joined ").size() < 3 && !deadline.passed())
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto pids = job.lines("pid ");
  ASSERT_THAT(job.lines("joined "), SizeIs(3));
  ASSERT_THAT(pids, SizeIs(3));
  ASSERT_FALSE(is_gone(std::atol(pids[0].c_str())));
  ::kill(job.pid(), SIGKILL);
  EXPECT_EQ(job.wait(k_limit), 128 + SIGKILL);
  EXPECT_TRUE(all_gone(pids, Seconds(10)));
}

TEST(Launched, AnInterruptEndsAll) {
  auto job = launch_ranks(3, "sleep");
  const auto deadline = Deadline::after(k_limit);
  while (job.lines("joined ").size() < 3 && !deadline.passed())
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_THAT(job.lines("joined "), SizeIs(3));
  ::kill(job.pid(), SIGINT);
  EXPECT_EQ(job.wait(k_limit), 128 + SIGINT);
  EXPECT_EQ(job.err(), "gradrail: stopped by SIGINT; all ranks were ended\n");
  EXPECT_TRUE(all_gone(job.lines("pid "), Seconds(0)));
}

TEST(Launched, ALimitEndsAll) {
  auto job = launch_ranks(2, "sleep", {{"GRADRAIL_TEST_LIMIT", "1"}});
  EXPECT_EQ(job.wait(k_limit), 1);
  EXPECT_EQ(job.err(), "gradrail: the job was not done within 1 s; the others were ended\n");
  EXPECT_TRUE(all_gone(job.lines("pid "), Seconds(0)));
}

TEST(Launched, AnotherNumberOfRanksThanMeantIsBadUsage) {
  auto job = launch_ranks(2, "converse", {{"GRADRAIL_TEST_EXPECTED", "4"}});
  EXPECT_EQ(job.wait(k_limit), 2);
  EXPECT_THAT(job.err(), HasSubstr("gradrail's launcher started 2 ranks, and 4 were asked for"));
}

TEST(Launched, APortInUseIsNamed) {
  const auto held = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(held);
  const int port = local_port(held->get()).value();
  auto job = launch_ranks(2, "converse", {{"GRADRAIL_TEST_PORT", std::to_string(port)}});
  EXPECT_EQ(job.wait(k_limit), 1);
  EXPECT_THAT(job.err(), HasSubstr(fmt::format("port {} on 127.0.0.1 is in use", port)));
  EXPECT_THAT(job.lines("pid "), IsEmpty());
}

TEST(Launched, AProgramThatCannotBeStartedIsNamed) {
  auto job = launch_ranks(2, "converse", {{"GRADRAIL_TEST_PROGRAM", "/nowhere/gradrail"}});
  EXPECT_EQ(job.wait(k_limit), 1);
  EXPECT_THAT(job.err(), AllOf(HasSubstr("/nowhere/gradrail"), HasSubstr("No such file")));
}

TEST(Launched, NoRanksAndTooManyAreRefused) {
  auto none = launch_ranks(0, "converse");
  EXPECT_EQ(none.wait(k_limit), 2);
  EXPECT_THAT(none.err(), HasSubstr("0 ranks were asked for"));
  auto many = launch_ranks(1 << 20, "converse");
  EXPECT_EQ(many.wait(k_limit), 1);
  EXPECT_THAT(many.err(),
              AllOf(HasSubstr("1048576 ranks are more than this machine can bear"), HasSubstr("ask for at most")));
  EXPECT_THAT(many.lines("pid "), IsEmpty());
}

}  // namespace
}  // namespace gradrail::test
