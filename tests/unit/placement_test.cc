// The order in which ranks take CPUs, on trees as /sys has them.
#include "bench/measure/placement.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <numeric>

namespace gradrail {
namespace {

using ::testing::ElementsAre;

class PlacementTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "gradrail-placement-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const auto whole = root_ / "sys/devices/system" / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  static std::vector<int> first(int count) {
    std::vector<int> cpus(static_cast<std::size_t>(count));
    std::iota(cpus.begin(), cpus.end(), 0);
    return cpus;
  }
  // 2 sockets of 4 cores of 2 threads, a NUMA node each; numbered over the sockets in turn, second threads from 8 on.
  void write_server() {
    for (int cpu = 0; cpu < 16; ++cpu) {
      write(fmt::format("cpu/cpu{}/topology/thread_siblings_list", cpu), fmt::format("{},{}\n", cpu % 8, cpu % 8 + 8));
      write(fmt::format("cpu/cpu{}/topology/physical_package_id", cpu), fmt::format("{}\n", cpu % 2));
    }
    write("node/node0/cpulist", "0,2,4,6,8,10,12,14\n");
    write("node/node1/cpulist", "1,3,5,7,9,11,13,15\n");
  }

  std::filesystem::path root_;
};

TEST_F(PlacementTest, FillsANodesCoresThenTheNextAndSiblingsLast) {
  write_server();
  EXPECT_THAT(in_order_of_use(root_, first(16)), ElementsAre(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
}

TEST_F(PlacementTest, NeighbouringNumbersMayBeSiblings) {
  for (int cpu = 0; cpu < 4; ++cpu)
    write(fmt::format("cpu/cpu{}/topology/thread_siblings_list", cpu), cpu < 2 ? "0-1\n" : "2-3\n");
  EXPECT_THAT(in_order_of_use(root_, first(4)), ElementsAre(0, 2, 1, 3));
}

// A core's first thread may be denied to us; its second is then the first that we have.
TEST_F(PlacementTest, OnlyUsableCpusCount) {
  write_server();
  EXPECT_THAT(in_order_of_use(root_, {2, 8, 9, 10}), ElementsAre(2, 8, 9, 10));
}

TEST_F(PlacementTest, WithoutATreeTheNumbersAreTheOrder) {
  EXPECT_THAT(in_order_of_use(root_, {1, 3, 6}), ElementsAre(1, 3, 6));
}

TEST_F(PlacementTest, NonsenseIsACoreOfItsOwn) {
  write("cpu/cpu0/topology/thread_siblings_list", "zero to one\n");
  write("cpu/cpu1/topology/thread_siblings_list", "3-99999999999\n");
  write("cpu/cpu2/topology/physical_package_id", "-1\n");
  write("node/node0/cpulist", "-\n");
  write("node/nodes/cpulist", "0-2\n");
  EXPECT_THAT(in_order_of_use(root_, first(3)), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace gradrail
