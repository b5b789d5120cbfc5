// A sweep that meets trouble on its way: a rank is killed or stopped, the launcher is killed, somebody presses
// Control-C. The rank is named, all others are gone within the deadline, what was measured is kept, nothing stays.
#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Longer than any test takes; small sizes come first, so that there are soon results to keep.
const std::string k_long_sweep = "bench -n 4 -a ring,tree -b 8 -e 8M -i 64K";

class BenchTrouble : public CommandTest {
 protected:
  // Starts a sweep, and returns when its first results are kept.
  Process sweep(const std::string& options = "", const std::string& timeout = "2", const std::string& pace = "0.05") {
    path_ = folder_ / "results.json";
    std::filesystem::remove(path_);
    auto process = start_gradrail(
        words(fmt::format("{} {} --time-per-point {} -T {} --json {}", k_long_sweep, options, pace, timeout, path_)));
    ranks_ = ranks_after("\"choice\"", path_, process, 4);
    return process;
  }
  [[nodiscard]] pid_t rank(std::size_t index) const { return static_cast<pid_t>(std::atol(ranks_.at(index).c_str())); }
  [[nodiscard]] std::string name(std::size_t index) const {
    return fmt::format("rank {} (pid {})", index, rank(index));
  }

  // One sentence that names it, and all results so far.
  void expect_named(const Ended& ran, std::size_t index, const std::string& how) {
    EXPECT_EQ(ran.code, 1);
    EXPECT_THAT(lines_of(ran.err), SizeIs(1)) << ran.err;
    EXPECT_THAT(ran.err, AllOf(HasSubstr(name(index)), HasSubstr(how)));
    expect_results_and_nothing_else();
  }
  void expect_results_and_nothing_else() {
    EXPECT_TRUE(all_gone(ranks_, Seconds(3)));
    const auto records = records_of(path_);
    EXPECT_FALSE(of_kind(records, "choice").empty());
    for (const auto& point : of_kind(records, "point")) EXPECT_EQ(point["wrong"], 0);
    EXPECT_EQ(text_of(path_).back(), '\n');
  }

  std::string path_;
  std::vector<std::string> ranks_;
};

struct Place {
  std::string name;
  std::string options;
};
class BenchTroubleOver : public BenchTrouble, public ::testing::WithParamInterface<Place> {};

TEST_P(BenchTroubleOver, AKilledRankIsNamed) {
  for (const std::size_t victim : {0u, 2u}) {
    auto process = sweep(GetParam().options);
    ASSERT_FALSE(HasFailure());
    ::kill(rank(victim), SIGKILL);
    expect_named(ended(process, Seconds(10)), victim, "killed by signal 9 (SIGKILL)");
  }
}

TEST_P(BenchTroubleOver, AStoppedRankIsNamed) {
  for (const std::size_t victim : {0u, 3u}) {
    auto process = sweep(GetParam().options);
    ASSERT_FALSE(HasFailure());
    ::kill(rank(victim), SIGSTOP);
    expect_named(ended(process, Seconds(20)), victim, "is stopped");
  }
}

INSTANTIATE_TEST_SUITE_P(Over, BenchTroubleOver,
                         ::testing::Values(Place{"shm", "--transport shm"}, Place{"tcp", "--transport tcp"},
                                           Place{"hosts", "--topology 2x2 --inner shm --outer tcp"}),
                         [](const auto& instance) { return instance.param.name; });

TEST_F(BenchTrouble, RanksGoWithTheirLauncher) {
  auto process = sweep();
  ASSERT_FALSE(HasFailure());
  ::kill(process.pid(), SIGKILL);
  EXPECT_EQ(ended(process).code, 128 + SIGKILL);
  expect_results_and_nothing_else();
}

TEST_F(BenchTrouble, ControlCEndsEverything) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    auto process = sweep();
    ASSERT_FALSE(HasFailure());
    ::kill(-process.pid(), signal);  // as a terminal does: to the group in front
    const auto ran = ended(process, Seconds(10));
    EXPECT_EQ(ran.code, 128 + signal);
    EXPECT_THAT(lines_of(ran.err), SizeIs(1)) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(fmt::format("stopped by SIG{}", sigabbrev_np(signal))));
    expect_results_and_nothing_else();
  }
}

// Between blocks, where rank 0 probes the machine and the others wait for its word, a sweep of the shortest points is
// most of the time. There, too, the timeout is what was asked for and a second, not many.
TEST_F(BenchTrouble, ARankStoppedBetweenBlocksIsMissedAsSoon) {
  for (const std::size_t victim : {0u, 1u, 0u, 2u}) {
    auto process = sweep("-w 0", "1", "0.001");
    ASSERT_FALSE(HasFailure());
    std::this_thread::sleep_for(std::chrono::milliseconds(10 * victim));
    ::kill(rank(victim), SIGSTOP);
    expect_named(ended(process, Seconds(7)), victim, "is stopped");
  }
}

// Control-Z and fg: only the sample in which it happens is longer.
TEST_F(BenchTrouble, APauseOfTheWholeJobIsSurvived) {
  auto process = sweep("", "60");
  ASSERT_FALSE(HasFailure());
  ::kill(process.pid(), SIGTSTP);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const auto paused = std::filesystem::file_size(path_);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_EQ(std::filesystem::file_size(path_), paused) << "the job goes on while it is paused";
  ::kill(process.pid(), SIGCONT);
  const auto deadline = Deadline::after(Seconds(20));
  while (std::filesystem::file_size(path_) == paused && !deadline.passed())
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GT(std::filesystem::file_size(path_), paused) << "the job does not go on after the pause";
  ::kill(process.pid(), SIGTERM);
  EXPECT_EQ(ended(process, Seconds(10)).code, 128 + SIGTERM);
}

}  // namespace
}  // namespace gradrail::test
