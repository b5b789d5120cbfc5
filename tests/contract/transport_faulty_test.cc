// The decorator for tests does what its script says, on every transport, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/contract/transport_job.h"
#include "transports/faulty/faulty.h"

namespace gradrail {
namespace {

using testing::fill;
using testing::first_wrong;
using testing::Job;
using testing::JobOptions;
using testing::Memory;

// Rank 0 misbehaves by the script; rank 1 is as it is.
JobOptions with(const FaultScript& script) {
  JobOptions options;
  options.lanes = 2;
  options.wrap = [script](int rank, std::unique_ptr<Transport> inner) {
    return rank == 0 ? make_faulty(std::move(inner), script) : std::move(inner);
  };
  return options;
}

class TransportFaulty : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const auto& kind : transport_kinds()) {
    if (kind.available()) names.emplace_back(kind.name);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(All, TransportFaulty, ::testing::ValuesIn(available()),
                         [](const auto& of) { return of.param; });

TEST_P(TransportFaulty, WithoutAScriptItIsTransparent) {
  Job job(GetParam(), with({}));
  ASSERT_TRUE(job.ok());
  for (const std::size_t bytes : {0, 8, 5000, 200'000}) {
    Memory out(job.transport(0), Memory::Kind::direct, bytes);
    Memory in(job.transport(1), Memory::Kind::plain, bytes);
    fill(out.bytes(), bytes);
    const auto sent = job.endpoint(0, 1).sends_done();
    ASSERT_TRUE(job.endpoint(0, 1).send(out.all()));
    ASSERT_TRUE(job.endpoint(1, 0).recv(in.all()));
    ASSERT_TRUE(job.drive(
        [&] { return job.endpoint(1, 0).recvs_done() == sent + 1 && job.endpoint(0, 1).sends_done() == sent + 1; }));
    EXPECT_EQ(first_wrong(in.bytes(), bytes), -1);
  }
  Memory foreign(job.transport(1), Memory::Kind::plain, 8);
  EXPECT_EQ(job.endpoint(0, 1).send(foreign.all()).error().code, Code::bad_usage);
}

TEST_P(TransportFaulty, CutsTheNthOperationOfOneEndpoint) {
  Fault fault;
  fault.kind = Fault::Kind::cut;
  fault.peer = 1;
  fault.lane = 1;
  fault.operation = 3;
  Job job(GetParam(), with({fault}));
  ASSERT_TRUE(job.ok());
  Memory out(job.transport(0), Memory::Kind::plain, 100);
  Memory in(job.transport(1), Memory::Kind::plain, 100);
  auto& cut = job.endpoint(0, 1, 1);
  auto& other = job.endpoint(1, 0, 1);
  for (std::uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(other.recv(in.all()));
    ASSERT_TRUE(cut.send(out.all()));
    ASSERT_TRUE(job.drive([&] { return other.recvs_done() == i && cut.sends_done() == i; }));
  }
  const auto posted = cut.send(out.all());
  ASSERT_FALSE(posted);
  EXPECT_EQ(posted.error().code, Code::peer_gone);
  EXPECT_EQ(posted.error().peer, 1);
  ASSERT_TRUE(job.drive([&] { return other.failure() != nullptr; }));
  EXPECT_EQ(other.failure()->code, Code::peer_gone);
  EXPECT_EQ(other.failure()->peer, 0);
  EXPECT_EQ(job.endpoint(0, 1, 0).failure(), nullptr) << "the other lane lives";
}

TEST_P(TransportFaulty, HoldsBackAndKeepsTheOrder) {
  Fault fault;
  fault.kind = Fault::Kind::delay;
  fault.peer = 1;
  fault.operation = 2;
  fault.delay = Seconds(0.05);
  Job job(GetParam(), with({fault}));
  ASSERT_TRUE(job.ok());
  Memory out(job.transport(0), Memory::Kind::plain, 24);
  Memory in(job.transport(1), Memory::Kind::plain, 24);
  fill(out.bytes(), 4);
  const auto start = Clock::now();
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(job.endpoint(1, 0).recv(in.slice(8 * i, 8)));
    ASSERT_TRUE(job.endpoint(0, 1).send(out.slice(8 * i, 8)));
  }
  ASSERT_TRUE(job.drive([&] { return job.endpoint(1, 0).recvs_done() == 3; }));
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(50));  // a lower bound: it was held back
  EXPECT_EQ(first_wrong(in.bytes(), 4), -1);
}

TEST_P(TransportFaulty, TruncatesWhatIsSent) {
  Fault fault;
  fault.kind = Fault::Kind::truncate;
  fault.peer = 1;
  fault.bytes = 10;
  Job job(GetParam(), with({fault}));
  ASSERT_TRUE(job.ok());
  Memory out(job.transport(0), Memory::Kind::plain, 5000);
  Memory in(job.transport(1), Memory::Kind::plain, 5000);
  ASSERT_TRUE(job.endpoint(1, 0).recv(in.all()));
  ASSERT_TRUE(job.endpoint(0, 1).send(out.all()));
  ASSERT_TRUE(job.drive([&] { return job.endpoint(1, 0).failure() != nullptr; }));
  EXPECT_EQ(job.endpoint(1, 0).failure()->code, Code::malformed);
  EXPECT_THAT(job.endpoint(1, 0).failure()->message, ::testing::HasSubstr("4990"));
}

}  // namespace
}  // namespace gradrail
