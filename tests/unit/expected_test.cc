// What rows are held against, and when nothing is known to hold them against.
#include "bench/report/expected.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradrail {
namespace {

using ::testing::Optional;

const std::vector<doctor::Expected> k_paths = {{"mlx5_0 port 1", 24, "its rate"},
                                               {"mlx5_0 port 12", 12, "its rate"},
                                               {"mlx5_1 port 1", 20, "PCIe"},
                                               {"eth0 by tcp", 10, "its rate"}};

P2pPoint pair_of(const std::string& transport, const std::string& test, std::int64_t bytes, double gbs) {
  P2pPoint point;
  point.transport = transport;
  point.test = test;
  point.bytes = bytes;
  point.bandwidth_gbs = gbs;
  point.time_us = Timing{.median = 1};
  return point;
}

Point allreduce_of(const std::string& transport, const std::string& topology, int ranks, double busbw) {
  Point point;
  point.collective = "allreduce";
  point.transport = transport;
  point.topology = topology;
  point.ranks = ranks;
  point.bytes = 1 << 20;
  point.busbw_gbs = busbw;
  point.time_us = Timing{.median = 100};
  return point;
}

TEST(Expected, ThePathIsTheDevicesThatATransportNames) {
  const auto one = path_in_use("verbs: mlx5_0 port 1, GID 3 fe80:: (as asked for), path MTU 4096", k_paths);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->name, "mlx5_0 port 1");
  EXPECT_EQ(one->gbs, 24);
  const auto twelfth = path_in_use("mlx5_0 port 12, LID 7", k_paths);
  ASSERT_TRUE(twelfth);
  EXPECT_EQ(twelfth->gbs, 12);
  const auto two = path_in_use("mlx5_0 port 1, GID 3 | mlx5_1 port 1, GID 3 (2 rails; lanes take turns)", k_paths);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->gbs, 44);
  EXPECT_EQ(two->name, "mlx5_0 port 1 + mlx5_1 port 1");
}

TEST(Expected, AnUnknownDeviceLeavesItOpen) {
  EXPECT_FALSE(path_in_use("rxe1 port 1, GID 1", k_paths));
  EXPECT_FALSE(path_in_use("mlx5_0 port 1, GID 3 | rxe1 port 1, GID 3", k_paths)) << "half of it is not known";
  EXPECT_FALSE(path_in_use("", k_paths));
}

TEST(Expected, PairsOverVerbsAreHeldAgainstThePort) {
  const PathInUse port{"mlx5_0 port 1", 24, "its rate"};
  auto point = pair_of("verbs", "bandwidth", 1 << 20, 12);
  expect(point, 0, 0, port);
  EXPECT_THAT(point.expected_gbs, Optional(24));
  EXPECT_THAT(point.expected_share, Optional(0.5));
  point = pair_of("verbs", "bidirectional", 1 << 20, 12);
  expect(point, 0, 0, port);
  EXPECT_THAT(point.expected_gbs, Optional(48));
  for (auto none : {pair_of("verbs", "latency", 8, 0), pair_of("tcp", "bandwidth", 1 << 20, 3)}) {
    expect(none, 50, 1 << 20, port);
    EXPECT_FALSE(none.expected_gbs || none.expected_share) << none.transport << " " << none.test;
  }
}

TEST(Expected, PairsInMemoryAreHeldAgainstItOnceCachesAreTooSmall) {
  auto large = pair_of("shm", "bandwidth", 64 << 20, 10);
  expect(large, 50, 100 << 20, std::nullopt);
  EXPECT_THAT(large.expected_gbs, Optional(25)) << "each byte is read and written";
  auto cached = pair_of("shm", "bandwidth", 50 << 20, 10);
  expect(cached, 50, 100 << 20, std::nullopt);
  EXPECT_FALSE(cached.expected_gbs);
  auto unknown = pair_of("shm", "bandwidth", 64 << 20, 10);
  expect(unknown, 50, 0, std::nullopt);
  EXPECT_FALSE(unknown.expected_gbs) << "caches of unknown size";
}

TEST(Expected, CollectivesAreHeldAgainstThePortWhereEachRankHasOne) {
  const PathInUse port{"mlx5_0 port 1", 24, "its rate"};
  auto point = allreduce_of("verbs", "4x1", 4, 18);
  expect(point, {}, 0, port);
  EXPECT_THAT(point.expected_gbs, Optional(24));
  EXPECT_THAT(point.expected_share, Optional(0.75));
  for (auto none : {allreduce_of("verbs", "2x2", 4, 18), allreduce_of("verbs", "1x4", 4, 18),
                    allreduce_of("shm+verbs", "4x1", 4, 18), allreduce_of("tcp", "4x1", 4, 18)}) {
    expect(none, {}, 0, port);
    EXPECT_FALSE(none.expected_gbs) << none.transport << " " << none.topology;
  }
}

TEST(Expected, AnAllreduceInMemoryIsHeldAgainstItsBandwidth) {
  Limits limits;
  limits.memory_gbs = 40;
  auto point = allreduce_of("shm", "1x2", 2, 10);
  expect(point, limits, 1 << 20, std::nullopt);
  // 4 MiB at 40 GB/s take 104.9 us; in 100 us caches must have helped.
  EXPECT_THAT(point.expected_gbs, Optional(::testing::DoubleNear(9.537, 0.001)));
  EXPECT_THAT(point.expected_share, Optional(::testing::DoubleNear(1.0486, 0.001)));
  point = allreduce_of("shm", "1x2", 2, 10);
  expect(point, limits, 8 << 20, std::nullopt);
  EXPECT_FALSE(point.expected_gbs) << "caches may hold it";
}

}  // namespace
}  // namespace gradrail
