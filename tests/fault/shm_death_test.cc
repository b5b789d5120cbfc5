// The shm transport between real processes: a rank that is killed is named by the others within bounded time, what it
// had sent is still received, and nothing of it stays behind. Strangers at the door do not hold a job up.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "transports/base/fd.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

std::multiset<std::string> open_files() {
  std::multiset<std::string> files;
  DIR* folder = ::opendir("/proc/self/fd");
  const auto self = std::to_string(::dirfd(folder));
  while (const dirent* entry = ::readdir(folder)) {
    char target[256];
    const auto size = ::readlinkat(::dirfd(folder), entry->d_name, target, sizeof target);
    if (size > 0 && entry->d_name != self) files.emplace(target, static_cast<std::size_t>(size));
  }
  ::closedir(folder);
  return files;
}

std::set<std::string> shared_files() {
  std::set<std::string> names;
  if (DIR* folder = ::opendir("/dev/shm")) {
    while (const dirent* entry = ::readdir(folder)) {
      if (std::string_view(entry->d_name).find("gradrail") != std::string_view::npos) names.insert(entry->d_name);
    }
    ::closedir(folder);
  }
  return names;
}

int mappings_of_ours() {
  int count = 0;
  FILE* maps = std::fopen("/proc/self/maps", "r");
  char line[1024];
  while (std::fgets(line, sizeof line, maps) != nullptr) count += std::strstr(line, "memfd:gradrail") != nullptr;
  std::fclose(maps);
  return count;
}

struct Rank {
  std::unique_ptr<Transport> transport;
  std::vector<std::unique_ptr<Endpoint>> endpoints;

  bool until(const std::function<bool()>& done, Seconds limit) const {
    const auto deadline = Deadline::after(limit);
    while (!done()) {
      if (!transport->progress()) transport->wait(Seconds(0));
      if (deadline.passed()) return false;
    }
    return true;
  }
};

// Rank `rank` of two; addresses go through `socket`.
Rank join(int rank, int socket, Attach attach) {
  Settings settings;
  settings.attach = attach;
  settings.rank = rank;
  settings.ranks = 2;
  Rank made{make_transport("shm", settings).value(), {}};
  const auto mine = made.transport->listen().value();
  if (::write(socket, mine.data(), mine.size()) < 0) std::abort();
  Peer peer{.rank = 1 - rank, .lane = 0, .host = "here", .address = Address(512)};
  const auto got = ::read(socket, peer.address.data(), peer.address.size());
  if (got <= 0) std::abort();
  peer.address.resize(static_cast<std::size_t>(got));
  made.endpoints = made.transport->connect({&peer, 1}, Deadline::after(Seconds(20))).value();
  return made;
}

class ShmDeath : public ::testing::Test {
 protected:
  // A child process as rank 1 runs `child`, and then sleeps until it is killed; this process is rank 0.
  void start(const std::function<void(Rank&)>& child, Attach attach = Attach::huge_pages) {
    before_ = open_files();
    int sockets[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
    pid_ = ::fork();
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      ::close(sockets[0]);
      auto self = join(1, sockets[1], attach);
      child(self);
      for (;;) ::pause();
    }
    ::close(sockets[1]);
    self_ = join(0, sockets[0], attach);
    ::close(sockets[0]);
  }

  void kill_child() const {
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the other rank ended before, by itself";
  }

  void expect_named() {
    const auto& endpoint = *self_.endpoints.front();
    ASSERT_NE(endpoint.failure(), nullptr);
    EXPECT_EQ(endpoint.failure()->code, Code::peer_gone);
    EXPECT_EQ(endpoint.failure()->peer, 1);
    EXPECT_THAT(endpoint.failure()->message, ::testing::HasSubstr("rank 1"));
    EXPECT_THAT(endpoint.failure()->message, ::testing::HasSubstr(std::to_string(pid_)));
    EXPECT_THAT(endpoint.failure()->message, ::testing::HasSubstr("here"));
  }

  void expect_nothing_left() {
    self_.endpoints.clear();
    self_.transport.reset();
    EXPECT_EQ(open_files(), before_);
    EXPECT_TRUE(shared_files().empty());
    EXPECT_EQ(mappings_of_ours(), 0);
  }

  Rank self_;
  pid_t pid_ = -1;
  std::multiset<std::string> before_;
};

TEST_F(ShmDeath, AKilledRankIsNamedWhileAReceiveWaits) {
  start([](Rank&) {});
  std::vector<std::byte> memory(1000);
  auto region = self_.transport->register_memory({memory.data(), memory.size()}).value();
  auto& endpoint = *self_.endpoints.front();
  ASSERT_TRUE(endpoint.recv({region.get(), 0, 1000}));
  for (int i = 0; i < 1000; ++i) self_.transport->progress();
  EXPECT_EQ(endpoint.failure(), nullptr);
  kill_child();
  ASSERT_TRUE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(1)));
  expect_named();
  region.reset();
  expect_nothing_left();
}

TEST_F(ShmDeath, AKilledRankIsNamedWhileNothingWaits) {
  start([](Rank&) {});
  kill_child();
  auto& endpoint = *self_.endpoints.front();
  ASSERT_TRUE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(1)));
  expect_named();
  expect_nothing_left();
}

// The child is killed in the middle of a long message that it reads from this process's memory, and the other way.
TEST_F(ShmDeath, AKilledRankIsNamedWhileBytesMove) {
  for (const bool direct : {true, false}) {
    constexpr std::size_t k_bytes = 8 << 20;
    start([&](Rank& rank) {
      auto region = rank.transport->allocate(2 * k_bytes).value();
      auto& endpoint = *rank.endpoints.front();
      for (;;) {
        if (endpoint.failure() != nullptr) ::_exit(1);
        static_cast<void>(endpoint.send({region.get(), 0, k_bytes}));
        static_cast<void>(endpoint.recv({region.get(), k_bytes, k_bytes}));
        rank.transport->progress();
      }
    });
    std::vector<std::byte> memory(2 * k_bytes);
    auto region = direct ? self_.transport->allocate(2 * k_bytes).value()
                         : self_.transport->register_memory({memory.data(), memory.size()}).value();
    auto& endpoint = *self_.endpoints.front();
    const auto traffic = [&] {
      static_cast<void>(endpoint.send({region.get(), 0, k_bytes}));
      static_cast<void>(endpoint.recv({region.get(), k_bytes, k_bytes}));
    };
    ASSERT_TRUE(self_.until(
        [&] {
          traffic();
          return endpoint.recvs_done() >= 3 && endpoint.sends_done() >= 3;
        },
        Seconds(20)));
    kill_child();
    ASSERT_TRUE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(5)));
    expect_named();
    region.reset();
    expect_nothing_left();
  }
}

TEST_F(ShmDeath, WhatADeadRankHadSentIsStillReceived) {
  int done[2];
  ASSERT_EQ(::pipe(done), 0);
  start([&](Rank& rank) {
    std::vector<std::byte> memory(20'000, std::byte{9});
    auto region = rank.transport->register_memory({memory.data(), memory.size()}).value();
    auto& endpoint = *rank.endpoints.front();
    for (const std::size_t bytes : {8, 20'000, 0, 56})
      if (!endpoint.send({region.get(), 0, bytes})) ::_exit(1);
    rank.until([&] { return endpoint.sends_done() == 4; }, Seconds(10));
    if (::write(done[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  });
  char x = 0;
  ASSERT_EQ(::read(done[0], &x, 1), 1);
  kill_child();
  std::vector<std::byte> memory(20'000);
  auto region = self_.transport->register_memory({memory.data(), memory.size()}).value();
  auto& endpoint = *self_.endpoints.front();
  // Idle for long enough to have seen the end of the life line.
  EXPECT_FALSE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(0.05)));
  for (const std::size_t bytes : {8, 20'000, 0, 56}) ASSERT_TRUE(endpoint.recv({region.get(), 0, bytes}));
  ASSERT_TRUE(self_.until([&] { return endpoint.recvs_done() == 4; }, Seconds(5)));
  EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](auto b) { return b == std::byte{9}; }));
  ASSERT_TRUE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(1)));
  expect_named();
  ::close(done[0]);
  ::close(done[1]);
}

// A message that was to be read in the memory of a rank that is no more, and one that such a rank was reading in ours.
TEST_F(ShmDeath, AKilledRankIsNamedWhereItsMemoryWasToBeRead) {
  constexpr std::size_t k_bytes = 4 << 20;
  for (const bool in_place : {true, false}) {
    start(
        [](Rank& rank) {
          std::vector<std::byte> memory(k_bytes);
          auto region = rank.transport->register_memory({memory.data(), memory.size()}).value();
          auto& endpoint = *rank.endpoints.front();
          if (!endpoint.send({region.get(), 0, k_bytes}) || !endpoint.send({region.get(), 0, 1})) ::_exit(1);
          rank.until([&] { return endpoint.failure() != nullptr; }, Seconds(30));
          ::_exit(1);
        },
        Attach::always);
    auto& endpoint = *self_.endpoints.front();
    const bool refused = endpoint.attached_from() == SIZE_MAX;
    std::vector<std::byte> memory(k_bytes);
    auto region = self_.transport->register_memory({memory.data(), memory.size()}).value();
    ASSERT_TRUE(endpoint.send({region.get(), 0, k_bytes}));
    EXPECT_FALSE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(0.05)));
    kill_child();
    ASSERT_TRUE(in_place ? endpoint.recv_in_place(k_bytes) : endpoint.recv({region.get(), 0, k_bytes}));
    ASSERT_TRUE(self_.until(
        [&] { return endpoint.failure() != nullptr || (in_place && !endpoint.readable().empty() && refused); },
        Seconds(5)));
    if (refused) {
      region.reset();
      self_ = {};
      GTEST_SKIP() << "this system does not let processes read each other's memory";
    }
    expect_named();
    region.reset();
    expect_nothing_left();
  }
}

// A message that was to be written into the memory of a rank that is no more.
TEST_F(ShmDeath, AKilledRankIsNamedWhereItsMemoryWasToBeWritten) {
  constexpr std::size_t k_bytes = 4 << 20;
  start(
      [](Rank& rank) {
        std::vector<std::byte> memory(k_bytes);
        auto region = rank.transport->register_memory({memory.data(), memory.size()}).value();
        auto& endpoint = *rank.endpoints.front();
        if (!endpoint.recv({region.get(), 0, k_bytes}) || !endpoint.send({region.get(), 0, 1})) ::_exit(1);
        for (;;) ::pause();
      },
      Attach::always);
  auto& endpoint = *self_.endpoints.front();
  std::vector<std::byte> memory(k_bytes);
  auto region = self_.transport->register_memory({memory.data(), memory.size()}).value();
  ASSERT_TRUE(endpoint.recv({region.get(), 0, 1}));
  ASSERT_TRUE(self_.until([&] { return endpoint.recvs_done() == 1; }, Seconds(20)));
  kill_child();
  ASSERT_TRUE(endpoint.send({region.get(), 0, k_bytes}));
  ASSERT_TRUE(self_.until([&] { return endpoint.failure() != nullptr; }, Seconds(5)));
  expect_named();
  region.reset();
  expect_nothing_left();
}

TEST_F(ShmDeath, AStoppedRankIsNotTakenForDead) {
  start([](Rank& rank) {
    std::vector<std::byte> memory(8, std::byte{3});
    auto region = rank.transport->register_memory({memory.data(), memory.size()}).value();
    ::raise(SIGSTOP);
    static_cast<void>(rank.endpoints.front()->send({region.get(), 0, 8}));
    for (;;) ::pause();
  });
  ::waitpid(pid_, nullptr, WUNTRACED);
  std::vector<std::byte> memory(8);
  auto region = self_.transport->register_memory({memory.data(), memory.size()}).value();
  auto& endpoint = *self_.endpoints.front();
  ASSERT_TRUE(endpoint.recv({region.get(), 0, 8}));
  EXPECT_FALSE(self_.until([&] { return endpoint.failure() != nullptr || endpoint.recvs_done() > 0; }, Seconds(0.1)));
  ::kill(pid_, SIGCONT);
  EXPECT_TRUE(self_.until([&] { return endpoint.recvs_done() == 1; }, Seconds(10)));
  kill_child();
}

// Two ranks of this process that listen and have not met yet, each with what it takes for the job's secret.
struct TwoRanks {
  explicit TwoRanks(const std::array<std::string, 2>& secrets) {
    for (const int rank : {0, 1}) {
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      settings.secret = Secret::from_text(secrets[rank]).value();
      transports[rank] = make_transport("shm", settings).value();
      addresses[rank] = transports[rank]->listen().value();
    }
  }
  // Of that rank to the other.
  Result<std::vector<std::unique_ptr<Endpoint>>> connect(int rank, Seconds limit) {
    const Peer peer{.rank = 1 - rank, .lane = 0, .host = "here", .address = addresses[1 - rank]};
    return transports[rank]->connect({&peer, 1}, Deadline::after(limit));
  }

  std::unique_ptr<Transport> transports[2];
  Address addresses[2];
};

// Whoever finds the socket without knowing the secret: silent, talkative, or gone at once.
TEST(ShmStrangers, AreDroppedAndTheJobGoesOn) {
  TwoRanks two({"a secret of some length", "a secret of some length"});
  ByteReader reader(two.addresses[1]);
  EXPECT_EQ(reader.get_string(), "shm");
  static_cast<void>(reader.get_string());
  const auto name = reader.get_string();
  ASSERT_TRUE(reader.ok());
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  std::vector<Fd> strangers;
  const std::string garbage(100'000, '\xff');
  for (int i = 0; i < 50; ++i) {
    Fd stranger(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(stranger.get(), reinterpret_cast<const sockaddr*>(&to), size), 0);
    if (i % 3 == 1) static_cast<void>(::send(stranger.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL));
    if (i % 3 != 2) strangers.push_back(std::move(stranger));
  }
  Result<std::vector<std::unique_ptr<Endpoint>>> met[2];
  std::thread other([&] { met[1] = two.connect(1, Seconds(20)); });
  met[0] = two.connect(0, Seconds(20));
  other.join();
  for (const auto& one : met) {
    ASSERT_TRUE(one) << one.error().message;
    EXPECT_EQ(one->size(), 1U);
  }
}

TEST(ShmStrangers, ARankWithAnotherSecretIsRefused) {
  TwoRanks two({"a secret of some length", "another secret, as long"});
  Result<std::vector<std::unique_ptr<Endpoint>>> met[2];
  std::thread other([&] { met[1] = two.connect(1, Seconds(1)); });
  met[0] = two.connect(0, Seconds(10));
  other.join();
  ASSERT_FALSE(met[1]);
  EXPECT_EQ(met[1].error().code, Code::timed_out);
  EXPECT_EQ(met[1].error().peer, 0);
  ASSERT_FALSE(met[0]);
  EXPECT_EQ(met[0].error().code, Code::refused);
  EXPECT_EQ(met[0].error().peer, 1);
}

TEST(ShmHosts, ARankOfAnotherHostIsRefusedWithAdvice) {
  Settings settings;
  settings.ranks = 2;
  auto transport = make_transport("shm", settings).value();
  ASSERT_TRUE(transport->listen());
  ByteWriter address;
  address.put_string("shm");
  address.put_string("11111111-2222-3333-4444-555555555555/4026531833");
  address.put_string("gradrail-00");
  const Peer peer{.rank = 1, .lane = 0, .host = "far", .address = std::move(address).take()};
  const auto made = transport->connect({&peer, 1}, Deadline::after(Seconds(1)));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::unsupported);
  EXPECT_THAT(made.error().message, ::testing::AllOf(::testing::HasSubstr("rank 1"), ::testing::HasSubstr("far"),
                                                     ::testing::HasSubstr("tcp")));
}

TEST(ShmSettings, ImpossibleRingsAreRefused) {
  for (const std::size_t bytes : {std::size_t(1), std::size_t(4096), std::size_t(100'000), std::size_t(1) << 33}) {
    Settings settings;
    settings.ring_bytes = bytes;
    const auto made = make_transport("shm", settings);
    ASSERT_FALSE(made) << bytes;
    EXPECT_EQ(made.error().code, Code::bad_usage);
  }
}

}  // namespace
}  // namespace gradrail
