// What becomes of a collective when one link of one rank misbehaves: cut at every operation that a plan has on it, the
// ranks at its two ends name each other, all others hear of it or time out, and nobody goes on with half an answer. A
// link that is merely slow only slows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "collectives/plan/planner.h"
#include "tests/contract/ranks.h"
#include "transports/faulty/faulty.h"

namespace gradrail {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr int k_ranks = 4;
constexpr int k_culprit = 1;  // whose transport misbehaves
constexpr std::uint64_t k_count = 4000;
// Longer than a rank is kept from its core; only ranks away from the cut wait for so long.
constexpr Seconds k_patience{0.7};

// The operations of the culprit's plan on its link to each peer.
std::map<int, std::uint64_t> operations_of(const std::string& algorithm) {
  Shape shape;
  shape.ranks = k_ranks;
  shape.ranks_per_host = k_ranks;
  shape.in_place = true;
  std::map<int, std::uint64_t> operations;
  const Planner* planner = find_planner(Collective::allreduce, algorithm).value();
  const Program program = plan(*planner, shape, k_culprit).value();
  for (const Step& step : program.steps)
    if (step.op == Op::send || step.op == Op::recv || step.op == Op::recv_reduce) ++operations[step.peer];
  return operations;
}

struct Said {
  Result<void> first;   // the call and a barrier
  Result<void> second;  // the next call
  bool summed = false;  // the call itself was done
  bool right = false;   // with the right sum
};

// One allreduce and a barrier on every rank, and then another allreduce.
std::vector<Said> allreduce(const std::string& transport, const std::string& algorithm, const Fault& fault,
                            Seconds patience) {
  Ranks ranks(k_ranks, transport, "", 0, 1, [&](int rank, CommunicatorOptions& options) {
    if (rank == k_culprit)
      options.around = [fault](std::unique_ptr<Transport> inner) { return make_faulty(std::move(inner), {fault}); };
  });
  std::vector<Said> said(k_ranks);
  std::vector<Memory> memories(k_ranks);
  std::vector<std::vector<std::int32_t>> data(k_ranks);
  if (ranks.size() != k_ranks) return said;
  (void)ranks.all([&](Communicator& communicator) -> Result<void> {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    auto& values = data[rank];
    values.assign(k_count, 1 << rank);
    GRADRAIL_ASSIGN(memories[rank], communicator.adopt(std::as_writable_bytes(std::span(values))));
    Call call;
    call.in = call.out = {&memories[rank], 0};
    call.in_place = true;
    call.count = k_count;
    call.type = Type::i32;
    call.algorithm = algorithm;
    call.lanes = call.pieces = 1;
    said[rank].first = communicator.run(call, Deadline::after(patience));
    if (said[rank].first) {
      said[rank].summed = true;
      said[rank].right = values == std::vector<std::int32_t>(k_count, (1 << k_ranks) - 1);
      said[rank].first = communicator.barrier(Deadline::after(patience));
    }
    const auto begin = Clock::now();
    if (!said[rank].first) {
      said[rank].second = communicator.run(call, Deadline::after(Seconds(30)));
      EXPECT_LT(Seconds(Clock::now() - begin).count(), 10) << "a poisoned communicator waits";
    }
    return {};
  });
  memories.clear();
  return said;
}

using Place = std::tuple<std::string, std::string>;
class CollectiveCut : public testing::TestWithParam<Place> {};

TEST_P(CollectiveCut, IsNamedAtEveryOperation) {
  const auto& [transport, algorithm] = GetParam();
  for (const auto& [peer, operations] : operations_of(algorithm)) {
    for (std::uint64_t operation = 1; operation <= operations; ++operation) {
      SCOPED_TRACE(testing::Message() << "operation " << operation << " of " << operations << " with rank " << peer);
      Fault fault;
      fault.peer = peer;
      fault.operation = operation;
      const auto said = allreduce(transport, algorithm, fault, k_patience);
      EXPECT_FALSE(said[k_culprit].summed) << "the cut came after the call";
      for (int rank = 0; rank < k_ranks; ++rank) {
        SCOPED_TRACE(testing::Message() << "rank " << rank);
        const Said& one = said[static_cast<std::size_t>(rank)];
        ASSERT_FALSE(one.first) << "it knows nothing of the cut";
        const Error& error = one.first.error();
        EXPECT_THAT(error.code, AnyOf(Code::peer_gone, Code::timed_out));
        ASSERT_GE(error.peer, 0) << error.message;
        EXPECT_NE(error.peer, rank) << error.message;
        EXPECT_THAT(error.message, HasSubstr("rank " + std::to_string(error.peer)));
        if (rank == k_culprit) {
          EXPECT_EQ(error.code, Code::peer_gone);
          EXPECT_EQ(error.peer, peer) << error.message;
        }
        if (rank == peer && error.code == Code::peer_gone) {
          EXPECT_EQ(error.peer, k_culprit) << error.message;
        }
        ASSERT_FALSE(one.second);
        EXPECT_EQ(one.second.error().code, Code::poisoned);
      }
    }
  }
}

TEST_P(CollectiveCut, ASlowLinkOnlySlows) {
  const auto& [transport, algorithm] = GetParam();
  for (const auto& [peer, operations] : operations_of(algorithm)) {
    Fault fault;
    fault.kind = Fault::Kind::delay;
    fault.peer = peer;
    fault.operation = operations;
    fault.delay = Seconds(0.1);
    for (const Said& one : allreduce(transport, algorithm, fault, Seconds(30))) {
      EXPECT_TRUE(one.first) << one.first.error().message;
      EXPECT_TRUE(one.right);
    }
  }
}

TEST_P(CollectiveCut, AMessageOfAnotherLengthIsAnError) {
  const auto& [transport, algorithm] = GetParam();
  for (const auto& [peer, operations] : operations_of(algorithm)) {
    Fault fault;
    fault.kind = Fault::Kind::truncate;
    fault.peer = peer;
    fault.operation = 1;
    fault.bytes = 64;
    const auto said = allreduce(transport, algorithm, fault, k_patience);
    bool malformed = false;
    for (const Said& one : said) {
      ASSERT_FALSE(one.first) << "somebody took a message of the wrong length for good";
      malformed |= one.first.error().code == Code::malformed;
    }
    EXPECT_TRUE(malformed) << "nobody says that a length is wrong";
  }
}

INSTANTIATE_TEST_SUITE_P(Over, CollectiveCut,
                         testing::Combine(testing::Values("local", "shm"), testing::Values("ring", "tree", "two_shot")),
                         [](const auto& instance) {
                           return std::get<0>(instance.param) + "_" + std::get<1>(instance.param);
                         });

}  // namespace
}  // namespace gradrail
