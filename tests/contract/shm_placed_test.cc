// Messages over shm that the sender produces in the memory that the receiver posted for them.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/contract/transport_job.h"

namespace gradrail::testing {
namespace {

// As of two ranks that answer each other block by block: the receiver reads one message in place, and takes up nothing
// of the next as long as it does, however many parts the sender writes that in.
TEST(ShmPlaced, ALongMessageGoesStraightThereWhileAnEarlierOneIsBeingRead) {
  constexpr std::size_t k_bytes = 4 << 20;
  constexpr std::size_t k_part = 4096;
  Job job("shm", {});
  ASSERT_TRUE(job.ok());
  Endpoint& from = job.endpoint(0, 1);
  Endpoint& to = job.endpoint(1, 0);
  Memory first(job.transport(0), Memory::Kind::direct, k_bytes);
  Memory second(job.transport(0), Memory::Kind::plain, k_bytes);
  Memory landing(job.transport(1), Memory::Kind::direct, k_bytes);
  fill(second.bytes(), 1);
  ASSERT_TRUE(to.recv_in_place(k_bytes));
  ASSERT_TRUE(to.recv(landing.all()));
  ASSERT_TRUE(from.send(first.all()));
  ASSERT_TRUE(from.send_in_place(k_bytes));
  ASSERT_TRUE(job.drive([&] { return to.readable().size() == k_bytes; }));

  for (std::size_t at = 0; at < k_bytes; at += k_part) {
    const auto room = from.writable();
    ASSERT_EQ(room.size(), k_bytes - at);
    std::copy_n(second.bytes().begin() + std::ptrdiff_t(at), k_part, room.begin());
    from.commit(k_part);
    job.progress();
  }
  EXPECT_EQ(first_wrong(landing.bytes(), 1), -1) << "it is all there, though not told yet";
  EXPECT_EQ(to.recvs_done(), 0u);
  to.consume(k_bytes);
  ASSERT_TRUE(job.drive([&] { return to.recvs_done() == 2 && from.sends_done() == 2; }));
  EXPECT_EQ(from.traffic()[std::size_t(Path::zero_copy)], 2 * k_bytes);
}

}  // namespace
}  // namespace gradrail::testing
