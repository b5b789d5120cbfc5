// What the bootstrap decides without a network: how a process was started, whom to blame, how many ranks are too many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <map>

#include "transports/bootstrap/capacity.h"
#include "transports/bootstrap/report.h"
#include "transports/bootstrap/surroundings.h"
#include "transports/bootstrap/verdict.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;
using Way = Surroundings::Way;
using Settings = std::map<std::string, std::string>;

Variables from(const Settings& settings) {
  return [&settings](const char* name) -> const char* {
    const auto found = settings.find(name);
    return found == settings.end() ? nullptr : found->second.c_str();
  };
}

Result<Surroundings> look(const Settings& settings) { return look_around(from(settings)); }

const Settings k_torchrun = {
    {"RANK", "3"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "3"}, {"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "29500"}};

Settings with(Settings settings, const Settings& more) {
  for (const auto& [name, value] : more) settings[name] = value;
  return settings;
}

TEST(Surroundings, NothingIsAJobOfOne) {
  const auto around = look({});
  ASSERT_TRUE(around);
  EXPECT_EQ(around->way, Way::alone);
  EXPECT_EQ(around->ranks, 1);
}

TEST(Surroundings, TheLaunchersVariablesWinOverAll) {
  const auto around = look(with(k_torchrun, {{"GRADRAIL_LAUNCH_RANK", "1"},
                                             {"GRADRAIL_LAUNCH_RANKS", "2"},
                                             {"GRADRAIL_LAUNCH_ENDPOINT", "127.0.0.1:4000"},
                                             {"GRADRAIL_LAUNCH_REPORT_FD", "5"},
                                             {"GRADRAIL_LAUNCH_SECRET_FD", "6"},
                                             {"PMIX_RANK", "0"},
                                             {"PMIX_NAMESPACE", "x"}}));
  ASSERT_TRUE(around) << around.error().message;
  EXPECT_EQ(around->way, Way::launcher);
  EXPECT_EQ(around->rank, 1);
  EXPECT_EQ(around->host, "127.0.0.1");
  EXPECT_EQ(around->port, 4000);
  EXPECT_EQ(around->secret_fd, 6);
}

TEST(Surroundings, TorchrunsVariables) {
  const auto around = look(k_torchrun);
  ASSERT_TRUE(around) << around.error().message;
  EXPECT_EQ(around->way, Way::torchrun);
  EXPECT_EQ(around->rank, 3);
  EXPECT_EQ(around->ranks, 8);
  EXPECT_EQ(around->host, "10.0.0.1");
  EXPECT_EQ(around->port, 29500);
}

TEST(Surroundings, TorchrunsAgentHoldsThePort) {
  EXPECT_EQ(look(with(k_torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}})).value().port, 29501);
  EXPECT_EQ(look(with(k_torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).value().port, 29500);
  EXPECT_EQ(look(with(k_torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"GRADRAIL_PORT", "1234"}})).value().port,
            1234);
}

TEST(Surroundings, TorchrunUnderSrunIsTorchrun) {
  const Settings pmix = {
      {"PMIX_RANK", "0"}, {"PMIX_NAMESPACE", "slurm.1.0"}, {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}};
  EXPECT_EQ(look(with(with(k_torchrun, pmix), {{"TORCHELASTIC_RUN_ID", "7"}})).value().way, Way::torchrun);
  const auto around = look(with(k_torchrun, pmix));
  if (GRADRAIL_HAVE_PMIX != 0) {
    EXPECT_EQ(around.value().way, Way::pmix);
  } else {
    ASSERT_FALSE(around);
    EXPECT_THAT(around.error().message, HasSubstr("lacks PMIx"));
  }
}

struct Wrong {
  const char* name;
  Settings settings;
  const char* says;
};
class WrongSurroundings : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongSurroundings, AreBadUsage) {
  const auto around = look(GetParam().settings);
  ASSERT_FALSE(around);
  EXPECT_EQ(around.error().code, Code::bad_usage);
  EXPECT_THAT(around.error().message, HasSubstr(GetParam().says));
}
INSTANTIATE_TEST_SUITE_P(
    A, WrongSurroundings,
    ::testing::Values(
        Wrong{"rank_beyond", with(k_torchrun, {{"RANK", "8"}}), "RANK is '8', and must be a number from 0 to 7"},
        Wrong{"rank_text", with(k_torchrun, {{"RANK", "3x"}}), "RANK is '3x'"},
        Wrong{"world_zero", with(k_torchrun, {{"WORLD_SIZE", "0"}}), "WORLD_SIZE is '0'"},
        Wrong{"port", with(k_torchrun, {{"MASTER_PORT", "65536"}}), "MASTER_PORT is '65536'"},
        Wrong{"no_next_port", with(k_torchrun, {{"MASTER_PORT", "65535"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}}),
              "from 1 to 65534"},
        Wrong{"no_address", with(k_torchrun, {{"MASTER_ADDR", ""}}), "MASTER_ADDR is not"},
        Wrong{"half_launched", {{"GRADRAIL_LAUNCH_RANK", "0"}}, "GRADRAIL_LAUNCH_RANKS"},
        Wrong{"mpirun",
              {{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "1"}},
              "4 jobs of one where one job of 4 was meant"},
        Wrong{"srun", {{"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "4"}}, "srun --mpi=pmix"},
        Wrong{"mpich", {{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}}, "PMI and not PMIx"}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(Surroundings, ABatchScriptOfSlurmIsOneProcess) {
  EXPECT_EQ(look({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}, {"SLURM_JOB_ID", "9"}}).value().way, Way::alone);
}

TEST(SharedSecret, IsRequiredAndLongEnough) {
  EXPECT_THAT(read_secret(from({})).error().message, HasSubstr("GRADRAIL_SECRET=$(openssl rand -hex 32)"));
  EXPECT_EQ(read_secret(from({{"GRADRAIL_SECRET", "short"}})).error().code, Code::bad_usage);
  const auto secret = read_secret(from({{"GRADRAIL_SECRET", "0123456789abcdef"}}));
  ASSERT_TRUE(secret);
  EXPECT_EQ(secret->hex(), Secret::from_text("0123456789abcdef").value().hex());
}

TEST(SharedSecret, AFileIsReadOnlyIfNobodyElseCan) {
  const auto path = ::testing::TempDir() + "gradrail-secret-test";
  std::ofstream(path) << "0123456789abcdef\n";
  ::chmod(path.c_str(), 0640);
  const Settings settings = {{"GRADRAIL_SECRET_FILE", path}};
  const auto open_to_all = read_secret(from(settings));
  ::chmod(path.c_str(), 0600);
  const auto closed = read_secret(from(settings));
  std::remove(path.c_str());
  const auto absent = read_secret(from(settings));
  ASSERT_FALSE(open_to_all);
  EXPECT_THAT(open_to_all.error().message, HasSubstr("can be read by others"));
  ASSERT_TRUE(closed) << closed.error().message;
  EXPECT_EQ(closed->hex(), Secret::from_text("0123456789abcdef").value().hex());
  ASSERT_FALSE(absent);
  EXPECT_THAT(absent.error().message, HasSubstr("No such file"));
}

TEST(Reports, ComeBackAsTheyWere) {
  const auto report = decode_report(encode(Report{2, Code::timed_out, 1, "rank 1 is late"}), 4);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->rank, 2);
  EXPECT_EQ(report->code, Code::timed_out);
  EXPECT_EQ(report->peer, 1);
  EXPECT_EQ(report->message, "rank 1 is late");
}

TEST(Reports, AreCutToAPacketAndToOneLine) {
  const auto packet = encode(Report{0, Code::system, -1, "a\nb\033[2J" + std::string(100'000, 'x')});
  EXPECT_LE(packet.size(), k_report_bytes);
  EXPECT_THAT(decode_report(packet, 1).value().message, ::testing::StartsWith("a b [2Jxx"));
}

TEST(Reports, ThatDoNotParseAreDropped) {
  const auto packet = encode(Report{2, Code::timed_out, 1, "rank 1 is late"});
  for (std::size_t size = 0; size < packet.size(); ++size)
    EXPECT_FALSE(decode_report(std::span(packet).first(size), 4));
  EXPECT_FALSE(decode_report(packet, 2)) << "there is no rank 2 of 2";
  auto longer = packet;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decode_report(longer, 4));
  auto unknown = packet;
  unknown[8] = std::byte{200};
  EXPECT_FALSE(decode_report(unknown, 4));
}

using Kind = RankState::Kind;
RankState running() { return {Kind::running, 0, 100, 0}; }
RankState ended(Kind kind, int status, int order) { return {kind, status, 100, order}; }

TEST(TheVerdict, PrefersAKilledRankThenAStoppedOne) {
  const std::vector<Report> reports = {{0, Code::peer_gone, 2, "rank 2 ended"}, {1, Code::malformed, -1, "nonsense"}};
  std::vector<RankState> states = {running(), ended(Kind::killed, 11, 2), ended(Kind::killed, 9, 1),
                                   ended(Kind::stopped, 0, 0)};
  EXPECT_EQ(decide(states, reports).sentence, "rank 2 (pid 100) was killed by signal 9 (SIGKILL), and 1 more after it");
  states[1] = states[2] = running();
  EXPECT_THAT(decide(states, reports).sentence, HasSubstr("rank 3 (pid 100) is stopped"));
}

TEST(TheVerdict, PrefersOwnTroubleToTimeOutsToEchoes) {
  const std::vector<RankState> states(4, ended(Kind::exited, 1, 1));
  std::vector<Report> reports = {{3, Code::poisoned, 1, "failed before"},
                                 {0, Code::peer_gone, 1, "rank 1 ended"},
                                 {2, Code::timed_out, 1, "rank 1 is late"},
                                 {1, Code::exhausted, -1, "out of memory"}};
  EXPECT_EQ(decide(states, reports).sentence, "rank 1 (pid 100): out of memory");
  const std::vector<RankState> all_run(4, running());
  reports.pop_back();
  EXPECT_EQ(decide(all_run, reports).sentence, "rank 2 (pid 100): rank 1 is late");
  reports.pop_back();
  EXPECT_EQ(decide(all_run, reports).sentence, "rank 0 (pid 100): rank 1 ended");
  reports.pop_back();
  EXPECT_EQ(decide(all_run, reports).sentence, "rank 3 (pid 100): failed before");
}

TEST(TheVerdict, FindsTheSilentOneThatOthersComplainOf) {
  const std::vector<Report> reports = {{0, Code::peer_gone, 2, "rank 2 ended"},
                                       {1, Code::system, 2, "sending to rank 2"}};
  std::vector<RankState> states = {ended(Kind::exited, 1, 2), ended(Kind::exited, 1, 3), ended(Kind::exited, 3, 1)};
  EXPECT_EQ(decide(states, reports).sentence, "rank 2 (pid 100) exited with status 3 without saying why");
  states[2].status = 0;
  states[1] = running();
  EXPECT_EQ(decide(states, std::span(reports).first(1)).sentence,
            "rank 2 (pid 100) exited before the others were done");
}

TEST(TheVerdict, BadUsageExitsWithTwo) {
  const std::vector<RankState> silent = {ended(Kind::exited, 2, 1), running()};
  EXPECT_EQ(decide(silent, {}).exit_code, 2);
  const std::vector<RankState> states = {ended(Kind::exited, 1, 1), running()};
  EXPECT_EQ(decide(states, std::vector<Report>{{0, Code::bad_usage, -1, "no such type"}}).exit_code, 2);
  EXPECT_EQ(decide(states, std::vector<Report>{{0, Code::system, -1, "no such file"}}).exit_code, 1);
}

TEST(TheVerdict, AReportThatFollowsFromAnotherRanksTroubleIsNotTheCause) {
  const std::vector<RankState> states(4, running());
  // Rank 0 refused rank 1 and ended, upon which rank 3 was hung up on; it was the first to say so.
  const std::vector<Report> reports = {{3, Code::refused, 0, "rank 0 hung up"},
                                       {0, Code::refused, 1, "rank 1 is another build"},
                                       {1, Code::refused, 0, "rank 0 refused us"}};
  EXPECT_EQ(decide(states, reports).sentence, "rank 0 (pid 100): rank 1 is another build");
  EXPECT_EQ(decide(states, std::span(reports).first(1)).sentence, "rank 3 (pid 100): rank 0 hung up");
}

TEST(TheCapacity, NamesTheLimitAndTheMost) {
  Capacity capacity;
  capacity.cores = 2;
  EXPECT_TRUE(bearable(128, capacity));
  EXPECT_THAT(bearable(129, capacity).error().message, HasSubstr("2 cores for 64 ranks each"));
  EXPECT_EQ(bearable(0, capacity).error().code, Code::bad_usage);
  EXPECT_EQ(bearable(-3, capacity).error().code, Code::bad_usage);
  capacity.descriptors = 100;
  EXPECT_TRUE(bearable(36, capacity));
  EXPECT_THAT(bearable(37, capacity).error().message, HasSubstr("ulimit -n"));
  capacity.processes = 20;
  EXPECT_THAT(bearable(21, capacity).error().message, HasSubstr("ask for at most 20"));
  capacity.free_memory_bytes = 5 * capacity.memory_per_rank_bytes;
  EXPECT_TRUE(bearable(5, capacity));
  EXPECT_THAT(bearable(6, capacity).error().message, HasSubstr("MiB of memory are available"));
}

TEST(TheCapacity, OfThisMachineBearsOneRank) {
  const auto capacity = read_capacity();
  ASSERT_TRUE(capacity);
  EXPECT_TRUE(bearable(1, *capacity)) << bearable(1, *capacity).error().message;
}

}  // namespace
}  // namespace gradrail
