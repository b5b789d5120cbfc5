// The contract of transports/transport.h, on every transport that list.cc names. One thread drives both ranks, so a
// test is the same run each time on transports that are deterministic.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <filesystem>
#include <thread>

#include "tests/contract/allocations.h"
#include "tests/contract/transport_job.h"

namespace gradrail {
namespace {

using testing::allocations;
using testing::fill;
using testing::first_wrong;
using testing::Job;
using testing::JobOptions;
using testing::Memory;
using Kind = Memory::Kind;

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& kind : transport_kinds()) all.emplace_back(kind.name);
  return all;
}

// Which transports cannot run on the machines that these tests are meant for: those that need a device which the kernel
// does not know here. scripts/soft-roce runs this suite where it knows some.
// What was not built is skipped, and expected to be: the configure summary said so.
TEST(TransportList, NothingIsSkippedUnexpectedly) {
  const auto ibv_devices = [] {
    std::error_code error;
    const std::filesystem::directory_iterator found("/sys/class/infiniband", error);
    return error ? 0 : std::distance(found, std::filesystem::directory_iterator());
  };
  const std::string absent = std::string(",") + GRADRAIL_ABSENT_TRANSPORTS + ",";
  std::vector<std::string> skipped;
  for (const auto& kind : transport_kinds()) {
    if (absent.find(fmt::format(",{},", kind.name)) != std::string::npos) {
      EXPECT_FALSE(kind.available()) << kind.name;
      continue;
    }
    if (kind.name == "verbs" && ibv_devices() == 0) {
      EXPECT_FALSE(kind.available());
      continue;
    }
    if (const auto there = kind.available(); !there)
      skipped.push_back(std::string(kind.name) + ": " + there.error().message);
  }
  EXPECT_THAT(skipped, ::testing::IsEmpty());
  EXPECT_THAT(names(), ::testing::IsSupersetOf({"shm", "tcp", "local"}));
}

TEST(TransportList, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto made = make_transport("pigeon", {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::bad_usage);
  EXPECT_THAT(made.error().message, ::testing::HasSubstr("shm"));
}

class TransportContract : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const auto& kind : transport_kinds()) {
      if (kind.name != GetParam()) continue;
      if (const auto there = kind.available(); !there) GTEST_SKIP() << there.error().message;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(All, TransportContract, ::testing::ValuesIn(names()), [](const auto& of) { return of.param; });

// Reads what is readable of an in-place receive into `to`, in bites of at most `bite` bytes (a multiple of 64).
void read_some(Endpoint& endpoint, std::span<std::byte> to, std::size_t& have, std::size_t bite) {
  for (;;) {
    const auto part = endpoint.readable();
    if (part.empty()) return;
    ASSERT_LE(part.size(), to.size() - have);
    ASSERT_TRUE(part.size() % 64 == 0 || have + part.size() == to.size()) << "a part that ends off a multiple of 64";
    const std::size_t now = std::min(part.size(), bite);
    std::memcpy(to.data() + have, part.data(), now);
    have += now;
    endpoint.consume(now);
  }
}

void write_some(Endpoint& endpoint, std::span<const std::byte> from, std::size_t& done, std::size_t bite) {
  while (done < from.size()) {
    const auto room = endpoint.writable();
    if (room.empty()) return;
    ASSERT_LE(room.size(), from.size() - done);
    ASSERT_TRUE(room.size() % 64 == 0 || done + room.size() == from.size()) << "a part that ends off a multiple of 64";
    const std::size_t now = std::min(room.size(), bite);
    std::memcpy(room.data(), from.data() + done, now);
    endpoint.commit(now);
    done += now;
  }
}

enum class Source { plain, direct, in_place };
enum class Destination { plain, direct, in_place };

// One message from rank 0 to rank 1; receive_first says which side posts first.
void one_message(Job& job, std::size_t bytes, Source source, Destination destination, bool receive_first,
                 std::uint64_t seed, std::size_t bite) {
  SCOPED_TRACE(::testing::Message() << bytes << " bytes, source " << int(source) << ", destination " << int(destination)
                                    << (receive_first ? ", receive first" : ", send first"));
  auto& from = job.endpoint(0, 1);
  auto& to = job.endpoint(1, 0);
  const auto sends = from.sends_done();
  const auto recvs = to.recvs_done();
  const auto before = from.traffic();
  // An offset, so that neither side is aligned by luck.
  const std::size_t offset = 24;
  Memory out(job.transport(0), source == Source::direct ? Kind::direct : Kind::plain, bytes + offset);
  Memory in(job.transport(1), destination == Destination::direct ? Kind::direct : Kind::plain, bytes + 2 * offset);
  const auto payload = out.bytes().subspan(offset);
  fill(payload, seed);
  std::fill(in.bytes().begin(), in.bytes().end(), std::byte{0x5a});
  const auto landing = in.bytes().subspan(offset, bytes);

  const auto post_send = [&] {
    const auto posted = source == Source::in_place ? from.send_in_place(bytes) : from.send(out.slice(offset, bytes));
    ASSERT_TRUE(posted) << posted.error().message;
  };
  const auto post_recv = [&] {
    const auto posted =
        destination == Destination::in_place ? to.recv_in_place(bytes) : to.recv(in.slice(offset, bytes));
    ASSERT_TRUE(posted) << posted.error().message;
  };
  if (receive_first) {
    post_recv();
    post_send();
  } else {
    post_send();
    for (int i = 0; i < 10; ++i) job.progress();
    EXPECT_EQ(to.recvs_done(), recvs);
    post_recv();
  }
  std::size_t written = 0;
  std::size_t read = 0;
  ASSERT_TRUE(job.drive([&] {
    if (source == Source::in_place) write_some(from, payload, written, bite);
    if (destination == Destination::in_place) read_some(to, landing, read, bite);
    return (from.sends_done() > sends && to.recvs_done() > recvs) || from.failure() != nullptr ||
           to.failure() != nullptr || ::testing::Test::HasFatalFailure();
  }));
  ASSERT_EQ(from.failure(), nullptr) << from.failure()->message;
  ASSERT_EQ(to.failure(), nullptr) << to.failure()->message;
  for (int i = 0; i < 3; ++i) job.progress();
  EXPECT_EQ(from.sends_done(), sends + 1) << "exactly one completion";
  EXPECT_EQ(to.recvs_done(), recvs + 1) << "exactly one completion";
  EXPECT_EQ(first_wrong(landing, seed), -1);
  EXPECT_TRUE(
      std::all_of(in.bytes().begin(), in.bytes().begin() + offset, [](auto b) { return b == std::byte{0x5a}; }));
  EXPECT_TRUE(std::all_of(in.bytes().end() - offset, in.bytes().end(), [](auto b) { return b == std::byte{0x5a}; }));
  std::uint64_t moved = 0;
  for (std::size_t path = 0; path < k_paths; ++path) moved += from.traffic()[path] - before[path];
  EXPECT_EQ(moved, bytes) << "the traffic by path adds up to the bytes sent";
}

TEST_P(TransportContract, EverySizeFromAndToEveryKindOfMemory) {
  const std::size_t slot = Settings{}.slot_bytes;
  const std::size_t ring = slot * Settings{}.slots;
  JobOptions options;
  options.settings.ring_bytes = ring;
  Job job(GetParam(), options);
  ASSERT_TRUE(job.ok());
  std::vector<Source> sources{Source::plain, Source::direct};
  if (job.transport(0).traits().writes_in_place) sources.push_back(Source::in_place);
  std::uint64_t seed = 1;
  for (const std::size_t bytes :
       {std::size_t(0), std::size_t(1), std::size_t(55), std::size_t(56), std::size_t(57), std::size_t(63),
        std::size_t(64), std::size_t(65), std::size_t(2047), std::size_t(2048), std::size_t(4095), slot - 1, slot,
        slot + 1, 3 * slot + 17, ring + 64, 2 * ring + 100'001}) {
    for (const auto source : sources) {
      for (const auto destination : {Destination::plain, Destination::direct, Destination::in_place}) {
        for (const bool receive_first : {true, false}) {
          ++seed;
          one_message(job, bytes, source, destination, receive_first, seed, seed % 3 == 0 ? 192 : SIZE_MAX);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(TransportContract, TheLargestSize) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  const std::size_t bytes = (64 << 20) + 3;
  one_message(job, bytes, Source::plain, Destination::plain, true, 1, SIZE_MAX);
  one_message(job, bytes, Source::direct, Destination::direct, true, 2, SIZE_MAX);
  if (job.transport(0).traits().writes_in_place)
    one_message(job, bytes, Source::in_place, Destination::in_place, true, 3, 1 << 20);
}

// Messages of mixed sizes and kinds of memory, as many outstanding as there may be, both ways at once.
TEST_P(TransportContract, ManyOutstandingBothWaysInOrder) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  constexpr std::uint64_t k_messages = 600;
  constexpr std::size_t k_room = 70'000;
  const auto size_of = [](std::uint64_t n) -> std::size_t { return n % 7 == 3 ? k_room - n : n * 37 % 600; };
  struct Side {
    Endpoint* endpoint;
    std::deque<Memory> out, in;
    std::uint64_t sent = 0, posted = 0, checked = 0;
  } sides[2];
  const auto depth = job.transport(0).traits().depth;
  ASSERT_GT(depth, 0U);
  const std::uint64_t window = std::min<std::uint64_t>(depth, 16);
  for (int rank : {0, 1}) {
    sides[rank].endpoint = &job.endpoint(rank, 1 - rank);
    for (std::uint64_t i = 0; i < window; ++i) {
      sides[rank].out.emplace_back(job.transport(rank), i % 2 == 0 ? Kind::plain : Kind::direct, k_room);
      sides[rank].in.emplace_back(job.transport(rank), i % 3 == 0 ? Kind::plain : Kind::direct, k_room);
    }
  }
  const bool ended = job.drive([&] {
    bool all = true;
    for (auto& side : sides) {
      if (side.endpoint->failure() != nullptr) return true;
      while (side.sent < k_messages && side.sent - side.endpoint->sends_done() < window) {
        auto& memory = side.out[side.sent % window];
        fill(memory.bytes().first(size_of(side.sent)), side.sent + (&side == sides ? 0 : 10'000));
        EXPECT_TRUE(side.endpoint->send(memory.slice(0, size_of(side.sent))));
        ++side.sent;
      }
      while (side.posted < k_messages && side.posted - side.checked < window) {
        EXPECT_TRUE(side.endpoint->recv(side.in[side.posted % window].slice(0, size_of(side.posted))));
        ++side.posted;
      }
      for (; side.checked < side.endpoint->recvs_done(); ++side.checked) {
        EXPECT_EQ(first_wrong(side.in[side.checked % window].bytes().first(size_of(side.checked)),
                              side.checked + (&side == sides ? 10'000 : 0)),
                  -1)
            << "message " << side.checked;
      }
      all = all && side.checked == k_messages && side.endpoint->sends_done() == k_messages;
    }
    return all || HasFailure();
  });
  ASSERT_TRUE(ended);
  for (auto& side : sides) {
    ASSERT_EQ(side.endpoint->failure(), nullptr) << side.endpoint->failure()->message;
    EXPECT_EQ(side.endpoint->sends_done(), k_messages);
    EXPECT_EQ(side.endpoint->recvs_done(), k_messages);
  }
}

TEST_P(TransportContract, PostsBeyondDepthAreRefusedAndNothingIsLost) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  auto& from = job.endpoint(0, 1);
  auto& to = job.endpoint(1, 0);
  const auto depth = job.transport(0).traits().depth;
  Memory out(job.transport(0), Kind::plain, 40'000);
  Memory in(job.transport(1), Kind::plain, 4096);
  // A transport may take some in at once: it refuses when it cannot any more, and not before `depth`.
  std::uint64_t sent = 0;
  Result<void> posted;
  while (sent < (1 << 20)) {
    fill(out.bytes().first(8), sent);
    posted = from.send(out.slice(0, 4096));
    if (!posted) break;
    ++sent;
  }
  ASSERT_FALSE(posted);
  EXPECT_EQ(posted.error().code, Code::exhausted);
  EXPECT_EQ(posted.error().peer, 1);
  EXPECT_GE(sent, depth);
  EXPECT_EQ(from.failure(), nullptr);
  ASSERT_TRUE(job.drive([&] {
    while (to.recvs_done() < sent && to.recv(in.slice(0, 4096))) {
      if (to.failure() != nullptr) return true;
    }
    return to.recvs_done() >= sent;
  }));
  ASSERT_EQ(to.failure(), nullptr);
  ASSERT_TRUE(job.drive([&] { return from.sends_done() >= sent; }));

  // Receives do not complete by themselves, so here the bound is exact.
  const auto late = job.transport(0).traits().depth;
  Job fresh(GetParam(), {});
  ASSERT_TRUE(fresh.ok());
  Memory landing(fresh.transport(1), Kind::plain, 64 * (late + 1));
  Memory source(fresh.transport(0), Kind::plain, 64);
  auto& sink = fresh.endpoint(1, 0);
  for (std::size_t i = 0; i < late; ++i) ASSERT_TRUE(sink.recv(landing.slice(64 * i, 64)));
  posted = sink.recv(landing.slice(64 * late, 64));
  ASSERT_FALSE(posted);
  EXPECT_EQ(posted.error().code, Code::exhausted);
  ASSERT_FALSE(sink.recv_in_place(64));
  auto& origin = fresh.endpoint(0, 1);
  for (std::size_t i = 0; i < late; ++i) {
    fill(source.bytes(), i);
    ASSERT_TRUE(origin.send(source.all()));
    ASSERT_TRUE(fresh.drive([&] { return origin.sends_done() == i + 1 && sink.recvs_done() == i + 1; }));
  }
  for (std::size_t i = 0; i < late; ++i) EXPECT_EQ(first_wrong(landing.bytes().subspan(64 * i, 64), i), -1);
  EXPECT_TRUE(sink.recv(landing.slice(0, 64))) << "there is room again";
}

TEST_P(TransportContract, LanesAreApart) {
  JobOptions options;
  options.ranks = 3;
  options.lanes = 3;
  Job job(GetParam(), options);
  ASSERT_TRUE(job.ok());
  std::deque<Memory> out, in;
  // Receives on all lanes, sends only on the last one first: nothing may arrive elsewhere.
  for (int lane = 0; lane < 3; ++lane) {
    out.emplace_back(job.transport(0), Kind::plain, 10'000);
    in.emplace_back(job.transport(2), Kind::plain, 10'000);
    fill(out.back().bytes(), static_cast<std::uint64_t>(lane));
    ASSERT_TRUE(job.endpoint(2, 0, lane).recv(in.back().all()));
  }
  for (const int lane : {2, 0, 1}) {
    ASSERT_TRUE(job.endpoint(0, 2, lane).send(out[std::size_t(lane)].all()));
    ASSERT_TRUE(job.drive([&] { return job.endpoint(2, 0, lane).recvs_done() == 1; }));
    if (lane == 2) {
      EXPECT_EQ(job.endpoint(2, 0, 0).recvs_done(), 0U);
      EXPECT_EQ(job.endpoint(2, 0, 1).recvs_done(), 0U);
    }
    EXPECT_EQ(job.endpoint(0, 2, lane).lane(), lane);
    EXPECT_EQ(job.endpoint(0, 2, lane).peer(), 2);
  }
  for (int lane = 0; lane < 3; ++lane)
    EXPECT_EQ(first_wrong(in[std::size_t(lane)].bytes(), static_cast<std::uint64_t>(lane)), -1);
}

TEST_P(TransportContract, APeerThatClosesIsNamed) {
  for (const bool waiting : {true, false}) {
    Job job(GetParam(), {});
    ASSERT_TRUE(job.ok());
    Memory in(job.transport(0), Kind::plain, 100);
    auto& left = job.endpoint(0, 1);
    if (waiting) {
      ASSERT_TRUE(left.recv(in.all()));
    }
    job.close(1);
    ASSERT_TRUE(job.drive([&] { return left.failure() != nullptr; }));
    EXPECT_EQ(left.failure()->code, Code::peer_gone);
    EXPECT_EQ(left.failure()->peer, 1);
    EXPECT_THAT(left.failure()->message, ::testing::HasSubstr("rank 1"));
    EXPECT_EQ(left.recvs_done(), 0U);
    const auto later = left.send(in.all());
    ASSERT_FALSE(later);
    EXPECT_EQ(later.error().code, Code::peer_gone);
    EXPECT_FALSE(left.recv(in.all()));
    EXPECT_FALSE(left.recv_in_place(8));
    EXPECT_TRUE(left.readable().empty());
    EXPECT_TRUE(left.writable().empty());
  }
}

TEST_P(TransportContract, ADifferenceInSizeIsAnErrorOfTheReceiver) {
  for (const auto& [sent, expected] : {std::pair<std::size_t, std::size_t>{8, 16},
                                       {16, 8},
                                       {0, 8},
                                       {56, 57},
                                       {57, 56},
                                       {5000, 4096},
                                       {4096, 5000},
                                       {100'000, 50'000}}) {
    for (const bool in_place : {false, true}) {
      SCOPED_TRACE(::testing::Message() << sent << " sent, " << expected << " expected, in place " << in_place);
      Job job(GetParam(), {});
      ASSERT_TRUE(job.ok());
      Memory out(job.transport(0), Kind::direct, sent);
      Memory in(job.transport(1), Kind::direct, expected);
      auto& to = job.endpoint(1, 0);
      ASSERT_TRUE(in_place ? to.recv_in_place(expected) : to.recv(in.all()));
      ASSERT_TRUE(job.endpoint(0, 1).send(out.all()));
      ASSERT_TRUE(job.drive([&] {
        static_cast<void>(to.readable());
        return to.failure() != nullptr;
      }));
      EXPECT_EQ(to.failure()->code, Code::malformed);
      EXPECT_EQ(to.failure()->peer, 0);
      EXPECT_THAT(to.failure()->message, ::testing::HasSubstr(std::to_string(sent)));
      EXPECT_EQ(to.recvs_done(), 0U);
      ASSERT_TRUE(job.drive([&] { return job.endpoint(0, 1).failure() != nullptr; })) << "the sender hears of it";
    }
  }
}

TEST_P(TransportContract, OnlyRegisteredMemoryIsTaken) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  auto& endpoint = job.endpoint(0, 1);
  Memory mine(job.transport(0), Kind::plain, 100);
  Memory of_another(job.transport(1), Kind::plain, 100);
  for (const auto& slice : {Slice{}, of_another.all(), mine.slice(0, 101), mine.slice(101, 0), mine.slice(60, 41),
                            mine.slice(8, SIZE_MAX - 4)}) {
    for (const auto& posted : {endpoint.send(slice), endpoint.recv(slice)}) {
      ASSERT_FALSE(posted);
      EXPECT_EQ(posted.error().code, Code::bad_usage);
    }
  }
  // Nothing was posted, and nothing is broken.
  EXPECT_EQ(endpoint.failure(), nullptr);
  one_message(job, 100, Source::plain, Destination::plain, true, 5, SIZE_MAX);
}

TEST_P(TransportContract, AllocatedMemoryIsZeroedAlignedAndAsPromised) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  Memory memory(job.transport(0), Kind::direct, 100'000);
  EXPECT_TRUE(std::all_of(memory.bytes().begin(), memory.bytes().end(), [](auto b) { return b == std::byte{0}; }));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % 4096, 0U);
  EXPECT_EQ(memory.all().region->direct(), job.transport(0).traits().allocates_direct);
  Memory none(job.transport(0), Kind::direct, 0);
  EXPECT_EQ(none.bytes().size(), 0U);
}

// Regions come and go while the pipe stays: a number, or a mapping, must never be taken for a later one.
TEST_P(TransportContract, RegionsComeAndGo) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  for (std::uint64_t i = 0; i < 300; ++i) {
    one_message(job, 4096 + i, Source::direct, i % 2 == 0 ? Destination::direct : Destination::in_place, true, i,
                SIZE_MAX);
    if (HasFailure()) return;
  }
}

TEST_P(TransportContract, NothingIsAllocatedOnTheWay) {
  Job job(GetParam(), {});
  ASSERT_TRUE(job.ok());
  auto& from = job.endpoint(0, 1);
  auto& to = job.endpoint(1, 0);
  const bool writes = job.transport(0).traits().writes_in_place;
  std::deque<Memory> memory;
  for (const int rank : {0, 1}) {
    for (const auto kind : {Kind::plain, Kind::direct}) memory.emplace_back(job.transport(rank), kind, 100'000);
  }
  std::uint64_t posted = 0;
  bool fine = true;
  const auto round = [&] {
    for (const std::size_t bytes : {0, 8, 56, 1000, 4096, 100'000}) {
      for (std::size_t way = 0; way < 6; ++way) {
        const bool produce = writes && way == 5;
        fine = fine && (way % 3 == 2 ? to.recv_in_place(bytes) : to.recv(memory[2 + way % 2].slice(0, bytes)));
        fine = fine && (produce ? from.send_in_place(bytes) : from.send(memory[way / 3].slice(0, bytes)));
        ++posted;
        while (fine && (to.recvs_done() < posted || from.sends_done() < posted)) {
          if (const auto part = to.readable(); !part.empty()) to.consume(part.size());
          if (const auto room = produce ? from.writable() : std::span<std::byte>{}; !room.empty())
            from.commit(room.size());
          job.progress();
          fine = fine && from.failure() == nullptr && to.failure() == nullptr;
        }
      }
    }
  };
  round();
  ASSERT_TRUE(fine);
  const auto before = allocations();
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(allocations() - before, 0U);
  EXPECT_TRUE(fine);
}

// The same with a thread a rank, as ranks really run: each rank sends and receives all the time.
TEST_P(TransportContract, RanksAsThreads) {
  JobOptions options;
  options.ranks = 3;
  Job job(GetParam(), options);
  ASSERT_TRUE(job.ok());
  constexpr std::uint64_t k_rounds = 300;
  std::vector<std::string> wrong(3);
  const auto run = [&](int rank) {
    auto& transport = job.transport(rank);
    auto& next = job.endpoint(rank, (rank + 1) % 3);
    auto& before = job.endpoint(rank, (rank + 2) % 3);
    Memory out(transport, rank == 0 ? Kind::plain : Kind::direct, 50'000);
    Memory in(transport, rank == 1 ? Kind::plain : Kind::direct, 50'000);
    const auto deadline = Deadline::after(Seconds(60));
    for (std::uint64_t i = 0; i < k_rounds; ++i) {
      const std::size_t bytes = i % 5 == 0 ? 50'000 : i % 300;
      fill(out.bytes().first(bytes), i * 3 + std::uint64_t(rank));
      const bool read_in_place = i % 4 == 1;
      if (!(read_in_place ? before.recv_in_place(bytes) : before.recv(in.slice(0, bytes))) ||
          !next.send(out.slice(0, bytes))) {
        wrong[std::size_t(rank)] = "a post was refused";
        return;
      }
      std::size_t have = 0;
      while (before.recvs_done() <= i || next.sends_done() <= i) {
        if (read_in_place) read_some(before, in.bytes().first(bytes), have, SIZE_MAX);
        if (!transport.progress()) transport.wait(Seconds(0));
        if (deadline.passed() || next.failure() != nullptr || before.failure() != nullptr) {
          wrong[std::size_t(rank)] = next.failure() != nullptr ? next.failure()->message : "stuck";
          return;
        }
      }
      if (first_wrong(in.bytes().first(bytes), i * 3 + std::uint64_t((rank + 2) % 3)) != -1) {
        wrong[std::size_t(rank)] = "wrong bytes in round " + std::to_string(i);
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) threads.emplace_back(run, rank);
  for (auto& thread : threads) thread.join();
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(wrong[std::size_t(rank)], "") << "rank " << rank;
}

TEST_P(TransportContract, WaitsForAMissingPeerNoLongerThanTheDeadline) {
  if (GetParam() == "local") return;  // connects without waiting; see transports/local/hub.h
  Settings settings;
  settings.ranks = 2;
  Result<Address> absent;
  auto other = make_transport(GetParam(),
                              [&] {
                                Settings s = settings;
                                s.rank = 1;
                                return s;
                              }())
                   .value();
  absent = other->listen();
  ASSERT_TRUE(absent);
  auto transport = make_transport(GetParam(), settings).value();
  ASSERT_TRUE(transport->listen());
  const Peer peer{.rank = 1, .lane = 0, .host = "elsewhere", .address = *absent};
  const auto made = transport->connect({&peer, 1}, Deadline::after(Seconds(0.2)));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::timed_out);
  EXPECT_EQ(made.error().peer, 1);
  EXPECT_THAT(made.error().message, ::testing::HasSubstr("rank 1"));
}

}  // namespace
}  // namespace gradrail
