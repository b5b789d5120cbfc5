// Long messages from plain memory over shm, read by the receiver in the sender's memory, through the kernel.
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
      ASSERT_TRUE(to.recv(landing.slice(0, bytes)));
      ASSERT_TRUE(post(source.slice(0, bytes)));
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

}  // namespace
}  // namespace gradrail::testing
