// Long messages of plain memory over shm: read by the receiver in the sender's memory, or written by the sender into
// the receiver's, through the kernel.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "tests/contract/transport_job.h"

namespace gradrail::testing {
namespace {

constexpr std::size_t k_attached = std::size_t(Path::attached);
constexpr std::size_t k_one_copy = std::size_t(Path::one_copy);

class ShmAttach : public ::testing::Test {
 protected:
  static JobOptions options(Attach attach) {
    JobOptions made;
    made.settings.attach = attach;
    return made;
  }
  // Skips where the kernel does not let processes read each other, or shm is absent.
  static bool refused(Job& job) {
    return !job.ok() || job.endpoint(0, 1).attached_from() == SIZE_MAX ||
           job.endpoint(1, 0).attached_from() == SIZE_MAX;
  }
};

#define SKIP_IF_REFUSED(job) \
  if (refused(job)) GTEST_SKIP() << "this system does not let processes read each other's memory"

TEST_F(ShmAttach, LongMessagesFromPlainMemoryAreReadWhereTheyLie) {
  Job job("shm", options(Attach::always));
  SKIP_IF_REFUSED(job);
  Endpoint& from = job.endpoint(0, 1);
  Endpoint& to = job.endpoint(1, 0);
  std::uint64_t seed = 0;
  for (const std::size_t bytes : {std::size_t(256 << 10), std::size_t(512 << 10) + 1, std::size_t(3 << 20) + 17}) {
    for (const bool in_place : {false, true}) {
      for (const auto landing_kind : {Memory::Kind::plain, Memory::Kind::direct}) {
        Memory source(job.transport(0), Memory::Kind::plain, bytes);
        Memory landing(job.transport(1), landing_kind, bytes);
        fill(source.bytes(), ++seed);
        const auto before = from.traffic();
        const auto sends = from.sends_done();
        const auto recvs = to.recvs_done();
        ASSERT_TRUE(from.send(source.all()));
        for (int i = 0; i < 10; ++i) job.progress();
        EXPECT_EQ(from.sends_done(), sends) << "nobody has read it";
        EXPECT_EQ(from.departed(sends + 1, bytes), 0u);
        ASSERT_TRUE(in_place ? to.recv_in_place(bytes) : to.recv(landing.all()));
        std::size_t read = 0;
        ASSERT_TRUE(job.drive([&] {
          for (auto part = to.readable(); in_place && !part.empty(); part = to.readable()) {
            // In two bites, of which the first is a multiple of 64.
            const std::size_t bite = part.size() > 192 ? 192 : part.size();
            std::copy_n(part.begin(), bite, landing.bytes().begin() + std::ptrdiff_t(read));
            read += bite;
            to.consume(bite);
          }
          return (from.sends_done() > sends && to.recvs_done() > recvs) || from.failure() != nullptr;
        }));
        EXPECT_EQ(first_wrong(landing.bytes(), seed), -1);
        EXPECT_EQ(from.traffic()[k_attached] - before[k_attached], bytes);
      }
    }
  }
}

TEST_F(ShmAttach, CopiedShortAndForbiddenOnesGoThroughTheSlots) {
  constexpr std::size_t k_bytes = 1 << 20;
  for (const Attach attach : {Attach::always, Attach::huge_pages, Attach::never}) {
    Job job("shm", options(attach));
    ASSERT_TRUE(job.ok());
    Endpoint& from = job.endpoint(0, 1);
    Endpoint& to = job.endpoint(1, 0);
    Memory source(job.transport(0), Memory::Kind::plain, k_bytes);
    Memory landing(job.transport(1), Memory::Kind::plain, k_bytes);
    if (attach == Attach::never) {
      EXPECT_EQ(from.attached_from(), SIZE_MAX);
    }
    fill(source.bytes(), 1);
    const auto move = [&](auto post, std::size_t bytes) {
      const auto recvs = to.recvs_done();
      const auto sends = from.sends_done();
      ASSERT_TRUE(post(source.slice(0, bytes)));
      ASSERT_TRUE(job.drive([&] { return from.sends_done() > sends; }));  // before it is known where it is to go
      ASSERT_TRUE(to.recv(landing.slice(0, bytes)));
      ASSERT_TRUE(job.drive([&] { return to.recvs_done() > recvs || to.failure() != nullptr; }));
      EXPECT_EQ(first_wrong(landing.bytes().first(bytes), 1), -1);
    };
    move([&](Slice slice) { return from.send_copied(slice); }, k_bytes);
    move([&](Slice slice) { return from.send(slice); }, 100'000);
    if (attach == Attach::never) move([&](Slice slice) { return from.send(slice); }, k_bytes);
    EXPECT_EQ(from.traffic()[k_attached], 0u);
    EXPECT_GE(from.traffic()[k_one_copy], k_bytes + 100'000);
  }
}

TEST_F(ShmAttach, LongMessagesArePutIntoPlainMemoryThatIsPostedForThem) {
  constexpr std::size_t k_bytes = (3 << 20) + 17;
  Job job("shm", options(Attach::always));
  SKIP_IF_REFUSED(job);
  Endpoint& from = job.endpoint(0, 1);
  Endpoint& to = job.endpoint(1, 0);
  std::uint64_t seed = 0;
  enum class How { sent, copied, offered };
  for (const How how : {How::sent, How::copied, How::offered}) {
    Memory source(job.transport(0), Memory::Kind::plain, k_bytes);
    Memory landing(job.transport(1), Memory::Kind::plain, k_bytes);
    fill(source.bytes(), ++seed);
    const auto before = from.traffic();
    const auto recvs = to.recvs_done();
    ASSERT_TRUE(to.recv(landing.all()));
    ASSERT_TRUE(how == How::sent     ? from.send(source.all())
                : how == How::copied ? from.send_copied(source.all())
                                     : from.send_in_place(k_bytes));
    // Offered are its first half, as far as it is taken, and then the rest.
    std::size_t gone = 0;
    ASSERT_TRUE(job.drive([&] {
      if (how == How::offered && gone < k_bytes) {
        const std::size_t known = gone < k_bytes / 128 * 64 ? k_bytes / 128 * 64 : k_bytes;
        gone += from.offer(source.bytes().subspan(gone, known - gone));
      }
      return to.recvs_done() > recvs || from.failure() != nullptr;
    }));
    EXPECT_EQ(first_wrong(landing.bytes(), seed), -1);
    EXPECT_EQ(from.traffic()[k_attached] - before[k_attached], k_bytes);
    EXPECT_EQ(from.sends_done(), seed) << "it needs nothing from the receiver any more";
  }
}

TEST_F(ShmAttach, WhatWasWithdrawnIsNotWrittenInto) {
  constexpr std::size_t k_bytes = 1 << 20;
  Job job("shm", options(Attach::always));
  SKIP_IF_REFUSED(job);
  Endpoint& from = job.endpoint(0, 1);
  Endpoint& to = job.endpoint(1, 0);
  Memory source(job.transport(0), Memory::Kind::plain, k_bytes);
  Memory landing(job.transport(1), Memory::Kind::plain, k_bytes);
  fill(source.bytes(), 1);
  fill(landing.bytes(), 2);
  ASSERT_TRUE(to.recv(landing.all()));
  ASSERT_TRUE(from.send_in_place(k_bytes));
  ASSERT_EQ(from.offer(source.bytes().first(4096)), 4096u);
  to.withdraw();
  for (int i = 0; i < 1000; ++i) static_cast<void>(from.offer(source.bytes().subspan(4096)));
  EXPECT_EQ(first_wrong(landing.bytes().first(4096), 1), -1);
  EXPECT_EQ(first_wrong(landing.bytes().subspan(4096), 2, 4096), -1);
}

}  // namespace
}  // namespace gradrail::testing
