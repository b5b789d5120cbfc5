// Memory of GPUs over transports that move the host's only: the bytes are right in any mixture of the two, in order,
// and what goes wrong has its sentence. The GPUs are made up (tests/unit/cuda_fake.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/contract/transport_job.h"
#include "tests/unit/cuda_fake.h"
#include "transports/memory_path.h"
#include "transports/staged/staged.h"

namespace gradrail {
namespace {

using ::testing::AllOf;
using testing::FakeCuda;
using testing::fill;
using testing::first_wrong;
using ::testing::HasSubstr;
using testing::Job;
using testing::JobOptions;
using testing::Memory;

class TransportStaged : public ::testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] JobOptions staged() {
    JobOptions options;
    options.wrap = [this](int, std::unique_ptr<Transport> inner) {
      return make_staged(std::move(inner), cuda_, "it moves host memory only");
    };
    return options;
  }
  // A GPU's memory, with that pattern in it.
  Slice on_gpu(Transport& transport, int gpu, std::size_t bytes, std::uint64_t seed) {
    const Buffer buffer{cuda_.allocate(gpu, std::max<std::size_t>(bytes, 1)), bytes, Space::cuda, gpu};
    fill({cuda_.bus(buffer.data), bytes}, seed);
    auto made = transport.register_memory(buffer);
    EXPECT_TRUE(made) << made.error().message;
    regions_.push_back(std::move(*made));
    return {regions_.back().get(), 0, bytes};
  }
  FakeCuda cuda_;
  std::vector<std::unique_ptr<Region>> regions_;
};

INSTANTIATE_TEST_SUITE_P(All, TransportStaged, ::testing::Values("shm", "tcp", "local"),
                         [](const auto& of) { return of.param; });

TEST_P(TransportStaged, MessagesOfGpusAndOfTheHostComeInOrder) {
  Job job(GetParam(), staged());
  ASSERT_TRUE(job.ok());
  // The host's and GPUs', short and long, more than there are slots for, some of them read in place.
  enum class Where { host, gpu, in_place };
  struct Message {
    Where from, to;
    std::size_t bytes;
  };
  std::vector<Message> messages;
  for (const std::size_t bytes : {8, 0, 5000, 300'000})
    for (const Where from : {Where::gpu, Where::host})
      for (const Where to : {Where::gpu, Where::host, Where::in_place}) messages.push_back({from, to, bytes});
  auto &out = job.endpoint(0, 1), &in = job.endpoint(1, 0);
  std::vector<std::unique_ptr<Memory>> hosts;
  const auto place = [&](int rank, Where where, std::size_t bytes, std::uint64_t seed) -> Slice {
    if (where == Where::gpu) return on_gpu(job.transport(rank), rank, bytes, seed);
    hosts.push_back(std::make_unique<Memory>(job.transport(rank), Memory::Kind::plain, bytes));
    fill(hosts.back()->bytes(), seed);
    return hosts.back()->all();
  };
  std::vector<Slice> landed;
  std::uint64_t seed = 1;
  for (const auto& [from, to, bytes] : messages) {
    ASSERT_TRUE(out.send(place(0, from, bytes, seed++)));
    if (to == Where::in_place) {
      ASSERT_TRUE(in.recv_in_place(bytes));
      landed.emplace_back();
      continue;
    }
    landed.push_back(place(1, to, bytes, 1000));
    ASSERT_TRUE(in.recv(landed.back()));
  }
  std::vector<std::vector<std::byte>> read(messages.size());
  ASSERT_TRUE(job.drive([&] {
    for (auto part = in.readable(); !part.empty(); part = in.readable()) {
      auto& bytes = read[in.recvs_done()];
      bytes.insert(bytes.end(), part.begin(), part.end());
      in.consume(part.size());
    }
    return in.recvs_done() == messages.size() && out.sends_done() == messages.size();
  }));
  for (std::size_t i = 0; i < messages.size(); ++i) {
    SCOPED_TRACE(i);
    const auto& message = messages[i];
    if (message.to == Where::in_place) {
      ASSERT_EQ(read[i].size(), message.bytes);
      EXPECT_EQ(first_wrong(read[i], i + 1), -1);
    } else {
      EXPECT_EQ(first_wrong({cuda_.bus(landed[i].data()), message.bytes}, i + 1), -1);
    }
  }
  EXPECT_GE(cuda_.most_under_way, 2U) << "copies did not overlap";
  regions_.clear();
}

TEST_P(TransportStaged, ARegionOfAGpuSaysHowItIsReached) {
  cuda_.pin_error = 0;
  Job job(GetParam(), staged());
  ASSERT_TRUE(job.ok());
  const auto how = [&] { return static_cast<const ChosenRegion*>(regions_.back().get())->how(); };
  on_gpu(job.transport(0), 1, 100, 1);
  EXPECT_EQ(how(), "staged through pinned host memory (it moves host memory only)");
  EXPECT_FALSE(regions_.back()->direct());
  cuda_.pin_error = 5;
  on_gpu(job.transport(0), 1, 100, 1);
  EXPECT_THAT(how(), AllOf(HasSubstr("staged through ordinary host memory (it moves host memory only; pinned: fake "),
                           HasSubstr("memlock")));
  const auto missing = job.transport(0).register_memory({nullptr, 8, Space::cuda, 2});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::unavailable);
  EXPECT_THAT(missing.error().message, HasSubstr("there is no GPU 2; CUDA sees 2 here"));
  cuda_.absent = "there is no driver";
  EXPECT_THAT(job.transport(0).register_memory({nullptr, 8, Space::cuda, 0}).error().message,
              HasSubstr("memory of GPU 0 cannot be moved: there is no driver"));
  regions_.clear();
}

TEST_P(TransportStaged, ACopyThatFailsEndsThePipeOnBothSides) {
  Job job(GetParam(), staged());
  ASSERT_TRUE(job.ok());
  auto &out = job.endpoint(0, 1), &in = job.endpoint(1, 0);
  ASSERT_TRUE(in.recv(on_gpu(job.transport(1), 1, 100'000, 2)));
  cuda_.copy_error = 700;
  const auto sent = out.send(on_gpu(job.transport(0), 0, 100'000, 1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().peer, 1);
  EXPECT_THAT(sent.error().message, HasSubstr("a copy between GPU 0 and the host failed: fake error 700"));
  ASSERT_TRUE(job.drive([&] { return in.failure() != nullptr; }));
  EXPECT_EQ(in.failure()->code, Code::peer_gone);
  EXPECT_FALSE(out.send(regions_.empty() ? Slice{} : Slice{regions_.back().get(), 0, 8}));
  job.close(0);
  job.close(1);
  EXPECT_EQ(cuda_.queues, 0U);
  EXPECT_EQ(cuda_.pinned, 0U);
  regions_.clear();
}

TEST_P(TransportStaged, MoreThanMayBeOutstandingIsRefused) {
  Job job(GetParam(), staged());
  ASSERT_TRUE(job.ok());
  const Slice memory = on_gpu(job.transport(0), 0, 8, 1);
  auto& out = job.endpoint(0, 1);
  for (std::size_t i = 0; i < job.transport(0).traits().depth; ++i) ASSERT_TRUE(out.recv(memory)) << i;
  const auto more = out.recv(memory);
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, Code::exhausted);
  job.close(0);
  regions_.clear();
}

}  // namespace
}  // namespace gradrail
