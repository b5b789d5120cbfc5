// Ranks as processes, in a loop of allreduces; one is killed in the middle of it. The others are told, by name,
// within their deadline. CTest runs those over ucx once more over RDMA (rc_verbs), as soft_roce.ucx.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <tuple>

#include "collectives/exec/communicator.h"
#include "transports/secret.h"

namespace gradrail {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr int k_ranks = 4;
constexpr int k_victim = 2;
constexpr Seconds k_deadline{5};

// What the processes of a test see of each other.
struct Shared {
  struct Rank {
    std::atomic<std::uint32_t> address_bytes{0};
    std::byte address[4096];
    std::atomic<int> calls{0};
    std::atomic<bool> told{false};
    Code code{};
    int peer = -1;
    char message[512]{};
  };
  std::array<Rank, k_ranks> ranks;
};

bool until(const std::function<bool()>& done, Seconds limit) {
  const auto deadline = Deadline::after(limit);
  while (!done()) {
    if (deadline.passed()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

Result<void> loop(Shared& shared, int rank, const std::string& transport, const std::string& algorithm,
                  std::size_t bytes) {
  Shared::Rank& me = shared.ranks[static_cast<std::size_t>(rank)];
  std::vector<Member> members;
  for (int r = 0; r < k_ranks; ++r) members.push_back({r, "here", "127.0.0.1", 1000 + r});
  CommunicatorOptions options;
  options.inner = options.outer = transport;
  GRADRAIL_ASSIGN(options.settings.secret, Secret::from_text("known to the ranks of this test"));
  GRADRAIL_ASSIGN(auto communicator, Communicator::open(options, members, rank));
  const Bytes& address = communicator->address();
  if (address.size() > sizeof me.address) return fail(Code::exhausted, "an address is too long for this test");
  std::memcpy(me.address, address.data(), address.size());
  me.address_bytes = static_cast<std::uint32_t>(address.size());
  std::vector<Bytes> addresses;
  for (auto& other : shared.ranks) {
    if (!until([&] { return other.address_bytes > 0; }, Seconds(20))) return fail(Code::timed_out, "no address");
    addresses.emplace_back(other.address, other.address + other.address_bytes);
  }
  GRADRAIL_TRY(communicator->meet(addresses));
  // two_shot stages what is in plain memory.
  std::vector<std::byte> plain(algorithm == "two_shot" ? bytes : 0);
  GRADRAIL_ASSIGN(const Memory memory, plain.empty() ? communicator->allocate(bytes) : communicator->adopt(plain));
  Call call;
  call.in = call.out = {&memory, 0};
  call.in_place = true;
  call.count = bytes / sizeof(float);
  call.algorithm = algorithm;
  while (true) {
    const auto ran = communicator->run(call, Deadline::after(k_deadline));
    if (!ran) {
      me.code = ran.error().code;
      me.peer = ran.error().peer;
      std::strncpy(me.message, ran.error().message.c_str(), sizeof me.message - 1);
      me.told = true;
      // Stays until all others have been told, so that they hear of the victim and not of this one.
      (void)until(
          [&] {
            return std::all_of(shared.ranks.begin(), shared.ranks.end(),
                               [&](const auto& other) { return &other == &shared.ranks[k_victim] || other.told; });
          },
          Seconds(20));
      return {};
    }
    ++me.calls;
  }
}

class CollectiveDeath : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    for (const auto& kind : transport_kinds())
      if (kind.name == std::get<0>(GetParam()))
        if (const auto there = kind.available(); !there) GTEST_SKIP() << there.error().message;
  }
};

TEST_P(CollectiveDeath, AKilledRankIsNamedInTheMiddleOfACall) {
  const auto& [transport, algorithm] = GetParam();
  // The short ones may be shown on a board; software RoCE is slow.
  const bool lab = std::getenv("SOFT_ROCE") != nullptr;
  const std::size_t bytes = algorithm == "one_shot" ? 1000 : lab ? 512 << 10 : 16 << 20;
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& shared = *new (memory) Shared;
  std::array<pid_t, k_ranks> pids{};
  for (int rank = 0; rank < k_ranks; ++rank) {
    pids[static_cast<std::size_t>(rank)] = ::fork();
    if (pids[static_cast<std::size_t>(rank)] != 0) continue;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::alarm(60);
    const auto done = loop(shared, rank, transport, algorithm, bytes);
    if (!done) std::fprintf(stderr, "rank %d: %s\n", rank, done.error().message.c_str());
    ::_exit(done ? 0 : 1);
  }
  EXPECT_TRUE(until([&] { return shared.ranks[k_victim].calls >= 3; }, Seconds(30))) << "the loop does not run";
  std::this_thread::sleep_for(std::chrono::milliseconds(3));  // into a call
  ::kill(pids[k_victim], SIGKILL);
  const auto all_told = [&] {
    for (std::size_t rank = 0; rank < k_ranks; ++rank)
      if (rank != k_victim && !shared.ranks[rank].told) return false;
    return true;
  };
  EXPECT_TRUE(until(all_told, k_deadline + Seconds(10)));
  int named = 0;
  for (std::size_t rank = 0; rank < k_ranks; ++rank) {
    if (rank == k_victim || !shared.ranks[rank].told) continue;
    const Shared::Rank& one = shared.ranks[rank];
    EXPECT_THAT(one.code, AnyOf(Code::peer_gone, Code::timed_out)) << one.message;
    ASSERT_GE(one.peer, 0) << one.message;
    EXPECT_THAT(std::string(one.message), HasSubstr("rank " + std::to_string(one.peer)));
    if (one.code == Code::peer_gone) {
      EXPECT_EQ(one.peer, k_victim) << one.message;
      ++named;
    } else if (std::string(one.message).find(fmt::format("rank {} ", k_victim)) != std::string::npos) {
      ++named;  // it had all from the victim, and waited for one that had not
    }
  }
  // In a ring only its two neighbours have a link to it; the third rank waits for one of them.
  EXPECT_GE(named, algorithm == "ring" ? 2 : 3);
  for (const pid_t pid : pids) {
    if (!all_told()) ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (all_told() && pid != pids[k_victim]) {
      EXPECT_EQ(status, 0) << "a rank that was told of the death failed by itself";
    }
  }
  ::munmap(memory, sizeof(Shared));
}

INSTANTIATE_TEST_SUITE_P(Over, CollectiveDeath,
                         testing::Combine(testing::Values("shm", "tcp", "ucx"),
                                          testing::Values("ring", "two_shot", "one_shot")),
                         [](const auto& instance) {
                           return std::get<0>(instance.param) + "_" + std::get<1>(instance.param);
                         });

}  // namespace
}  // namespace gradrail
