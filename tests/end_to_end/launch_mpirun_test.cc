// Ranks started by Open MPI's mpirun meet through PMIx.
#include <gmock/gmock.h>

#include <filesystem>

#include "tests/fault/bootstrap_rank.h"

namespace gradrail::test {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr Seconds k_limit{80};

class StartedByMpirun : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::string_view(GRADRAIL_MPIRUN).empty())
      GTEST_SKIP() << "mpirun was not found when this build was configured";
    if (GRADRAIL_HAVE_PMIX == 0) GTEST_SKIP() << "this build lacks PMIx";
  }
  static Process mpirun(int ranks, const std::string& scene, Process::Settings settings = {}) {
    settings.emplace_back("GRADRAIL_TEST_ROLE", scene);
    return Process({GRADRAIL_MPIRUN, "--oversubscribe", "--allow-run-as-root", "-n", std::to_string(ranks),
                    std::filesystem::read_symlink("/proc/self/exe")},
                   settings);
  }
};

TEST_F(StartedByMpirun, RanksMeetAndConverse) {
  auto job = mpirun(4, "converse");
  EXPECT_EQ(job.wait(k_limit), 0) << job.err();
  const auto joined = job.lines("joined ");
  EXPECT_THAT(joined, SizeIs(4));
  for (const auto& line : joined) EXPECT_THAT(line, HasSubstr("of 4 by pmix listening on 127.0.0.1"));
}

TEST_F(StartedByMpirun, AJobOfOne) {
  auto job = mpirun(1, "converse");
  EXPECT_EQ(job.wait(k_limit), 0) << job.err();
  EXPECT_THAT(job.out(), HasSubstr("joined 0 of 1 by pmix"));
}

TEST_F(StartedByMpirun, AnotherNumberThanMeantIsBadUsage) {
  auto job = mpirun(2, "converse", {{"GRADRAIL_TEST_EXPECTED", "4"}});
  EXPECT_NE(job.wait(k_limit), 0);
  EXPECT_THAT(job.err(), HasSubstr("mpirun or srun started 2 ranks, and 4 were asked for"));
}

TEST_F(StartedByMpirun, AMissingRankIsNamed) {
  auto job = mpirun(3, "absent", {{"GRADRAIL_TEST_VICTIM", "2"}, {"GRADRAIL_TEST_WAIT", "2"}});
  EXPECT_NE(job.wait(k_limit), 0);
  EXPECT_THAT(job.err(), HasSubstr("rank 2 of 3 did not come to rank 0"));
}

TEST_F(StartedByMpirun, MixedBuildsAreNamed) {
  auto job = mpirun(3, "mixed", {{"GRADRAIL_TEST_VICTIM", "1"}});
  EXPECT_NE(job.wait(k_limit), 0);
  EXPECT_THAT(job.err(), ::testing::ContainsRegex("rank 1 \\(pid [0-9]+ on .*\\) is another build of gradrail"));
}

TEST_F(StartedByMpirun, AMissingRank0IsNamed) {
  auto job = mpirun(2, "absent", {{"GRADRAIL_TEST_VICTIM", "0"}, {"GRADRAIL_TEST_WAIT", "2"}});
  EXPECT_NE(job.wait(k_limit), 0);
  EXPECT_THAT(job.err(), HasSubstr("rank 0 has not published its address"));
}

}  // namespace
}  // namespace gradrail::test
