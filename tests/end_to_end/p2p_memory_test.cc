// Kinds of memory as a person asks for them: huge pages, and GPUs of a made-up driver (tests/end_to_end/cuda/), which
// the command loads as it would NVIDIA's. In the software RoCE machine the same over verbs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class P2pMemory : public CommandTest {
 protected:
  static Process::Settings with_gpus() { return {{"LD_LIBRARY_PATH", GRADRAIL_MADE_UP_CUDA}}; }
  // The p2p records of a run that must succeed.
  std::vector<nlohmann::json> rows(const std::string& options, const Process::Settings& settings = with_gpus()) {
    const std::string json = folder_ / "rows.jsonl";
    const auto run = gradrail(words("p2p " + options) + Words{"--json", json}, Seconds(100), settings);
    EXPECT_EQ(run.code, 0) << run.err;
    table_ = run.out;
    return of_kind(records_of(json), "p2p");
  }
  std::string table_;
};

TEST_F(P2pMemory, GpusAreStagedOverTransportsOfTheHost) {
  const auto points =
      rows("--transport shm,tcp --memory cuda --test all -b 8 -e 200000 -f 25000 --lanes 2 --rounds 2 --iters 30");
  ASSERT_THAT(points, SizeIs(4 * 2 * 2));
  for (const auto& point : points) {
    SCOPED_TRACE(point.dump());
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_GT(point["time_us"]["median"], 0);
    EXPECT_EQ(point["memory"], "cuda:0 to cuda:1") << "ranks of a host take its GPUs in turn";
    EXPECT_EQ(point["buffers"], "plain");
    const std::string transport = point["transport"] == "shm" ? "the shm transport" : "tcp";
    const auto how = "staged through pinned host memory (" + transport + " moves host memory only)";
    EXPECT_EQ(point["memory_path"], how);
    EXPECT_EQ(point["to_memory_path"], how);
  }
  EXPECT_THAT(table_, AllOf(HasSubstr("buffers of GPUs"), HasSubstr("cuda:0 to cuda:1 staged through pinned host")));
}

TEST_F(P2pMemory, OneGpuMayBeNamedAndIsTheSameForAll) {
  const auto points = rows("--transport shm --memory cuda:1 --test latency -b 4K --rounds 1 --iters 10");
  ASSERT_THAT(points, SizeIs(1));
  EXPECT_EQ(points[0]["memory"], "cuda:1");
  EXPECT_EQ(points[0]["wrong"], 0);
}

TEST_F(P2pMemory, AGpuThatIsNotThereIsOneSentence) {
  for (const auto& [options, settings, says] :
       {std::tuple{"--memory cuda", Process::Settings(), "memory of GPU 0 cannot be moved: NVIDIA's driver is not"},
        {"--memory cuda:7", with_gpus(), "there is no GPU 7; CUDA sees 2 here"}}) {
    const auto run = gradrail(words(fmt::format("p2p {} -b 8 --rounds 1", options)), Seconds(60), settings);
    EXPECT_EQ(run.code, 1);
    EXPECT_THAT(run.err, HasSubstr(says));
    EXPECT_THAT(lines_of(run.err), SizeIs(1)) << run.err;
  }
}

TEST_F(P2pMemory, HugePagesAreUsedOrMissed) {
  for (const char* command : {"p2p --transport shm,tcp --memory huge --test bandwidth -b 100000 --rounds 1 --iters 10",
                              "bench -n 2 --memory huge -b 64K -a ring --iters 5"}) {
    const std::string json = folder_ / "huge.jsonl";
    const auto run = gradrail(words(command) + Words{"--json", json});
    if (run.code != 0) {  // most hosts reserve none
      EXPECT_EQ(run.code, 1);
      EXPECT_THAT(run.err, AllOf(HasSubstr("huge pages of 2 MiB are not to be had"), HasSubstr("vm.nr_hugepages")));
      EXPECT_THAT(lines_of(run.err), SizeIs(1)) << run.err;
      continue;
    }
    for (const auto& record : records_of(json)) {
      if (record["kind"] != "p2p" && record["kind"] != "point") continue;
      EXPECT_EQ(record["memory"], "huge");
      EXPECT_EQ(record["buffers"], "plain");
      EXPECT_EQ(record["wrong"], 0);
    }
  }
}

TEST_F(P2pMemory, WhatDoesNotGoTogetherIsOneSentence) {
  for (const auto& [command, says] :
       {std::pair{"p2p --memory vram", "--memory is host, huge, cuda or cuda:DEVICE"},
        {"p2p --memory cuda:-1", "not 'cuda:-1'"},
        {"p2p --memory cuda: -b 8", "not 'cuda:'"},
        {"p2p --memory huge --buffers registered", "--memory huge is the caller's own"},
        {"bench -n 2 --memory cuda", "collectives add in memory of the host; gradrail p2p measures memory of GPUs"},
        {"bench -n 2 --memory huge --buffers registered", "--memory huge is for plain buffers"}}) {
    const auto run = gradrail(words(command));
    EXPECT_EQ(run.code, 2) << command;
    EXPECT_THAT(run.err, HasSubstr(says));
    EXPECT_THAT(lines_of(run.err), SizeIs(1)) << run.err;
  }
}

// CTest starts it as soft_roce.p2p.
class P2pMemoryLab : public P2pMemory {
 protected:
  void SetUp() override {
    if (std::getenv("SOFT_ROCE") == nullptr) GTEST_SKIP() << "needs the devices of scripts/soft-roce";
    P2pMemory::SetUp();
  }
};

TEST_F(P2pMemoryLab, VerbsStagesByItselfAndSaysWhatTheKernelRefused) {
  const auto points = rows(
      "--transport verbs --verbs device=rxe1+rxe2,chunk=64 -T 60 --memory cuda --test latency,bandwidth -b 8 -e 500K "
      "-f 62500 --rounds 2 --iters 10");
  ASSERT_THAT(points, SizeIs(2 * 2));
  for (const auto& point : points) {
    SCOPED_TRACE(point.dump());
    EXPECT_EQ(point["wrong"], 0);
    EXPECT_EQ(point["memory"], "cuda:0 to cuda:1");
    for (const auto& [field, device] : {std::pair{"memory_path", "rxe1"}, {"to_memory_path", "rxe2"}})
      EXPECT_THAT(point[field].get<std::string>(),
                  AllOf(HasSubstr(fmt::format("by {}: staged through pinned host memory", device)),
                        HasSubstr("dma-buf: NVIDIA's driver does not export it"),
                        HasSubstr("nvidia-peermem: the kernel does not know the address")));
  }
  EXPECT_THAT(table_, HasSubstr("by rxe1: staged"));
}

TEST_F(P2pMemoryLab, ADevicesOperationsTakeMemoryOfTheHost) {
  for (const auto& [options, says] :
       {std::pair{"--memory cuda", "--memory cuda is for pipes"}, {"--connect cm", "is for pipes"}}) {
    const auto run = gradrail(words(fmt::format("p2p --transport verbs --operation write -b 8 --rounds 1 {}", options)),
                              Seconds(60));
    EXPECT_EQ(run.code, 2) << run.err;
    EXPECT_THAT(run.err, HasSubstr(says));
    EXPECT_THAT(lines_of(run.err), SizeIs(1)) << run.err;
  }
}

}  // namespace
}  // namespace gradrail::test
