// The checks of every benchmark rest on this: right answers pass, and each kind of wrong one is counted.
#include "bench/measure/payload.h"

#include <gtest/gtest.h>

#include <cstring>

#include "collectives/exec/kernels/reduce.h"

namespace gradrail {
namespace {

std::vector<std::byte> input_of(const Payload& payload, int rank, std::size_t bytes) {
  std::vector<std::byte> input(bytes);
  payload.fill(rank, input);
  return input;
}

// The answer by adding the ranks' inputs one after the other.
std::vector<std::byte> reduced(const Payload& payload, Type type, ReduceOp op, int ranks, std::size_t bytes) {
  auto sum = input_of(payload, 0, bytes);
  for (int rank = 1; rank < ranks; ++rank)
    reduce_function(type, op)(sum.data(), sum.data(), input_of(payload, rank, bytes).data(), bytes / size_of(type));
  if (op == ReduceOp::avg) divide_function(type)(sum.data(), bytes / size_of(type), ranks);
  return sum;
}

TEST(Payload, TheRightSumIsRightForEveryTypeAndOperation) {
  for (const Type type : k_types)
    for (const ReduceOp op : k_reduce_ops)
      for (const std::uint64_t count : {1, 1000, 70001}) {
        const Payload payload(Collective::allreduce, count, type, op, 5, 0, 7);
        const auto right = reduced(payload, type, op, 5, count * size_of(type));
        EXPECT_EQ(payload.count_wrong(3, right), 0u) << to_string(type) << " " << to_string(op) << " " << count;
      }
}

TEST(Payload, EveryWrongElementIsCounted) {
  constexpr std::uint64_t k_count = 200000;  // several periods
  const Payload payload(Collective::allreduce, k_count, Type::f32, ReduceOp::sum, 4, 0, 1);
  auto answer = reduced(payload, Type::f32, ReduceOp::sum, 4, k_count * 4);
  for (const std::size_t element : {std::size_t{0}, std::size_t{65521}, std::size_t{k_count - 1}})
    answer[element * 4] ^= std::byte{1};
  EXPECT_EQ(payload.count_wrong(0, answer), 3u);
}

TEST(Payload, AContributionMissingOrTakenTwiceIsSeen) {
  const Payload payload(Collective::allreduce, 1000, Type::i32, ReduceOp::sum, 3, 0, 1);
  const auto missing = reduced(payload, Type::i32, ReduceOp::sum, 2, 4000);
  EXPECT_GT(payload.count_wrong(0, missing), 900u);
  auto twice = reduced(payload, Type::i32, ReduceOp::sum, 3, 4000);
  reduce_function(Type::i32, ReduceOp::sum)(twice.data(), twice.data(), input_of(payload, 2, 4000).data(), 1000);
  EXPECT_GT(payload.count_wrong(0, twice), 900u);
}

TEST(Payload, ABlockInAnothersPlaceIsSeen) {
  constexpr std::uint64_t k_block = 1 << 16;  // powers of two apart, as blocks often are
  const Payload payload(Collective::all_gather, k_block, Type::f32, ReduceOp::sum, 2, 0, 1);
  std::vector<std::byte> out(2 * k_block * 4);
  payload.fill(0, std::span(out).first(k_block * 4));
  payload.fill(1, std::span(out).last(k_block * 4));
  EXPECT_EQ(payload.count_wrong(0, out), 0u);
  std::memcpy(out.data(), out.data() + k_block * 4, k_block * 4);  // rank 1's block twice
  EXPECT_GT(payload.count_wrong(0, out), k_block * 9 / 10);
}

TEST(Payload, AnotherSeedIsOtherData) {
  const Payload one(Collective::allreduce, 1000, Type::f64, ReduceOp::sum, 2, 0, 1);
  const Payload other(Collective::allreduce, 1000, Type::f64, ReduceOp::sum, 2, 0, 2);
  EXPECT_GT(other.count_wrong(0, reduced(one, Type::f64, ReduceOp::sum, 2, 8000)), 900u);
}

TEST(Payload, RanksThatHaveNoOutputAreRight) {
  const Payload payload(Collective::gather, 10, Type::u8, ReduceOp::sum, 4, 2, 1);
  EXPECT_EQ(payload.count_wrong(0, {}), 0u);
}

}  // namespace
}  // namespace gradrail
