// What only the local transport promises: one thread drives all ranks, and every run is the same run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "transports/local/hub.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

struct Pair {
  std::unique_ptr<Transport> transport[2];
  std::unique_ptr<Region> region[2];
  std::vector<std::unique_ptr<Endpoint>> endpoint[2];
};

Pair make_pair_of_ranks(std::size_t bytes) {
  Pair pair;
  auto hub = std::make_shared<LocalHub>();
  Address address[2];
  for (int rank : {0, 1}) {
    pair.transport[rank] = make_transport("local", {.rank = rank, .ranks = 2, .secret = {}, .hub = hub}).value();
    address[rank] = pair.transport[rank]->listen().value();
    pair.region[rank] = pair.transport[rank]->allocate(bytes).value();
  }
  for (int rank : {0, 1}) {
    const Peer peer{.rank = 1 - rank, .host = "here", .address = address[1 - rank]};
    pair.endpoint[rank] = pair.transport[rank]->connect({&peer, 1}, Deadline::after(Seconds(1))).value();
  }
  return pair;
}

TEST(TransportLocal, OneThreadDrivesBothRanks) {
  auto pair = make_pair_of_ranks(1 << 16);
  auto& a = *pair.endpoint[0].front();
  auto& b = *pair.endpoint[1].front();
  std::memset(pair.region[0]->buffer().data, 7, 1 << 16);
  ASSERT_TRUE(a.send({pair.region[0].get(), 0, 1000}));
  ASSERT_TRUE(b.recv({pair.region[1].get(), 64, 1000}));
  EXPECT_TRUE(pair.transport[1]->progress());
  EXPECT_EQ(b.recvs_done(), 1U);
  EXPECT_EQ(a.sends_done(), 0U) << "a rank sees its completion in its own progress()";
  EXPECT_TRUE(pair.transport[0]->progress());
  EXPECT_EQ(a.sends_done(), 1U);
  EXPECT_FALSE(pair.transport[0]->progress());
  EXPECT_EQ(pair.region[1]->buffer().data[63], std::byte{0});
  EXPECT_EQ(pair.region[1]->buffer().data[64], std::byte{7});
  EXPECT_EQ(pair.region[1]->buffer().data[1063], std::byte{7});
  EXPECT_EQ(pair.region[1]->buffer().data[1064], std::byte{0});
}

TEST(TransportLocal, ViewsTheSendersMemory) {
  auto pair = make_pair_of_ranks(4096);
  ASSERT_TRUE(pair.endpoint[0].front()->send({pair.region[0].get(), 0, 4096}));
  ASSERT_TRUE(pair.endpoint[1].front()->recv_in_place(4096));
  pair.transport[1]->progress();
  const auto view = pair.endpoint[1].front()->readable();
  ASSERT_EQ(view.size(), 4096U);
  EXPECT_EQ(view.data(), pair.region[0]->buffer().data);
  pair.endpoint[1].front()->consume(64);
  EXPECT_EQ(pair.endpoint[1].front()->readable().size(), 4032U);
  EXPECT_EQ(pair.endpoint[1].front()->recvs_done(), 0U);
  pair.endpoint[1].front()->consume(4032);
  EXPECT_EQ(pair.endpoint[1].front()->recvs_done(), 1U);
}

TEST(TransportLocal, ProducesStraightIntoAPostedDestination) {
  auto pair = make_pair_of_ranks(4096);
  ASSERT_TRUE(pair.endpoint[1].front()->recv({pair.region[1].get(), 0, 4096}));
  ASSERT_TRUE(pair.endpoint[0].front()->send_in_place(4096));
  const auto room = pair.endpoint[0].front()->writable();
  ASSERT_EQ(room.size(), 4096U);
  EXPECT_EQ(room.data(), pair.region[1]->buffer().data);
  pair.endpoint[0].front()->commit(4096);
  EXPECT_EQ(pair.endpoint[0].front()->sends_done(), 1U);
  pair.transport[1]->progress();
  EXPECT_EQ(pair.endpoint[1].front()->recvs_done(), 1U);
}

TEST(TransportLocal, NeedsAHub) {
  const auto made = make_transport("local", {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::bad_usage);
}

}  // namespace
}  // namespace gradrail
