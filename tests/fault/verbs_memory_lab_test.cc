// Every kind of memory over real libibverbs calls: huge pages, memory that goes and comes again at the same address,
// and memory of a GPU that does not exist (tests/unit/cuda_fake.h), which software RoCE reaches by no way of its own.
// Runs only inside the virtual machine of scripts/soft-roce, which CTest starts as soft_roce.faults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/unit/cuda_fake.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::FakeCuda;
using ::testing::HasSubstr;

class VerbsMemoryLab : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SOFT_ROCE") == nullptr) GTEST_SKIP() << "needs RDMA devices; runs inside scripts/soft-roce only";
    Address addresses[2];
    for (int rank : {0, 1}) {
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      settings.verbs = rank == 0 ? "device=rxe1" : "device=rxe2";
      auto made = VerbsTransport::make(settings, library_calls(), nullptr, cuda_);
      ASSERT_TRUE(made) << made.error().message;
      transports_[rank] = std::move(*made);
      addresses[rank] = transports_[rank]->listen().value();
    }
    const auto meet = [&](int rank) {
      const Peer peer{.rank = 1 - rank, .lane = 0, .host = "host", .address = addresses[1 - rank]};
      auto made = transports_[rank]->connect({&peer, 1}, Deadline::after(Seconds(60)));
      if (made) pipes_[rank] = std::move(made->front());
    };
    std::thread other([&] { meet(1); });
    meet(0);
    other.join();
    ASSERT_TRUE(pipes_[0] && pipes_[1]);
  }
  // One message from rank 0 to rank 1, registered for the occasion; true if the bytes came.
  [[nodiscard]] bool message(Buffer from, Buffer to, int seed) {
    const auto out = transports_[0]->register_memory(from);
    const auto in = transports_[1]->register_memory(to);
    EXPECT_TRUE(out) << out.error().message;
    EXPECT_TRUE(in) << in.error().message;
    if (!out || !in) return false;
    std::byte* const source = cuda_.bus(from.data);
    for (std::size_t i = 0; i < from.size; ++i) source[i] = static_cast<std::byte>(i / 7 + i * std::size_t(seed));
    const auto sends = pipes_[0]->sends_done(), recvs = pipes_[1]->recvs_done();
    if (!pipes_[1]->recv({in->get(), 0, to.size}) || !pipes_[0]->send({out->get(), 0, from.size})) return false;
    const auto deadline = Deadline::after(Seconds(60));
    while (pipes_[0]->sends_done() == sends || pipes_[1]->recvs_done() == recvs) {
      bool moved = false;
      for (auto& transport : transports_) moved |= transport->progress();
      if (!moved) transports_[0]->wait(Seconds(0));
      for (auto& pipe : pipes_)
        if (pipe->failure() != nullptr || deadline.passed()) {
          ADD_FAILURE() << (pipe->failure() != nullptr ? pipe->failure()->message : "not done in time");
          return false;
        }
    }
    return std::memcmp(source, cuda_.bus(to.data), from.size) == 0;
  }
  Buffer on_gpu(int gpu, std::size_t bytes) { return {cuda_.allocate(gpu, bytes), bytes, Space::cuda, gpu}; }

  FakeCuda cuda_;
  std::unique_ptr<Transport> transports_[2];
  std::unique_ptr<Endpoint> pipes_[2];
};

std::byte* map(std::size_t bytes, int flags = 0, void* where = nullptr) {
  void* const memory = ::mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

TEST_F(VerbsMemoryLab, MemoryOfAGpuIsStagedAndTheReasonsAreThoseOfTheKernel) {
  for (const std::size_t bytes : {std::size_t(100), std::size_t(5000), std::size_t(100'000), std::size_t(1'000'003)}) {
    EXPECT_TRUE(message(on_gpu(0, bytes), on_gpu(1, bytes), 3)) << bytes;
    EXPECT_TRUE(message({map(bytes), bytes}, on_gpu(1, bytes), 5)) << bytes;
    EXPECT_TRUE(message(on_gpu(0, bytes), {map(bytes), bytes}, 7)) << bytes;
  }
  EXPECT_GT(pipes_[0]->traffic()[std::size_t(Path::one_copy)], 2'000'000U);
  EXPECT_GE(cuda_.most_under_way, 2U);
  EXPECT_THAT(transports_[0]->describe(),
              AllOf(HasSubstr("GPU 0 by rxe1: staged through pinned host memory"),
                    HasSubstr("dma-buf: the driver of rxe1 takes none"), HasSubstr("modprobe nvidia_peermem")));
}

// A registration that outlived its pages would send those that were there before, or write where nobody looks.
TEST_F(VerbsMemoryLab, AnAddressThatMeansOtherPagesCarriesWhatIsThereNow) {
  constexpr std::size_t k_bytes = 300'000;
  std::byte* const from = map(k_bytes);
  std::byte* const to = map(k_bytes);
  for (int round = 1; round <= 4; ++round) {
    ASSERT_TRUE(message({from, k_bytes}, {to, k_bytes}, round)) << "round " << round;
    ASSERT_TRUE(message({from, k_bytes}, {to, k_bytes}, round + 10)) << "round " << round << ", again";
    for (std::byte* const memory : {from, to}) {
      if (round % 2 == 0) {
        ::madvise(memory, k_bytes, MADV_DONTNEED);
      } else {
        ::munmap(memory, k_bytes);
        ASSERT_EQ(map(k_bytes, MAP_FIXED, memory), memory);
      }
    }
  }
  EXPECT_EQ(pipes_[0]->traffic()[std::size_t(Path::zero_copy)], 8 * k_bytes);
}

TEST_F(VerbsMemoryLab, HugePagesGoStraight) {
  constexpr std::size_t k_huge = 2 << 20;
  std::ofstream("/proc/sys/vm/nr_hugepages") << 8;
  std::byte* const reserved = map(2 * k_huge, MAP_HUGETLB);
  if (reserved == nullptr) GTEST_SKIP() << "the machine has no huge pages to reserve";
  std::byte* const aligned =
      reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(map(3 * k_huge)) + k_huge - 1) / k_huge * k_huge);
  ASSERT_EQ(::madvise(aligned, 2 * k_huge, MADV_HUGEPAGE), 0);
  const std::size_t bytes = k_huge + 5000;
  for (int round = 1; round <= 2; ++round) {
    EXPECT_TRUE(message({reserved, bytes}, {aligned, bytes}, round));
    EXPECT_TRUE(message({aligned, bytes}, {reserved, bytes}, round + 10));
  }
  EXPECT_EQ(pipes_[0]->traffic()[std::size_t(Path::zero_copy)], 4 * bytes);
}

}  // namespace
}  // namespace gradrail::verbs
