// How an RDMA device reaches the memory of a GPU: every combination of what the GPU's driver, the device and the kernel
// may say, over ones that do not exist (cuda_fake.h, verbs_fake.h).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cuda_fake.h"
#include "tests/unit/verbs_fake.h"
#include "transports/verbs/gpu.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::FakeCuda;
using testing::FakeVerbs;
using testing::gid_entry;
using ::testing::HasSubstr;

constexpr std::size_t k_bytes = 1 << 20;

class VerbsGpu : public ::testing::Test {
 protected:
  VerbsGpu() {
    calls_.machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, 1})};
    calls_.machine.is_gpu = [this](const void* address) { return cuda_.owns(address); };
    open("");
    memory_ = cuda_.allocate(0, k_bytes);
  }
  void open(std::string_view options) {
    rails_ = Device::open_all(calls_, parse_options(options).value(), 0, "127.0.0.1").value();
  }
  Result<Reached> reach(std::byte* memory = nullptr) {
    auto gpu = Gpu::open(cuda_, 0);
    if (!gpu) return tl::unexpected<Error>(std::move(gpu).error());
    const auto begin = reinterpret_cast<std::uintptr_t>(memory == nullptr ? memory_ : memory);
    return (*gpu)->reach(*rails_.front(), {begin + 100, begin + 5000});
  }

  FakeCuda cuda_;
  FakeVerbs calls_;
  std::vector<std::unique_ptr<Device>> rails_;
  std::byte* memory_;
};

TEST_F(VerbsGpu, TheBestWayThatIsOpenIsTakenAndTheOthersSayWhyNot) {
  struct Case {
    bool exports;
    int export_error;
    int dma_buf_error;  // of the RDMA device
    bool peer_memory;
    int pin_error;
    MemoryPath path;
    std::vector<std::string> against;
  };
  const std::string old = "the open kernel modules, Linux 5.12 and CUDA 11.7";
  const std::string unknown = "modprobe nvidia_peermem";
  for (const Case& one : std::vector<Case>{
           {true, 0, 0, false, 0, MemoryPath::dma_buf, {}},
           {true, 0, 0, true, 0, MemoryPath::dma_buf, {}},
           {true, 0, 0, false, 9, MemoryPath::dma_buf, {}},
           {false, 0, 0, true, 0, MemoryPath::peer_memory, {"dma-buf: NVIDIA's driver does not export it"}},
           {true, 5, 0, true, 0, MemoryPath::peer_memory, {"dma-buf: exporting it failed: fake error 5"}},
           {true, 0, EOPNOTSUPP, true, 0, MemoryPath::peer_memory, {"dma-buf: the driver of fake0 takes none"}},
           {true, 0, ENOMEM, true, 0, MemoryPath::peer_memory, {"fake0 could not register it: Cannot allocate"}},
           {false, 0, 0, false, 0, MemoryPath::staged, {old, unknown}},
           {true, 5, 0, false, 0, MemoryPath::staged, {"fake error 5", unknown}},
           {true, 0, EOPNOTSUPP, false, 0, MemoryPath::staged, {"the driver of fake0 takes none", unknown}},
           {false, 0, 0, false, 9, MemoryPath::staged_slow, {old, unknown, "pinned: locking host memory", "ulimit -l"}},
           {true, 0, EOPNOTSUPP, false, 9, MemoryPath::staged_slow, {"takes none", unknown, "fake error 9"}},
       }) {
    cuda_.exports = one.exports;
    cuda_.export_error = one.export_error;
    cuda_.pin_error = one.pin_error;
    calls_.machine.dma_buf_error = one.dma_buf_error;
    calls_.machine.peer_memory = one.peer_memory;
    cuda_.ordered = 0;
    {
      const auto reached = reach();
      ASSERT_TRUE(reached) << reached.error().message;
      EXPECT_EQ(reached->how.path, one.path) << to_text(reached->how);
      EXPECT_EQ(reached->memory == nullptr, reached->how.staged());
      EXPECT_EQ(cuda_.ordered, reached->how.staged() ? 0U : 1U);
      for (const auto& words : one.against) EXPECT_THAT(to_text(reached->how), HasSubstr(words));
      EXPECT_EQ(to_text(reached->how).find('(') == std::string::npos, one.against.empty());
      if (reached->memory != nullptr) {
        EXPECT_EQ(reached->memory->addr, memory_ + 100) << "known by the program's address";
        EXPECT_EQ(reached->memory->length, 4900U);
      }
    }
    EXPECT_EQ(calls_.registered_bytes(), 0U);
    EXPECT_EQ(cuda_.pinned, 0U);
  }
}

TEST_F(VerbsGpu, NoRoomForItIsTold) {
  calls_.machine.dma_buf_error = EOPNOTSUPP;
  calls_.machine.peer_memory = true;
  calls_.machine.memory = 100;
  const auto reached = reach();
  ASSERT_TRUE(reached);
  EXPECT_EQ(reached->how.path, MemoryPath::staged);
  EXPECT_THAT(to_text(reached->how), AllOf(HasSubstr("BAR1"), HasSubstr("memlock")));
}

TEST_F(VerbsGpu, TheSettingLeavesOneWayOnly) {
  calls_.machine.dma_buf_error = 0;
  calls_.machine.peer_memory = true;
  for (const auto& [setting, path] : {std::pair{"gpu=best", MemoryPath::dma_buf},
                                      {"gpu=dma-buf", MemoryPath::dma_buf},
                                      {"gpu=peermem", MemoryPath::peer_memory},
                                      {"gpu=staged", MemoryPath::staged}}) {
    open(setting);
    const auto reached = reach();
    ASSERT_TRUE(reached);
    EXPECT_EQ(reached->how.path, path);
    if (path != MemoryPath::dma_buf) {
      EXPECT_THAT(to_text(reached->how), HasSubstr("asks for another way"));
    }
  }
  calls_.machine.dma_buf_error = EOPNOTSUPP;
  calls_.machine.peer_memory = false;
  for (const auto& [setting, words] :
       {std::pair{"gpu=dma-buf", "fake0 port 1 does not reach GPU 0 by dma-buf: the driver of fake0 takes none"},
        {"gpu=peermem", "does not reach GPU 0 by nvidia-peermem: the kernel does not know the address"}}) {
    open(setting);
    const auto refused = reach();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::unavailable);
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr(words), HasSubstr("leave the verbs setting gpu out")));
  }
  const auto unknown = parse_options("gpu=direct");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("best, dma-buf, peermem or staged, not 'direct'"));
}

TEST_F(VerbsGpu, MemoryThatIsNotItsOwnIsRefused) {
  std::vector<std::byte> host(8192);
  for (std::byte* memory : {host.data(), cuda_.allocate(1, k_bytes)}) {
    const auto refused = reach(memory);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::bad_usage);
    EXPECT_THAT(refused.error().message, HasSubstr("is not its own memory"));
  }
}

TEST_F(VerbsGpu, NoDriverAndNoSuchGpuAreToldSo) {
  const auto none = Gpu::open(cuda_, 7);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::unavailable);
  EXPECT_THAT(none.error().message, HasSubstr("no GPU 7; CUDA sees 2"));
  cuda_.absent = "NVIDIA's driver is not installed here";
  const auto refused = reach();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("memory of GPU 0 cannot be moved: NVIDIA's driver is not installed"));
}

// Here there is one, or a sentence.
TEST(CudaDriver, SaysWhyThereIsNone) {
  CudaDriver& driver = cuda_driver();
  const auto missing = driver.missing();
  int gpus = -1;
  if (missing.empty()) {
    EXPECT_EQ(driver.count(gpus), 0);
  } else {
    EXPECT_THAT(missing, HasSubstr("driver"));
  }
  EXPECT_FALSE(driver.words(2).empty());
}

}  // namespace
}  // namespace gradrail::verbs
