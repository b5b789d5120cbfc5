// verbs over a wire that is broken in every way: packets late and lost, links down, ranks killed. Needs RDMA devices
// that may be harmed, so it runs only inside the virtual machine of scripts/soft-roce (devices rxeN on vN), which CTest
// starts as soft_roce.faults.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/contract/ranks.h"
#include "tests/fault/other_process.h"

namespace gradrail {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Retries end after about 0.23 s (7 tries of 4.096 us * 2^13), where they are to end; else an emulated machine on a
// busy host gets more time.
const std::string k_impatient = "timeout=13";
const std::string k_patient = "timeout=16";

void shell(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

// The kernel gives what it read up to 10 ms ago (hw_counters/lifespan).
std::uint64_t counter(int device, const std::string& name) {
  std::this_thread::sleep_for(std::chrono::milliseconds(15));
  std::ifstream file(fmt::format("/sys/class/infiniband/rxe{}/ports/1/hw_counters/{}", device, name));
  std::uint64_t value = 0;
  EXPECT_TRUE(file >> value) << name;
  return value;
}

Settings settings_for(int rank, const std::string& options) {
  Settings settings;
  settings.rank = rank;
  settings.ranks = 2;
  settings.secret = Secret::from_text("known to the ranks of this job").value();
  settings.verbs = options;
  return settings;
}

// Rank 1 has the devices behind rank 0's.
class OtherProcess : public gradrail::OtherProcess {
 public:
  explicit OtherProcess(const std::function<void(Rank&)>& life, const std::string& options = k_patient)
      : gradrail::OtherProcess([&](int rank) { return Rank("verbs", settings_for(rank, options)); }, life) {}
};

void expect_refused(const std::string& device, const testing::Matcher<const std::string&>& message) {
  const auto refused = make_transport("verbs", settings_for(0, "device=" + device));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unavailable);
  EXPECT_THAT(refused.error().message, message);
}

class VerbsLab : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SOFT_ROCE") == nullptr) GTEST_SKIP() << "breaks RDMA devices; runs inside scripts/soft-roce only";
  }
};

TEST_F(VerbsLab, BytesUseTheWireAndNoReceiveQueueRanEmpty) {
  constexpr std::size_t k_bytes = 1 << 20;
  OtherProcess other([](Rank& rank) { EXPECT_TRUE(rank.exchange(k_bytes, 2)); });
  const auto sent = counter(1, "sent_pkts");
  const auto received = counter(2, "rcvd_pkts");
  ASSERT_TRUE(other.here->exchange(k_bytes, 2));
  EXPECT_GE(counter(1, "sent_pkts") - sent, 2 * k_bytes / 4096);
  EXPECT_GE(counter(2, "rcvd_pkts") - received, 2 * k_bytes / 4096);
  EXPECT_EQ(other.here->pipe->traffic()[std::size_t(Path::zero_copy)], 2 * k_bytes);
  for (const int device : {1, 2})
    for (const char* name : {"send_rnr_err", "rcvd_rnr_err"}) EXPECT_EQ(counter(device, name), 0U) << name;
}

TEST_F(VerbsLab, LateAndLostPacketsCostTimeOnly) {
  for (const int device : {1, 2})
    shell(fmt::format("tc qdisc replace dev v{} root netem delay 300us loss 1% limit 10000", device));
  const auto retries = [] {
    std::uint64_t sum = 0;
    for (const int device : {1, 2})
      for (const char* name : {"duplicate_request", "out_of_seq_request", "completer_retry_err", "rcvd_seq_err"})
        sum += counter(device, name);
    return sum;
  };
  const auto before = retries();
  const auto talk = [](Rank& rank) {
    bool fine = true;
    for (const std::size_t bytes : {1, 600, 5000, 50'000, 300'000}) fine = fine && rank.exchange(bytes, 10);
    return fine;
  };
  {
    OtherProcess other([&](Rank& rank) { EXPECT_TRUE(talk(rank)); });
    EXPECT_TRUE(talk(*other.here)) << (other.here->pipe->failure() ? other.here->pipe->failure()->message : "");
  }
  EXPECT_GT(retries(), before) << "nothing was lost, so nothing was tested";
  for (const int device : {1, 2}) shell(fmt::format("tc qdisc del dev v{} root", device));
}

TEST_F(VerbsLab, AKilledRankIsNamedDuringTraffic) {
  for (const bool stays_quiet : {false, true}) {
    OtherProcess other([&](Rank& rank) {
      EXPECT_TRUE(rank.exchange(1000, 5));
      if (stays_quiet) sleep_long();
      static_cast<void>(rank.exchange(200'000, 1'000'000));
    });
    ASSERT_TRUE(other.here->exchange(1000, 5));
    if (stays_quiet) {
      ASSERT_TRUE(other.here->pipe->recv(other.here->memory(300'000)));
      other.signal(SIGKILL);
    } else {
      ASSERT_TRUE(other.here->exchange(200'000, 3));
      std::thread killer([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        other.signal(SIGKILL);
      });
      EXPECT_FALSE(other.here->exchange(200'000, 1'000'000));
      killer.join();
    }
    other.here->drive_until_failure();
    const Error* error = other.here->pipe->failure();
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->code, Code::peer_gone);
    EXPECT_EQ(error->peer, 1);
    EXPECT_THAT(error->message, HasSubstr("rank 1 on host-b"));
  }
}

TEST_F(VerbsLab, RetriesThatRunOutAreReportedWithTheirCause) {
  OtherProcess other(
      [](Rank& rank) {
        EXPECT_TRUE(rank.exchange(1000, 5));
        sleep_long();
      },
      k_impatient);
  ASSERT_TRUE(other.here->exchange(1000, 5));
  shell("tc qdisc replace dev v1 root netem loss 100%");
  ASSERT_TRUE(other.here->pipe->send(other.here->memory(4000)));
  const auto began = Clock::now();
  other.here->drive_until_failure();
  const Seconds took = Clock::now() - began;
  shell("tc qdisc del dev v1 root");
  const Error* error = other.here->pipe->failure();
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->code, Code::peer_gone);
  EXPECT_EQ(error->peer, 1);
  EXPECT_THAT(error->message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("rxe1 port 1"),
                                    HasSubstr("no packet was acknowledged in 7 tries"), HasSubstr("retry exceeded")));
  EXPECT_LT(took, Seconds(10)) << "long before the deadline of " << soon().left().count() << " s";
  EXPECT_FALSE(other.here->pipe->send(other.here->memory(8)));
}

// Rank 0 has rxe1 and rxe2, rank 1 the others.
TEST_F(VerbsLab, LongMessagesUseAllRailsAndShortOnesTheFirst) {
  constexpr std::size_t k_bytes = 1 << 20;
  OtherProcess other(
      [](Rank& rank) {
        EXPECT_TRUE(rank.exchange(k_bytes, 2));
        EXPECT_TRUE(rank.exchange(5000, 5));
      },
      "rails=2," + k_patient);
  const auto packets = [] {
    return std::array{counter(1, "sent_pkts"), counter(2, "sent_pkts"), counter(3, "rcvd_pkts"),
                      counter(4, "rcvd_pkts")};
  };
  auto before = packets();
  ASSERT_TRUE(other.here->exchange(k_bytes, 2));
  auto after = packets();
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_GE(after[i] - before[i], k_bytes / 4096) << i;
  before = after;
  ASSERT_TRUE(other.here->exchange(5000, 5));
  after = packets();
  EXPECT_GE(after[0] - before[0], 10U);
  EXPECT_LE(after[1] - before[1], 5U) << "short messages take the first rail alone";
}

TEST_F(VerbsLab, ARailThatFailsEndsThePipeAndIsNamed) {
  constexpr std::size_t k_bytes = 300'000;
  OtherProcess other(
      [](Rank& rank) {
        EXPECT_TRUE(rank.exchange(k_bytes, 2));
        if (rank.pipe->recv(rank.memory(k_bytes))) sleep_long();
      },
      "rails=2," + k_impatient);
  ASSERT_TRUE(other.here->exchange(k_bytes, 2));
  shell("tc qdisc replace dev v2 root netem loss 100%");
  ASSERT_TRUE(other.here->pipe->send(other.here->memory(k_bytes)));
  other.here->drive_until_failure();
  shell("tc qdisc del dev v2 root");
  const Error* error = other.here->pipe->failure();
  ASSERT_NE(error, nullptr);
  EXPECT_THAT(error->message,
              AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("rxe2 port 1"), HasSubstr("no packet was acknowledged")));
}

TEST_F(VerbsLab, RanksThatRdmaCmConnectedNoticeAKilledOne) {
  OtherProcess other(
      [](Rank& rank) {
        EXPECT_TRUE(rank.exchange(100'000, 3));
        sleep_long();
      },
      "connect=cm,srq=1," + k_patient);
  ASSERT_TRUE(other.here->exchange(100'000, 3));
  ASSERT_TRUE(other.here->pipe->recv(other.here->memory(8)));
  other.signal(SIGKILL);
  other.here->drive_until_failure();
  const Error* error = other.here->pipe->failure();
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->code, Code::peer_gone);
  EXPECT_THAT(error->message, HasSubstr("rank 1 on host-b is gone"));
}

TEST_F(VerbsLab, AnIwarpDeviceIsRefusedWithWhatItLacks) {
  if (!std::filesystem::exists("/sys/class/infiniband/siw1"))
    GTEST_SKIP() << "no iWARP device here; scripts/soft-roce --siw has some";
  expect_refused("siw1", AllOf(HasSubstr("siw1 is an iWARP device: it has no RDMA write with immediate"),
                               HasSubstr("use --transport tcp")));
  const auto another = make_transport("verbs", settings_for(0, ""));
  ASSERT_TRUE(another) << another.error().message;
  EXPECT_THAT((*another)->describe(), HasSubstr("rxe")) << "it is passed over where others are";
}

// Four ranks on four devices, and all of the collectives' ways, while packets are lost.
TEST_F(VerbsLab, CollectivesAreRightOverALossyWire) {
  for (const int device : {1, 2, 3, 4}) shell(fmt::format("tc qdisc replace dev v{} root netem loss 0.5%", device));
  {
    Ranks ranks(4, "verbs", "", 0, 1, [](int, CommunicatorOptions& options) { options.settings.verbs = k_patient; });
    ASSERT_FALSE(HasFailure());
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      for (const char* algorithm : {"ring", "recursive_doubling", "tree", "two_shot"}) {
        for (const std::size_t count : {5, 3000, 50'000}) {
          std::vector<std::int32_t> data(count, communicator.rank() + 1);
          GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(data))));
          Call call;
          call.in = call.out = {&memory, 0};
          call.in_place = true;
          call.count = count;
          call.type = Type::i32;
          call.algorithm = algorithm;
          GRADRAIL_TRY(communicator.run(call, soon()));
          for (const auto value : data)
            if (value != 10) return fail(Code::malformed, fmt::format("{}: a sum is wrong", algorithm));
          GRADRAIL_TRY(communicator.barrier(soon()));
        }
      }
      return {};
    });
  }
  for (const int device : {1, 2, 3, 4}) shell(fmt::format("tc qdisc del dev v{} root", device));
}

// Four ranks on four devices: every algorithm of the allreduce, with messages that go in line, through the ring, and
// straight from memory to memory.
TEST_F(VerbsLab, EveryAllreduceIsRightOnDevicesOfTheirOwn) {
  constexpr int k_ranks = 4;
  Ranks ranks(k_ranks, "verbs", "", 0, 1,
              [](int, CommunicatorOptions& options) { options.settings.verbs = k_patient; });
  ASSERT_FALSE(HasFailure());
  for (int rank = 0; rank < k_ranks; ++rank)
    EXPECT_THAT(ranks[rank].describe_transports(),
                testing::ElementsAre(HasSubstr(fmt::format("rxe{} port", rank + 1))));
  int ran = 0;
  for (const Planner* planner : planners()) {
    if (planner->collective != Collective::allreduce) continue;
    if (!planner->supports({planner->collective, k_ranks, ranks[0].ranks_per_host(), 0, true, 1, 1, {}, {}})) continue;
    ++ran;
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      for (const std::size_t count : {1, 37, 1000, 60'001}) {
        std::vector<std::int32_t> data(count);
        for (std::size_t i = 0; i < count; ++i) data[i] = static_cast<std::int32_t>(i) * (communicator.rank() + 1);
        GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(data))));
        Call call;
        call.in = call.out = {&memory, 0};
        call.in_place = true;
        call.count = count;
        call.type = Type::i32;
        call.algorithm = planner->name;
        GRADRAIL_TRY(communicator.run(call, soon()));
        for (std::size_t i = 0; i < count; ++i)
          if (data[i] != static_cast<std::int32_t>(i) * 10)
            return fail(Code::malformed, fmt::format("{}, {} elements: element {} is wrong", planner->name, count, i));
        GRADRAIL_TRY(communicator.barrier(soon()));
      }
      return {};
    });
  }
  EXPECT_GE(ran, 5);
}

// The last one, as the routes of the link go with it.
TEST_F(VerbsLab, ZALinkThatIsTakenDownIsNamedAndThenRefused) {
  OtherProcess other(
      [](Rank& rank) {
        EXPECT_TRUE(rank.exchange(1000, 5));
        sleep_long();
      },
      k_impatient);
  ASSERT_TRUE(other.here->exchange(1000, 5));
  shell("ip link set v1 down");
  ASSERT_TRUE(other.here->pipe->send(other.here->memory(4000)));
  other.here->drive_until_failure();
  const Error* error = other.here->pipe->failure();
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->peer, 1);
  EXPECT_THAT(error->message,
              AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("rxe1 port 1"), HasSubstr("the port went down")));
  expect_refused("rxe1", HasSubstr("rxe1 port 1 is down"));
}

}  // namespace
}  // namespace gradrail
