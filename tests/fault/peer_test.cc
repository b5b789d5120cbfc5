// Ranks of another library that die, hang, stop or refuse: the driver says so in bounded time and leaves nothing
// behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "bench/measure/peer_ranks.h"
#include "transports/base/cores.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;

std::set<long> fakes() {
  std::set<long> pids;
  std::error_code error;
  const auto binary = std::filesystem::canonical(GRADRAIL_FAKE_PEER, error);
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const long pid = std::atol(entry.path().filename().c_str());
    if (pid > 0 && std::filesystem::read_symlink(entry.path() / "exe", error) == binary) pids.insert(pid);
  }
  return pids;
}

class PeerTrouble : public ::testing::Test {
 protected:
  static Result<std::unique_ptr<PeerRanks>> start(const std::string& trouble, Seconds wait = Seconds(10)) {
    PeerRanks::Start start;
    start.library = "fake";
    start.name = "default";
    start.ranks = 2;
    start.cores = usable_cores();
    start.command.one_a_rank = true;
    start.command.argv = {GRADRAIL_FAKE_PEER, "--control", std::string(PeerRanks::k_control), "--ranks", "2"};
    start.command.environment = {"FAKE_PEER=" + trouble};
    return PeerRanks::start(start, Deadline::after(wait));
  }
  static Result<Contender::Trial> prepare(PeerRanks& peer, Seconds wait = Seconds(10)) {
    Call call;
    call.count = 4;
    return peer.prepare(call, Cache::hot, 2, /*check=*/false, 1, Deadline::after(wait));
  }
  void TearDown() override { EXPECT_TRUE(fakes().empty()) << "ranks are left behind"; }
};

TEST_F(PeerTrouble, AHealthyOneIsMeasuredAndEnds) {
  auto peer = start("");
  ASSERT_TRUE(peer) << peer.error().message;
  EXPECT_EQ((*peer)->version(), "Fake 1.0");
  const auto trial = prepare(**peer);
  ASSERT_TRUE(trial) << trial.error().message;
  EXPECT_GE(trial->operation_us, 0);
  const auto samples = (*peer)->measure(7, 3, Deadline::after(Seconds(10)));
  ASSERT_TRUE(samples) << samples.error().message;
  EXPECT_EQ(samples->size(), 7u);
  (*peer)->release(Deadline::after(Seconds(10)));
  const auto without_buffers = (*peer)->measure(1, 1, Deadline::after(Seconds(10)));
  EXPECT_FALSE(without_buffers);
  peer->reset();
}

TEST_F(PeerTrouble, ARankThatDiesWhileItStartsIsNamedWithItsLastWords) {
  const auto peer = start("die@open");
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().code, Code::unavailable);
  EXPECT_THAT(peer.error().message, HasSubstr("no luck today"));
}

TEST_F(PeerTrouble, ARankThatHangsWhileItStartsIsGivenUp) {
  const auto peer = start("hang@open", Seconds(0.5));
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().code, Code::timed_out);
}

TEST_F(PeerTrouble, AProgramThatIsNotThereIsSaid) {
  PeerRanks::Start start;
  start.ranks = 2;
  start.cores = usable_cores();
  start.command.argv = {"/nonexistent/runner"};
  const auto peer = PeerRanks::start(start, Deadline::after(Seconds(5)));
  ASSERT_FALSE(peer);
  EXPECT_THAT(peer.error().message, HasSubstr("could not be started"));
}

TEST_F(PeerTrouble, WhatIsNotSupportedIsNoReasonToEnd) {
  auto peer = start("refuse@prepare");
  ASSERT_TRUE(peer) << peer.error().message;
  for (int again = 0; again < 2; ++again) {
    const auto trial = prepare(**peer);
    ASSERT_FALSE(trial);
    EXPECT_EQ(trial.error().code, Code::unsupported);
    EXPECT_THAT(trial.error().message, HasSubstr("no such collective"));
  }
}

class PeerTroubleAt : public PeerTrouble, public ::testing::WithParamInterface<const char*> {};

TEST_P(PeerTroubleAt, EndsItsPartInTimeAndForGood) {
  auto peer = start(GetParam());
  ASSERT_TRUE(peer) << peer.error().message;
  Result<void> outcome;
  const auto begin = Clock::now();
  if (auto trial = prepare(**peer, Seconds(0.5)); !trial) {
    outcome = tl::unexpected<Error>(trial.error());
  } else if (auto samples = (*peer)->measure(50, 2, Deadline::after(Seconds(0.5))); !samples) {
    outcome = tl::unexpected<Error>(samples.error());
  }
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  ASSERT_FALSE(outcome);
  const bool dies = std::string_view(GetParam()).starts_with("die");
  EXPECT_EQ(outcome.error().code, dies ? Code::peer_gone : Code::timed_out) << outcome.error().message;
  if (dies) {
    EXPECT_THAT(outcome.error().message, HasSubstr("no luck today"));
  }
  const auto later = prepare(**peer);
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().message, outcome.error().message);
}
INSTANTIATE_TEST_SUITE_P(Of, PeerTroubleAt,
                         ::testing::Values("die@prepare", "hang@prepare", "stop@prepare", "die@measure", "hang@measure",
                                           "stop@measure"),
                         [](const auto& of) {
                           std::string name = of.param;
                           name[name.find('@')] = '_';
                           return name;
                         });

// Nobody is told: the driver's sockets close with it.
TEST_F(PeerTrouble, ADriverThatIsKilledTakesItsRanksAlong) {
  const pid_t driver = ::fork();
  if (driver == 0) {
    const auto peer = start("hang@prepare");
    if (peer) (void)prepare(**peer, Seconds(60));
    ::_exit(0);
  }
  auto deadline = Deadline::after(Seconds(10));
  while (fakes().size() < 2 && !deadline.passed()) ::usleep(5000);
  EXPECT_EQ(fakes().size(), 2u);
  ::usleep(200'000);
  ::kill(driver, SIGKILL);
  ::waitpid(driver, nullptr, 0);
  deadline = Deadline::after(Seconds(5));
  while (!fakes().empty() && !deadline.passed()) ::usleep(5000);
}

// Killed while its ranks start, it leaves their folder, which goes when the next ranks are started; one in use stays.
TEST_F(PeerTrouble, AFolderThatAKilledDriverLeftGoesWithTheNextStart) {
  std::string place = (std::filesystem::temp_directory_path() / "gradrail-left-XXXXXX").string();
  ASSERT_NE(::mkdtemp(place.data()), nullptr);
  ::setenv("TMPDIR", place.c_str(), 1);
  const auto folders = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(place)) names.insert(entry.path().filename());
    return names;
  };
  const pid_t driver = ::fork();
  if (driver == 0) {
    (void)start("hang@open", Seconds(60));
    ::_exit(0);
  }
  auto deadline = Deadline::after(Seconds(10));
  while (fakes().size() < 2 && !deadline.passed()) ::usleep(5000);
  const auto used = folders();
  EXPECT_EQ(used.size(), 1u);
  EXPECT_TRUE(start("")) << "beside one in use";
  EXPECT_EQ(folders(), used);
  ::kill(driver, SIGKILL);
  ::waitpid(driver, nullptr, 0);
  EXPECT_EQ(folders(), used);
  EXPECT_TRUE(start(""));
  EXPECT_TRUE(folders().empty());
  deadline = Deadline::after(Seconds(5));
  while (!fakes().empty() && !deadline.passed()) ::usleep(5000);
  ::unsetenv("TMPDIR");
  std::filesystem::remove_all(place);
}

}  // namespace
}  // namespace gradrail
