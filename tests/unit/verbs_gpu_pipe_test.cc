// Messages from and to memory of GPUs, over devices and GPUs that do not exist: by every way there is, every byte
// arrives, and nobody but a copy of the driver, or a device that reaches it, ever touches a GPU's address (which would
// be a fault, see cuda_fake.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <thread>

#include "tests/unit/cuda_fake.h"
#include "tests/unit/verbs_fake.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::FakeCuda;
using testing::FakeVerbs;
using testing::gid_entry;
using ::testing::HasSubstr;

// A buffer of a rank: on its GPU (whose number is the rank's), or plain.
class Memory {
 public:
  Memory(Transport& transport, FakeCuda& cuda, int rank, bool on_gpu, std::size_t bytes) : plain_(on_gpu ? 0 : bytes) {
    std::byte* const data = on_gpu ? cuda.allocate(rank, std::max<std::size_t>(bytes, 1)) : plain_.data();
    bytes_ = {cuda.bus(data), bytes};
    auto made = transport.register_memory({data, bytes, on_gpu ? Space::cuda : Space::host, on_gpu ? rank : -1});
    EXPECT_TRUE(made) << made.error().message;
    if (made) region_ = std::move(*made);
  }
  // The bytes themselves, wherever they are.
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
  [[nodiscard]] Slice slice(std::size_t offset, std::size_t size) const { return {region_.get(), offset, size}; }
  [[nodiscard]] const Region& region() const { return *region_; }

 private:
  std::vector<std::byte> plain_;
  std::span<std::byte> bytes_;
  std::unique_ptr<Region> region_;
};

std::byte pattern(std::uint64_t seed, std::size_t at) {
  return static_cast<std::byte>((at * 0x9e37'79b9'7f4a'7c15ULL + seed * 0xbf58'476d'1ce4'e5b9ULL) >> 56);
}
void fill(std::span<std::byte> bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(seed, i);
}
bool is(std::span<const std::byte> bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != pattern(seed, i)) return false;
  return true;
}

class VerbsGpuPipe : public ::testing::Test {
 protected:
  VerbsGpuPipe() {
    calls_.machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, 1})};
    calls_.machine.is_gpu = [this](const void* address) { return cuda_.owns(address); };
    calls_.machine.bus = [this](std::byte* address) { return cuda_.bus(address); };
  }
  ~VerbsGpuPipe() override {
    for (auto& pipe : pipes_) pipe.reset();
    for (auto& transport : transports_) transport.reset();
    EXPECT_EQ(calls_.broken_rule, "");
    EXPECT_TRUE(calls_.empty()) << "everything is given back";
    EXPECT_EQ(cuda_.pinned, 0U);
    EXPECT_EQ(cuda_.queues, 0U);
  }
  // `settings`: of each rank, as --verbs has them.
  void connect(const char* settings0, const char* settings1) {
    Address addresses[2];
    for (int rank : {0, 1}) {
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      settings.verbs = rank == 0 ? settings0 : settings1;
      auto made = VerbsTransport::make(settings, calls_, nullptr, cuda_);
      ASSERT_TRUE(made) << made.error().message;
      transports_[rank] = std::move(*made);
      addresses[rank] = transports_[rank]->listen().value();
    }
    const auto meet = [&](int rank) {
      const Peer peer{.rank = 1 - rank, .lane = 0, .host = "host", .address = addresses[1 - rank]};
      auto made = transports_[rank]->connect({&peer, 1}, Deadline::after(Seconds(20)));
      if (made) pipes_[rank] = std::move(made->front());
    };
    std::thread other([&] { meet(1); });
    meet(0);
    other.join();
    ASSERT_TRUE(pipes_[0] && pipes_[1]);
  }
  Memory memory(int rank, bool on_gpu, std::size_t bytes) { return {*transports_[rank], cuda_, rank, on_gpu, bytes}; }
  [[nodiscard]] bool drive(const std::function<bool()>& done) {
    const auto deadline = Deadline::after(Seconds(20));
    while (!done() && !deadline.passed()) {
      for (auto& transport : transports_) transport->progress();
      for (const auto& pipe : pipes_)
        if (pipe->failure() != nullptr) return false;
    }
    return done();
  }
  [[nodiscard]] std::string failure() const {
    for (const auto& pipe : pipes_)
      if (pipe->failure() != nullptr) return pipe->failure()->message;
    return "none";
  }
  // From rank 0 to rank 1, whatever is around it staying as it is.
  void message(std::size_t bytes, bool from_gpu, bool to_gpu, bool in_place, bool receive_first, std::uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << bytes << " bytes from " << (from_gpu ? "GPU" : "host") << " to "
                                      << (in_place ? "ring"
                                          : to_gpu ? "GPU"
                                                   : "host")
                                      << (receive_first ? ", receive first" : ", send first"));
    constexpr std::size_t k_offset = 24;
    const auto out = memory(0, from_gpu, bytes + k_offset);
    const auto in = memory(1, to_gpu, bytes + 2 * k_offset);
    fill(out.bytes().subspan(k_offset), seed);
    std::fill(in.bytes().begin(), in.bytes().end(), std::byte{0x5a});
    const auto sends = pipes_[0]->sends_done(), recvs = pipes_[1]->recvs_done();
    const auto post_recv = [&] {
      ASSERT_TRUE(in_place ? pipes_[1]->recv_in_place(bytes) : pipes_[1]->recv(in.slice(k_offset, bytes)));
    };
    if (receive_first) post_recv();
    const auto sent = pipes_[0]->send(out.slice(k_offset, bytes));
    ASSERT_TRUE(sent) << sent.error().message;
    if (!receive_first) {
      for (int i = 0; i < 10; ++i)
        for (auto& transport : transports_) transport->progress();
      post_recv();
    }
    std::size_t read = 0;
    ASSERT_TRUE(drive([&] {
      if (in_place)
        for (auto part = pipes_[1]->readable(); !part.empty(); part = pipes_[1]->readable()) {
          std::memcpy(in.bytes().data() + k_offset + read, part.data(), part.size());
          read += part.size();
          pipes_[1]->consume(part.size());
        }
      return pipes_[0]->sends_done() > sends && pipes_[1]->recvs_done() > recvs;
    })) << failure();
    EXPECT_EQ(pipes_[0]->sends_done(), sends + 1);
    EXPECT_EQ(pipes_[1]->recvs_done(), recvs + 1);
    EXPECT_TRUE(is(in.bytes().subspan(k_offset, bytes), seed));
    for (const auto guard : {in.bytes().first(k_offset), in.bytes().last(k_offset)})
      EXPECT_TRUE(std::all_of(guard.begin(), guard.end(), [](auto b) { return b == std::byte{0x5a}; }));
  }
  void messages_of_every_size() {
    const std::size_t slot = Settings{}.slot_bytes, ring = slot * Settings{}.slots;
    std::uint64_t seed = 1;
    for (const std::size_t bytes :
         {std::size_t(0), std::size_t(1), std::size_t(64), std::size_t(65), std::size_t(4095), std::size_t(8192),
          std::size_t(8193), slot - 1, slot, slot + 1, 3 * slot + 17, ring + 64, 2 * ring + 100'001, 20 * ring + 77})
      for (const bool from_gpu : {true, false})
        for (const int to : {0, 1, 2}) {  // host, GPU, in place
          if (!from_gpu && to != 1) continue;
          for (const bool receive_first : {true, false}) {
            message(bytes, from_gpu, to == 1, to == 2, receive_first, ++seed);
            if (HasFatalFailure()) return;
          }
        }
  }

  FakeVerbs calls_;
  FakeCuda cuda_;
  std::unique_ptr<Transport> transports_[2];
  std::unique_ptr<Endpoint> pipes_[2];
};

TEST_F(VerbsGpuPipe, EverySizeByEveryWay) {
  calls_.machine.dma_buf_error = 0;
  calls_.machine.peer_memory = true;
  for (const char* sender : {"gpu=dma-buf", "gpu=peermem", "gpu=staged"})
    for (const char* receiver : {"gpu=dma-buf", "gpu=staged"}) {
      SCOPED_TRACE(::testing::Message() << sender << " to " << receiver);
      ASSERT_NO_FATAL_FAILURE(connect(sender, receiver));
      ASSERT_NO_FATAL_FAILURE(messages_of_every_size());
      const bool staged = sender == std::string_view("gpu=staged");
      // What the host's memory sends straight, it sends straight to a GPU that is reached, too.
      EXPECT_GT(pipes_[0]->traffic()[std::size_t(staged ? Path::in_line : Path::zero_copy)], 0U);
      for (auto& pipe : pipes_) pipe.reset();
    }
}

TEST_F(VerbsGpuPipe, EverySizeOverSeveralQueuePairsAndRails) {
  calls_.machine.dma_buf_error = 0;
  for (const char* sender : {"rails=2,pairs=2,gpu=dma-buf", "rails=2,pairs=2,gpu=staged,chunk=64"})
    for (const char* receiver : {"rails=2,pairs=2,gpu=dma-buf", "rails=2,pairs=2,gpu=staged"}) {
      SCOPED_TRACE(::testing::Message() << sender << " to " << receiver);
      ASSERT_NO_FATAL_FAILURE(connect(sender, receiver));
      ASSERT_NO_FATAL_FAILURE(messages_of_every_size());
      for (auto& pipe : pipes_) pipe.reset();
    }
}

TEST_F(VerbsGpuPipe, ManyOutstandingBothWaysInOrder) {
  ASSERT_NO_FATAL_FAILURE(connect("", "chunk=8"));
  constexpr std::uint64_t k_messages = 300, k_window = 12;
  constexpr std::size_t k_room = 70'000;
  const auto size_of = [](std::uint64_t n) -> std::size_t { return n % 7 == 3 ? k_room - n : n * 37 % 600; };
  struct Side {
    std::vector<Memory> out, in;
    std::uint64_t sent = 0, posted = 0, checked = 0;
  } sides[2];
  for (int rank : {0, 1})
    for (std::uint64_t i = 0; i < k_window; ++i) {
      sides[rank].out.push_back(memory(rank, i % 3 != 0, k_room));
      sides[rank].in.push_back(memory(rank, i % 4 != 0, k_room));
    }
  ASSERT_TRUE(drive([&] {
    bool all = true;
    for (int rank : {0, 1}) {
      auto& side = sides[rank];
      auto& pipe = *pipes_[rank];
      while (side.sent < k_messages && side.sent - pipe.sends_done() < k_window) {
        const auto& memory = side.out[side.sent % k_window];
        fill(memory.bytes().first(size_of(side.sent)), side.sent + 1000 * std::uint64_t(rank));
        EXPECT_TRUE(pipe.send(memory.slice(0, size_of(side.sent))));
        ++side.sent;
      }
      while (side.posted < k_messages && side.posted - side.checked < k_window) {
        EXPECT_TRUE(pipe.recv(side.in[side.posted % k_window].slice(0, size_of(side.posted))));
        ++side.posted;
      }
      for (; side.checked < pipe.recvs_done(); ++side.checked)
        EXPECT_TRUE(is(side.in[side.checked % k_window].bytes().first(size_of(side.checked)),
                       side.checked + 1000 * std::uint64_t(1 - rank)))
            << "message " << side.checked;
      all = all && side.checked == k_messages && pipe.sends_done() == k_messages;
    }
    return all || HasFailure();
  })) << failure();
}

// What is copied next while something is on the wire, and no further than there are chunks.
TEST_F(VerbsGpuPipe, CopiesRunAheadOfTheWireAndNoFurtherThanThereIsRoom) {
  ASSERT_NO_FATAL_FAILURE(connect("chunk=64", ""));
  const std::size_t bytes = 1 << 20;
  const auto out = memory(0, true, bytes);
  const auto in = memory(1, false, bytes);
  fill(out.bytes(), 5);
  ASSERT_TRUE(pipes_[1]->recv(in.slice(0, bytes)));
  calls_.silent = true;  // nothing is acknowledged
  ASSERT_TRUE(pipes_[0]->send(out.slice(0, bytes)));
  for (int i = 0; i < 1000; ++i)
    for (auto& transport : transports_) transport->progress();
  EXPECT_EQ(cuda_.copies, Outgoing::k_chunks);
  EXPECT_GE(cuda_.most_under_way, 2U);
  calls_.silent = false;
  ASSERT_TRUE(drive([&] { return pipes_[1]->recvs_done() == 1 && pipes_[0]->sends_done() == 1; })) << failure();
  EXPECT_EQ(cuda_.copies, bytes / (64 << 10));
  EXPECT_EQ(pipes_[0]->traffic()[std::size_t(Path::one_copy)], bytes);
  EXPECT_TRUE(is(in.bytes(), 5));
}

// Arrived parts that adjoin go to the GPU together.
TEST_F(VerbsGpuPipe, PartsThatAdjoinAreCopiedTogether) {
  ASSERT_NO_FATAL_FAILURE(connect("", ""));
  cuda_.polls_a_copy = 20;
  const std::size_t bytes = 4 << 20;
  const auto out = memory(0, false, bytes);
  const auto in = memory(1, true, bytes);
  fill(out.bytes(), 6);
  ASSERT_TRUE(pipes_[1]->recv(in.slice(0, bytes)));
  ASSERT_TRUE(pipes_[0]->send(out.slice(0, bytes)));
  ASSERT_TRUE(drive([&] { return pipes_[1]->recvs_done() == 1; })) << failure();
  EXPECT_TRUE(is(in.bytes(), 6));
  EXPECT_LT(cuda_.copies, bytes / Settings{}.slot_bytes);
}

TEST_F(VerbsGpuPipe, ThePathAndItsReasonsAreDescribed) {
  ASSERT_NO_FATAL_FAILURE(connect("", "rails=1"));
  EXPECT_THAT(transports_[0]->describe(), ::testing::Not(HasSubstr("GPU")));
  const auto one = memory(0, true, 10'000);
  EXPECT_FALSE(one.region().direct());
  const auto other = memory(0, true, 10'000);
  EXPECT_THAT(transports_[0]->describe(),
              AllOf(HasSubstr("; GPU 0 by fake0: staged through pinned host memory (dma-buf: the driver of fake0 takes "
                              "none; nvidia-peermem: the kernel does not know the address; modprobe nvidia_peermem)"),
                    ::testing::Not(HasSubstr("; GPU 0 by fake0: staged through pinned host memory (dma-buf: the driver "
                                             "of fake0 takes none; nvidia-peermem: the kernel does not know the "
                                             "address; modprobe nvidia_peermem); GPU"))));
  calls_.machine.dma_buf_error = 0;
  const auto third = memory(0, true, 10'000);
  EXPECT_TRUE(third.region().direct());
  EXPECT_THAT(transports_[0]->describe(), HasSubstr("; GPU 0 by fake0: dma-buf"));
}

TEST_F(VerbsGpuPipe, WhatADeviceWroteToAGpuIsFlushedWhereThatIsNeeded) {
  calls_.machine.dma_buf_error = 0;
  for (const bool needed : {false, true}) {
    cuda_.flush_needed = needed;
    ASSERT_NO_FATAL_FAILURE(connect("", ""));
    ASSERT_NO_FATAL_FAILURE(message(100'000, false, true, false, true, 3));
    EXPECT_EQ(cuda_.flushed, needed ? 1U : 0U);
    for (auto& pipe : pipes_) pipe.reset();
  }
}

TEST_F(VerbsGpuPipe, ACopyThatFailsEndsThePipeWithItsReason) {
  for (const bool sending : {true, false}) {
    cuda_.copy_error = 0;
    ASSERT_NO_FATAL_FAILURE(connect("", ""));
    const auto out = memory(0, sending, 100'000);
    const auto in = memory(1, !sending, 100'000);
    ASSERT_TRUE(pipes_[1]->recv(in.slice(0, 100'000)));
    cuda_.copy_error = 7;
    ASSERT_TRUE(pipes_[0]->send(out.slice(0, 100'000)));
    EXPECT_FALSE(drive([] { return false; }));
    const Error* error = pipes_[sending ? 0 : 1]->failure();
    ASSERT_NE(error, nullptr);
    EXPECT_THAT(error->message, AllOf(HasSubstr(sending ? "rank 1 on host" : "rank 0 on host"),
                                      HasSubstr("a copy between GPU"), HasSubstr("fake error 7")));
    for (auto& pipe : pipes_) pipe.reset();
  }
}

TEST_F(VerbsGpuPipe, WhereChunksCannotBeHadTheSendSaysWhatToDo) {
  ASSERT_NO_FATAL_FAILURE(connect("", ""));
  const auto out = memory(0, true, 100'000);
  calls_.machine.memory = calls_.registered_bytes() + 1000;
  const auto refused = pipes_[0]->send(out.slice(0, 100'000));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("1048576 bytes"));
  calls_.machine.memory = SIZE_MAX;
  cuda_.queue_error = 4;
  const auto again = pipes_[0]->send(out.slice(0, 100'000));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::unavailable);
  EXPECT_THAT(again.error().message, HasSubstr("GPU 0 gave no stream for copies: fake error 4"));
  EXPECT_EQ(pipes_[0]->failure(), nullptr) << "nothing was posted";
  cuda_.queue_error = 0;
  ASSERT_NO_FATAL_FAILURE(message(100'000, true, true, false, true, 4));
}

TEST_F(VerbsGpuPipe, WithoutADriverMemoryOfAGpuIsRefused) {
  ASSERT_NO_FATAL_FAILURE(connect("", ""));
  cuda_.absent = "NVIDIA's driver is not installed here";
  const auto refused = transports_[0]->register_memory({cuda_.allocate(0, 100), 100, Space::cuda, 0});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unavailable);
}

}  // namespace
}  // namespace gradrail::verbs
