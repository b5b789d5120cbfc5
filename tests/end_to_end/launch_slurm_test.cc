// Ranks started by srun on two nodes meet through PMIx. The nodes are those of scripts/slurm-lab: one machine that
// Slurm takes for two, so that rank 0 is met over a real interface and not over loopback, where the machine has one.
#include <gmock/gmock.h>

#include <filesystem>

#include "tests/fault/bootstrap_rank.h"

namespace gradrail::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr Seconds k_limit{40};
const std::string k_lab = std::string(GRADRAIL_SOURCE_DIR) + "/scripts/slurm-lab";

class StartedBySrun : public ::testing::Test {
 protected:
  void SetUp() override {
    if (GRADRAIL_HAVE_PMIX == 0) GTEST_SKIP() << "this build lacks PMIx";
    // The laboratory looks after us, too: should this program be killed, it ends by itself.
    Process up({k_lab, "up", std::to_string(getpid())}, {});
    const int code = up.wait(k_limit);
    if (code == 77) GTEST_SKIP() << up.err();
    ASSERT_EQ(code, 0) << up.err();
    folder_ = up.lines("/").empty() ? "" : "/" + up.lines("/").front();
    ASSERT_FALSE(folder_.empty());
  }
  void TearDown() override {
    if (folder_.empty()) return;
    Process down({k_lab, "down", folder_}, {});
    EXPECT_EQ(down.wait(k_limit), 0) << down.err();
    EXPECT_FALSE(std::filesystem::exists(folder_));
  }
  Process srun(std::vector<std::string> options, const std::string& scene, Process::Settings settings = {}) {
    settings.emplace_back("GRADRAIL_TEST_ROLE", scene);
    std::vector<std::string> argv = {k_lab, "run", folder_, "srun", "--kill-on-bad-exit=1"};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.push_back(std::filesystem::read_symlink("/proc/self/exe"));
    return Process(argv, settings);
  }

  std::string folder_;
};

TEST_F(StartedBySrun, RanksOfTwoNodesMeetAndWhatGoesWrongIsNamed) {
  {
    auto job = srun({"-N", "2", "-n", "4", "--mpi=pmix"}, "converse");
    EXPECT_EQ(job.wait(k_limit), 0) << job.err();
    const auto joined = job.lines("joined ");
    EXPECT_THAT(joined, SizeIs(4));
    for (const auto& line : joined) EXPECT_THAT(line, HasSubstr("of 4 by pmix listening on "));
  }
  {
    auto job = srun({"-N", "2", "-n", "4", "--mpi=pmix"}, "mixed", {{"GRADRAIL_TEST_VICTIM", "3"}});
    EXPECT_NE(job.wait(k_limit), 0);
    EXPECT_THAT(job.err(), ContainsRegex("rank 3 \\(pid [0-9]+ on .*\\) is another build of gradrail"));
  }
  {
    auto job = srun({"-N", "2", "-n", "4", "--mpi=pmix"}, "absent",
                    {{"GRADRAIL_TEST_VICTIM", "2"}, {"GRADRAIL_TEST_WAIT", "2"}});
    EXPECT_NE(job.wait(k_limit), 0);
    EXPECT_THAT(job.err(), HasSubstr("rank 2 of 4 did not come to rank 0"));
  }
  {
    auto job = srun({"-N", "2", "-n", "4", "--mpi=none"}, "converse");
    EXPECT_NE(job.wait(k_limit), 0);
    EXPECT_THAT(
        job.err(),
        ContainsRegex("srun started 4 of them .*4 jobs of one where one job of 4 was meant; use srun --mpi=pmix"));
  }
  {
    auto job = srun({"-N", "2", "-n", "4", "--mpi=pmix"}, "kill", {{"GRADRAIL_TEST_VICTIM", "1"}});
    EXPECT_NE(job.wait(k_limit), 0);
    EXPECT_THAT(job.out(), ContainsRegex("got peer gone peer 1: rank 1 \\(pid [0-9]+ on .*\\) ended"));
  }
}

}  // namespace
}  // namespace gradrail::test
