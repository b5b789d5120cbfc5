// Ranks started by hand with torchrun's variables: what may go wrong where they meet.
#include <gmock/gmock.h>

#include <optional>

#include "tests/fault/bootstrap_rank.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Seconds k_limit{40};

struct Job {
  int ranks = 2;
  int port = free_port();
  std::string secret = "a secret of the test";

  [[nodiscard]] Process start(int rank, const std::string& scene, const Process::Settings& more = {}) const {
    Process::Settings settings = {{"GRADRAIL_TEST_ROLE", scene},         {"RANK", std::to_string(rank)},
                                  {"WORLD_SIZE", std::to_string(ranks)}, {"LOCAL_RANK", std::to_string(rank)},
                                  {"MASTER_ADDR", "127.0.0.1"},          {"MASTER_PORT", std::to_string(port)},
                                  {"GRADRAIL_SECRET", secret},           {"GRADRAIL_TEST_WAIT", "20"}};
    settings.insert(settings.end(), more.begin(), more.end());
    return Process({"/proc/self/exe"}, settings);
  }
  [[nodiscard]] std::vector<Process> start_all(const std::string& scene, const Process::Settings& more = {}) const {
    std::vector<Process> all;
    for (int rank = 0; rank < ranks; ++rank) all.push_back(start(rank, scene, more));
    return all;
  }
};

TEST(Rendezvous, RanksOfTorchrunMeetAndConverse) {
  for (const bool agent : {false, true}) {
    auto all = Job{.ranks = 4}.start_all("converse", {{"TORCHELASTIC_USE_AGENT_STORE", agent ? "True" : "False"}});
    for (auto& one : all) {
      EXPECT_EQ(one.wait(k_limit), 0) << one.err();
      EXPECT_THAT(one.out(), ContainsRegex("joined [0-3] of 4 by torchrun listening on 127.0.0.1"));
      EXPECT_THAT(one.err(), IsEmpty());
    }
  }
}

TEST(Rendezvous, TheAgentsPortIsLeftAlone) {
  const int port = free_port(2);  // the agent's, and the one behind it for the ranks
  const auto agent = listen_tcp("127.0.0.1", port);
  ASSERT_TRUE(agent);
  const Job job{.ranks = 2, .port = port};
  auto all = job.start_all("converse", {{"TORCHELASTIC_USE_AGENT_STORE", "True"}});
  for (auto& one : all) EXPECT_EQ(one.wait(k_limit), 0) << one.err();
}

TEST(Rendezvous, AJobOfOneNeedsNoSecret) {
  const Job job{.ranks = 1, .secret = ""};
  auto one = job.start(0, "converse");
  EXPECT_EQ(one.wait(k_limit), 0) << one.err();
  EXPECT_THAT(one.out(), HasSubstr("joined 0 of 1 by torchrun"));
}

TEST(Rendezvous, ManyNeedASecret) {
  const Job job{.secret = ""};
  auto one = job.start(1, "converse");
  EXPECT_EQ(one.wait(k_limit), 2);
  EXPECT_THAT(one.err(), AllOf(HasSubstr("rank 1 (pid"), HasSubstr("set GRADRAIL_SECRET=")));
}

TEST(Rendezvous, AWrongSecretIsTurnedAwayAndRank0GoesOn) {
  const Job job{.ranks = 2};
  auto zero = job.start(0, "converse");
  auto impostor = job.start(1, "converse", {{"GRADRAIL_SECRET", "another secret of a test"}});
  EXPECT_EQ(impostor.wait(k_limit), 1);
  EXPECT_THAT(impostor.err(), AllOf(HasSubstr("cannot join rank 0"), HasSubstr("secret")));
  auto one = job.start(1, "converse");
  EXPECT_EQ(one.wait(k_limit), 0) << one.err();
  EXPECT_EQ(zero.wait(k_limit), 0) << zero.err();
}

TEST(Rendezvous, OneNumberClaimedTwiceIsToldToAll) {
  const Job job{.ranks = 3};
  auto zero = job.start(0, "converse");
  auto one = job.start(1, "converse");
  auto other = job.start(1, "converse");
  for (auto* each : {&zero, &one, &other}) EXPECT_EQ(each->wait(k_limit), 1);
  EXPECT_THAT(zero.err(),
              AllOf(HasSubstr("the number 1 is claimed twice"), HasSubstr(fmt::format("pid {} on ", one.pid())),
                    HasSubstr(fmt::format("pid {} on ", other.pid()))));
  // Only rank 0 speaks; the others know it from rank 0.
  EXPECT_THAT(one.err(), IsEmpty());
  EXPECT_THAT(other.err(), IsEmpty());
}

TEST(Rendezvous, ASecondRank0FindsThePortInUse) {
  const Job job{.ranks = 2};
  auto zero = job.start(0, "converse");
  const auto deadline = Deadline::after(k_limit);
  while (!deadline.passed() && connect_tcp("127.0.0.1", job.port, deadline, OnRefused::fail).has_value() == false) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  auto second = job.start(0, "converse");
  EXPECT_EQ(second.wait(k_limit), 1);
  EXPECT_THAT(second.err(), AllOf(HasSubstr(fmt::format("port {} on 127.0.0.1 is in use", job.port)),
                                  HasSubstr("is there another rank 0?"), HasSubstr("GRADRAIL_PORT")));
  auto one = job.start(1, "converse");
  EXPECT_EQ(one.wait(k_limit), 0) << one.err();
  EXPECT_EQ(zero.wait(k_limit), 0) << zero.err();
}

TEST(Rendezvous, AnotherNumberOfRanksIsRefused) {
  const Job job{.ranks = 2};
  auto zero = job.start(0, "converse");
  auto one = job.start(1, "converse", {{"WORLD_SIZE", "4"}});
  EXPECT_EQ(one.wait(k_limit), 1);
  EXPECT_EQ(zero.wait(k_limit), 1);
  EXPECT_THAT(zero.err(), ContainsRegex("rank 1 \\(pid [0-9]+ on .*\\) was told of 4 ranks, and rank 0 .* of 2"));
}

TEST(Rendezvous, MissingRanksAreAllNamed) {
  const Job job{.ranks = 5};
  auto zero = job.start(0, "converse", {{"GRADRAIL_TEST_WAIT", "2"}});
  auto three = job.start(3, "converse", {{"GRADRAIL_TEST_WAIT", "2"}});
  EXPECT_EQ(zero.wait(k_limit), 1);
  EXPECT_THAT(zero.err(),
              ContainsRegex("ranks 1, 2 and 4 of 5 did not come to rank 0 \\(pid [0-9]+ on .*\\) within 2 s"));
  EXPECT_EQ(three.wait(k_limit), 1);
  EXPECT_THAT(three.err(), IsEmpty());
}

TEST(Rendezvous, AMissingRank0IsNamed) {
  const Job job{.ranks = 2};
  auto one = job.start(1, "converse", {{"GRADRAIL_TEST_WAIT", "1"}});
  EXPECT_EQ(one.wait(k_limit), 1);
  EXPECT_THAT(one.err(), AllOf(HasSubstr("did not reach rank 0 within 1 s"), HasSubstr(std::to_string(job.port))));
}

TEST(Rendezvous, ARankThatEndsWhileOthersAreStillComing) {
  const Job job{.ranks = 3};
  auto zero = job.start(0, "converse");
  std::optional<Process> one = job.start(1, "converse");
  // It has joined when its only connection is up, which no line tells: a look at its sockets does.
  const auto deadline = Deadline::after(k_limit);
  while (one->wait(Seconds(0)) == -1 && !deadline.passed()) {
    std::ifstream table(fmt::format("/proc/{}/net/tcp", one->pid()));
    const auto hex = fmt::format(":{:04X} 01 ", job.port);
    std::string line;
    bool connected = false;
    while (std::getline(table, line)) connected = connected || line.find(hex) != line.npos;
    if (connected) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // for the proof; otherwise rank 1 is one who never came
  const auto pid = one->pid();
  one.reset();
  EXPECT_EQ(zero.wait(k_limit), 1);
  EXPECT_THAT(zero.err(), HasSubstr(fmt::format("rank 1 (pid {} on ", pid)));
  EXPECT_THAT(zero.err(), HasSubstr("ended while the other ranks were still coming"));
}

TEST(Rendezvous, StrangersAreDroppedAndTheJobGoesOn) {
  const Job job{.ranks = 3};
  auto zero = job.start(0, "converse");
  const auto deadline = Deadline::after(k_limit);
  const auto stranger = [&](std::string_view says) {
    auto fd = connect_tcp("127.0.0.1", job.port, deadline, OnRefused::retry);
    if (fd) [[maybe_unused]]
      const auto sent = send_all(fd->get(), bytes_of(says), deadline);
    return fd;
  };
  const auto silent = stranger("");
  const auto garbage = stranger("GET / HTTP/1.1\r\nHost: gradrail\r\n\r\n");
  const auto huge = stranger(std::string(4, '\xff') + "huge");
  const auto half = stranger("grdr");
  const auto speaks = stranger("grdrail1" + std::string(16 + 32, 'n'));
  std::vector<Result<Fd>> crowd;
  for (int i = 0; i < 200; ++i) crowd.push_back(stranger(""));
  ASSERT_TRUE(silent && garbage && huge && half && speaks && crowd.back());
  auto one = job.start(1, "converse");
  auto two = job.start(2, "converse");
  for (auto* each : {&zero, &one, &two}) {
    EXPECT_EQ(each->wait(k_limit), 0) << each->err();
    EXPECT_THAT(each->err(), IsEmpty());
  }
}

TEST(Rendezvous, WhoGivesUpIsToldToAll) {
  const Job job{.ranks = 4};
  auto all = job.start_all("give_up", {{"GRADRAIL_TEST_VICTIM", "2"}});
  for (auto& one : all) EXPECT_EQ(one.wait(k_limit), 1);
  for (const std::size_t rank : {0u, 1u, 3u}) {
    EXPECT_THAT(all[rank].out(),
                ContainsRegex("got exhausted peer 2: rank 2 \\(pid [0-9]+ on .*\\) gave up: the scratch memory"));
  }
  EXPECT_THAT(all[2].err(), HasSubstr("the scratch memory is used up"));
  EXPECT_THAT(all[1].err(), IsEmpty());
}

TEST(Rendezvous, JobsOfOneAreNotAJob) {
  auto alone = Process({"/proc/self/exe"}, {{"GRADRAIL_TEST_ROLE", "converse"}, {"GRADRAIL_TEST_EXPECTED", "4"}});
  EXPECT_EQ(alone.wait(k_limit), 2);
  EXPECT_THAT(alone.err(),
              AllOf(HasSubstr(fmt::format("pid {} on ", alone.pid())), HasSubstr("they are 4 jobs of one")));
  auto unknown =
      Process({"/proc/self/exe"},
              {{"GRADRAIL_TEST_ROLE", "converse"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "0"}});
  EXPECT_EQ(unknown.wait(k_limit), 2);
  EXPECT_THAT(unknown.err(), HasSubstr("4 jobs of one where one job of 4 was meant"));
}

TEST(Rendezvous, VariablesOfAnEndedLauncherAreNotBelieved) {
  auto orphan = Process({"/proc/self/exe"}, {{"GRADRAIL_TEST_ROLE", "converse"},
                                             {"GRADRAIL_LAUNCH_RANK", "1"},
                                             {"GRADRAIL_LAUNCH_RANKS", "2"},
                                             {"GRADRAIL_LAUNCH_ENDPOINT", "127.0.0.1:4000"},
                                             {"GRADRAIL_LAUNCH_REPORT_FD", "700"},
                                             {"GRADRAIL_LAUNCH_SECRET_FD", "701"}});
  EXPECT_EQ(orphan.wait(k_limit), 2);
  EXPECT_THAT(orphan.err(), HasSubstr("they belong to another process"));
}

}  // namespace
}  // namespace gradrail::test
