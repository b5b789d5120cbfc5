// One suite for every planner over every transport: the right answer, exactly, for 1 to 9 ranks, ragged counts, types
// and operations, in place and not, in plain and in the transport's own memory; the same bits on every rank and every
// time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "bench/measure/buffers.h"
#include "bench/measure/payload.h"
#include "collectives/plan/planner.h"
#include "tests/contract/ranks.h"

namespace gradrail {
namespace {

// Runs one call on this rank with fresh data and says how many elements of the output are wrong.
Result<std::uint64_t> run_checked(Communicator& communicator, Call call, bool registered, std::uint64_t seed) {
  const int rank = communicator.rank();
  const int ranks = communicator.ranks();
  const Payload payload(call.collective, call.count, call.type, call.op, ranks, call.root, seed);
  const std::size_t in_size = Buffers::in_bytes(call, rank, ranks);
  const std::size_t out_size = Buffers::out_bytes(call, rank, ranks);
  const std::size_t block = call.count * size_of(call.type);

  std::vector<std::byte> plain_in(in_size), plain_out(std::max(in_size, out_size));
  const auto memory = [&](std::vector<std::byte>& plain) -> Result<Memory> {
    return registered ? communicator.allocate(plain.size()) : communicator.adopt(plain);
  };
  GRADRAIL_ASSIGN(const Memory in, memory(plain_in));
  GRADRAIL_ASSIGN(const Memory out, memory(plain_out));
  call.in = {&in, 0};
  call.out = {&out, 0};
  if (call.in_place) {
    // One buffer on the collective's coordinates: the smaller of the two is this rank's block of the larger.
    const std::size_t mine = static_cast<std::size_t>(rank) * block;
    const bool blocked = is_blocked(call.collective) && call.collective != Collective::all_to_all;
    call.in = {&out, blocked && in_size < out_size ? mine : 0};
    call.out = {&out, blocked && out_size < in_size ? mine : 0};
  }
  std::memset(plain_out.data(), 0x5A, plain_out.size());
  if (in_size > 0) payload.fill(rank, {call.in.data(), in_size});
  const std::vector<std::byte> before(call.in.data(), call.in.data() + in_size);
  GRADRAIL_TRY(communicator.run(call, soon()));
  std::uint64_t wrong = payload.count_wrong(rank, {call.out.data(), out_size});
  if (!call.in_place && in_size > 0) wrong += std::memcmp(before.data(), call.in.data(), in_size) != 0;  // const input
  GRADRAIL_TRY(communicator.barrier(soon()));  // memory that peers may still read goes only now
  return wrong;
}

// Why the tests over a transport cannot run here, if they cannot.
std::string absence_of(const std::string& transport) {
  for (const auto& kind : transport_kinds())
    if (kind.name == transport)
      if (const auto there = kind.available(); !there) return there.error().message;
  return "";
}

class EveryPlanner : public testing::TestWithParam<std::tuple<std::string, const Planner*>> {
 protected:
  void SetUp() override {
    if (const auto why = absence_of(std::get<0>(GetParam())); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(EveryPlanner, GivesTheRightAnswer) {
  const std::string transport = std::get<0>(GetParam());
  const Planner* const planner = std::get<1>(GetParam());
  constexpr std::tuple<Type, ReduceOp> k_kinds[] = {
      {Type::f32, ReduceOp::sum}, {Type::bf16, ReduceOp::sum}, {Type::f64, ReduceOp::avg},  {Type::i32, ReduceOp::min},
      {Type::u8, ReduceOp::max},  {Type::f16, ReduceOp::avg},  {Type::i64, ReduceOp::prod}, {Type::i8, ReduceOp::sum},
      {Type::u32, ReduceOp::avg}, {Type::u64, ReduceOp::sum}};
  for (int n = 1; n <= 9; ++n) {
    Ranks ranks(n, transport);
    if (HasFailure()) return;
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      std::size_t kind = 0;
      std::uint64_t seed = 1;
      for (const std::uint64_t count : {0, 1, n - 1, n + 1, 14, 1000, 4099, 70001}) {
        for (const bool in_place : {false, true}) {
          for (const bool registered : {false, true}) {
            const auto [type, op] = k_kinds[kind++ % std::size(k_kinds)];
            Call call;
            call.collective = planner->collective;
            call.algorithm = planner->name;
            call.count = count;
            call.type = type;
            call.op = op;
            call.in_place = in_place;
            call.root = static_cast<int>(seed % static_cast<std::uint64_t>(n));
            call.lanes = 1 + static_cast<int>(seed % 2);
            call.pieces = 1 + static_cast<int>(seed % 3);
            Shape shape{call.collective, n,        communicator.ranks_per_host(),
                        call.root,       in_place, call.lanes,
                        call.pieces,     {},       {}};
            if (!planner->supports(shape)) continue;
            GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, registered, ++seed));
            EXPECT_EQ(wrong, 0u) << planner->name << " " << to_string(call.collective) << ", " << n << " ranks, rank "
                                 << communicator.rank() << ", " << count << " x " << to_string(type) << " "
                                 << to_string(op) << (in_place ? ", in place" : "")
                                 << (registered ? ", registered" : ", plain") << ", root " << call.root << ", lanes "
                                 << call.lanes << ", pieces " << call.pieces;
          }
        }
      }
      return {};
    });
    if (HasFailure()) return;
  }
}

std::string name_of(const testing::TestParamInfo<EveryPlanner::ParamType>& info) {
  const auto& [transport, planner] = info.param;
  return std::string(transport) + "_" + std::string(to_string(planner->collective)) + "_" + std::string(planner->name);
}

std::vector<std::string> transports() {
  std::vector<std::string> names;
  for (const auto& kind : transport_kinds()) names.emplace_back(kind.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Over, EveryPlanner,
                         testing::Combine(testing::ValuesIn(transports()),
                                          testing::ValuesIn(planners().begin(), planners().end())),
                         name_of);

class EveryTransport : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (const auto why = absence_of(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(EveryTransport, ReducesEveryTypeWithEveryOperation) {
  Ranks ranks(3, GetParam());
  ASSERT_FALSE(HasFailure());
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    std::uint64_t seed = 100;
    for (const Type type : k_types)
      for (const ReduceOp op : k_reduce_ops) {
        Call call;
        call.count = 517;
        call.type = type;
        call.op = op;
        GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, false, ++seed));
        EXPECT_EQ(wrong, 0u) << to_string(type) << " " << to_string(op);
      }
    return {};
  });
}

// Values that round: only the same order of additions gives the same bits.
TEST_P(EveryTransport, GivesTheSameBitsOnAllRanksAndOnRepeat) {
  constexpr int k_ranks = 5;
  constexpr std::size_t k_count = 3001;
  for (const Planner* planner : planners()) {
    if (planner->collective != Collective::allreduce) continue;
    Ranks ranks(k_ranks, GetParam());
    const auto bits = [](std::span<const float> floats) { return std::as_bytes(floats); };
    std::vector<std::vector<float>> results(k_ranks);
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      for (int repeat = 0; repeat < 3; ++repeat) {
        std::vector<float> data(k_count);
        for (std::size_t i = 0; i < k_count; ++i)
          data[i] = 1.0f / static_cast<float>(3 + (i * 7919 + rank * 104729) % 1000);
        GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(data))));
        Call call;
        call.in = call.out = {&memory, 0};
        call.in_place = true;
        call.count = k_count;
        call.algorithm = planner->name;
        GRADRAIL_TRY(communicator.run(call, soon()));
        GRADRAIL_TRY(communicator.barrier(soon()));
        if (repeat == 0) results[rank] = data;
        EXPECT_TRUE(std::ranges::equal(bits(results[rank]), bits(data))) << planner->name;
      }
      return {};
    });
    for (int rank = 1; rank < k_ranks; ++rank)
      EXPECT_TRUE(std::ranges::equal(bits(results[0]), bits(results[static_cast<std::size_t>(rank)])))
          << planner->name << ": rank " << rank << " differs from rank 0";
  }
}

TEST_P(EveryTransport, KeepsSeveralCallsInFlight) {
  Ranks ranks(4, GetParam(), "", 0, 3);
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    constexpr std::size_t k_calls = 8;
    constexpr std::size_t k_count = 5000;
    std::vector<std::vector<std::int32_t>> data(k_calls, std::vector<std::int32_t>(k_count, communicator.rank() + 1));
    std::vector<Memory> memories;
    for (auto& values : data) {
      GRADRAIL_ASSIGN(Memory memory, communicator.adopt(std::as_writable_bytes(std::span(values))));
      memories.push_back(std::move(memory));
    }
    std::vector<Communicator::Operation> operations;
    for (const Memory& memory : memories) {
      Call call;
      call.in = call.out = {&memory, 0};
      call.in_place = true;
      call.count = k_count;
      call.type = Type::i32;
      call.algorithm = operations.size() % 2 == 0 ? "ring" : "auto";
      GRADRAIL_ASSIGN(const auto operation, communicator.start(call, soon()));
      operations.push_back(operation);
    }
    for (const auto operation : operations) GRADRAIL_TRY(communicator.wait(operation, soon()));
    for (const auto& values : data)
      for (const std::int32_t value : values)
        if (value != 1 + 2 + 3 + 4) return fail(Code::malformed, "a sum is wrong");
    return communicator.barrier(soon());
  });
}

TEST_P(EveryTransport, NamesTheRankThatNeverCame) {
  Ranks ranks(3, GetParam());
  // Once together, so that every channel is open.
  const auto call_with = [](const Memory& memory) {
    Call call;
    call.in = call.out = {&memory, 0};
    call.in_place = true;
    call.count = 1000;
    call.algorithm = "ring";
    return call;
  };
  std::vector<Memory> memories(3);
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    auto& memory = memories[static_cast<std::size_t>(communicator.rank())];
    GRADRAIL_ASSIGN(memory, communicator.allocate(4000));
    return communicator.run(call_with(memory), soon());
  });
  const auto said = ranks.all([&](Communicator& communicator) -> Result<void> {
    if (communicator.rank() == 1) return {};  // stays away
    const auto& memory = memories[static_cast<std::size_t>(communicator.rank())];
    auto first = communicator.run(call_with(memory), Deadline::after(Seconds(0.3)));
    const auto second = communicator.run(call_with(memory), Deadline::after(Seconds(0.3)));
    if (second || second.error().code != Code::poisoned)
      return fail(Code::malformed, "the communicator is not poisoned");
    return first;
  });
  ASSERT_FALSE(said[2]);
  EXPECT_EQ(said[2].error().code, Code::timed_out);
  EXPECT_EQ(said[2].error().peer, 1);
  EXPECT_NE(said[2].error().message.find("rank 1"), std::string::npos) << said[2].error().message;
  ASSERT_FALSE(said[0]);
  EXPECT_EQ(said[0].error().code, Code::timed_out);
  memories.clear();
}

TEST_P(EveryTransport, RefusesABufferThatIsTooSmall) {
  Ranks ranks(1, GetParam());
  auto memory = ranks[0].allocate(64);
  ASSERT_TRUE(memory) << memory.error().message;
  Call call;
  call.in = call.out = {&*memory, 0};
  call.in_place = true;
  call.count = 17;
  const auto result = ranks[0].run(call, soon());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::bad_usage);
}

// More kinds of calls than are kept bound, the first ones again at the end.
TEST_P(EveryTransport, ForgetsWhatWasNotCalledForLong) {
  Ranks ranks(2, GetParam(), "", 0, 2);
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    std::size_t most = 0;
    for (const std::uint64_t round : {0, 1})
      for (std::uint64_t count = 1; count <= 600; ++count) {
        Call call;
        call.count = count;
        call.type = Type::i32;
        call.algorithm = count % 2 == 0 ? "ring" : "recursive_doubling";
        GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, false, round * 1000 + count));
        if (wrong != 0) return fail(Code::malformed, "a sum is wrong");
        if (communicator.bindings() < most) return fail(Code::malformed, "more was forgotten than had to be");
        most = communicator.bindings();
      }
    if (most >= 600) return fail(Code::malformed, "everything is kept");
    return communicator.barrier(soon());
  });
}

INSTANTIATE_TEST_SUITE_P(Over, EveryTransport, testing::ValuesIn(transports()),
                         [](const auto& instance) { return instance.param; });

// More than slot rings and rings of lines hold, and than caches do: blocks that are combined and passed on in one pass,
// exchanges in place, results written around the caches; also where one rank's memory is plain and another's is not.
class LargeAllreduce : public testing::TestWithParam<Attach> {};

TEST_P(LargeAllreduce, IsRightInAnyMixtureOfMemory) {
  for (const int n : {2, 3}) {
    Ranks ranks(n, "shm", "", 0, 1, [](int, CommunicatorOptions& options) { options.settings.attach = GetParam(); });
    ASSERT_FALSE(HasFailure());
    // Two ranks by every algorithm: where each sends the other all it has, neither may wait for the other to begin.
    std::vector<std::string_view> algorithms;
    for (const Planner* planner : planners())
      if (planner->collective == Collective::allreduce && (n == 2 || planner->name == "two_shot"))
        algorithms.push_back(planner->name);
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      std::uint64_t seed = 70;
      for (const std::string_view algorithm : algorithms)
        for (const std::uint64_t count : {200'003, 3'000'001})
          for (const bool in_place : {false, true})
            for (const int mixture : {0, 1, 2}) {  // all plain, all registered, every second one registered
              Call call;
              call.algorithm = algorithm;
              call.count = count;
              call.in_place = in_place;
              const bool registered = mixture == 2 ? communicator.rank() % 2 == 0 : mixture == 1;
              GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, registered, ++seed));
              EXPECT_EQ(wrong, 0u) << algorithm << ", " << n << " ranks, rank " << communicator.rank() << ", " << count
                                   << (in_place ? ", in place" : "") << ", mixture " << mixture;
            }
      return {};
    });
  }
}

// Plain memory by way of the slots, and of the kernel, whatever its pages.
INSTANTIATE_TEST_SUITE_P(Shm, LargeAllreduce, testing::Values(Attach::never, Attach::always), [](const auto& instance) {
  return std::string(instance.param == Attach::never ? "never" : "always") + "Attached";
});

// Contributions of plain memory are staged in scratch by turns; with two lanes, in place and not, and where messages
// are too short or too long for it.
TEST(StagedAllreduce, IsRightHoweverManyPiecesTakeTurns) {
  for (const int n : {2, 4}) {
    Ranks ranks(n, "shm");
    ASSERT_FALSE(HasFailure());
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      std::uint64_t seed = 170;
      for (const std::uint64_t count : {9'001, 300'007, 1'200'001})
        for (const int pieces : {1, 2, 6, 7, 19})
          for (const int lanes : {1, 2})
            for (const bool in_place : {false, true}) {
              Call call;
              call.algorithm = "two_shot";
              call.count = count;
              call.lanes = lanes;
              call.pieces = pieces;
              call.in_place = in_place;
              GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, false, ++seed));
              EXPECT_EQ(wrong, 0u) << n << " ranks, rank " << communicator.rank() << ", " << count << ", " << pieces
                                   << " pieces, " << lanes << " lanes" << (in_place ? ", in place" : "");
            }
      return {};
    });
  }
}

TEST(StagedAllreduce, IsNotCalledZeroCopy) {
  Ranks ranks(2, "shm");
  ASSERT_FALSE(HasFailure());
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    Call call;
    call.count = 1 << 18;
    const Traffic before = communicator.traffic();
    GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, false, 270));
    const Traffic after = communicator.traffic();
    EXPECT_EQ(wrong, 0u);
    const auto sent = [&](Path path) { return after[std::size_t(path)] - before[std::size_t(path)]; };
    EXPECT_EQ(sent(Path::zero_copy), 0u);
    EXPECT_EQ(sent(Path::one_copy), std::uint64_t{1} << 20);
    return {};
  });
}

// In one process nobody has to come: local is not among these.
class BetweenProcesses : public testing::TestWithParam<const char*> {};

TEST_P(BetweenProcesses, IsPoisonedWhereNobodyComesToConnect) {
  Ranks ranks(2, GetParam());
  Call call;
  call.count = 1000;
  const auto resolved = ranks[0].resolve(call, Deadline::after(Seconds(0.2)));  // rank 1 does nothing
  ASSERT_FALSE(resolved);
  EXPECT_EQ(resolved.error().code, Code::timed_out);
  const auto again = ranks[0].resolve(call, soon());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::poisoned);
  const auto called = ranks[0].barrier(soon());
  ASSERT_FALSE(called);
  EXPECT_EQ(called.error().code, Code::poisoned);
}

INSTANTIATE_TEST_SUITE_P(Over, BetweenProcesses, testing::Values("shm", "tcp"),
                         [](const auto& instance) { return std::string(instance.param); });

// Hosts imitated on one machine: another transport between them.
TEST(Hierarchical, RunsAnyAlgorithmInsideAndBetweenHosts) {
  for (const auto& hosts : {std::pair{4, 2}, {6, 3}, {6, 2}, {8, 4}, {3, 1}, {3, 3}}) {
    const int n = hosts.first, per_host = hosts.second;
    Ranks ranks(n, "shm", "tcp", per_host);
    ASSERT_FALSE(HasFailure());
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      std::uint64_t seed = 7;
      for (const char* algorithm : {"hierarchical", "hierarchical:ring+tree", "hierarchical:two_shot+ring",
                                    "hierarchical:ring+recursive_doubling", "hierarchical:ring+halving_doubling"})
        for (const std::uint64_t count : {1, 5, 1000, 40007}) {
          Call call;
          call.count = count;
          call.algorithm = algorithm;
          call.in_place = count % 2 == 0;
          GRADRAIL_ASSIGN(const auto wrong, run_checked(communicator, call, count == 1000, ++seed));
          EXPECT_EQ(wrong, 0u) << algorithm << ", " << n << " ranks, " << per_host << " a host, " << count;
        }
      return {};
    });
  }
}

}  // namespace
}  // namespace gradrail
