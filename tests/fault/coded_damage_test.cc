// Data that travels encoded and does not arrive as it was sent: whoever decodes it says whose it was, and nobody goes
// on with half an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/contract/ranks.h"
#include "transports/faulty/faulty.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

constexpr int k_ranks = 3;
constexpr std::size_t k_count = 3000;
constexpr Seconds k_patience{0.7};

std::vector<Result<void>> allreduce(const std::string& transport, const std::string& algorithm,
                                    const std::function<std::string_view(int rank)>& codec, const FaultScript& script) {
  Ranks ranks(k_ranks, transport, "", 0, 1, [&](int rank, CommunicatorOptions& options) {
    if (rank == 1)
      options.around = [&](std::unique_ptr<Transport> inner) { return make_faulty(std::move(inner), script); };
  });
  std::vector<std::vector<float>> data(k_ranks, std::vector<float>(k_count, 1.5f));
  std::vector<Memory> memories(k_ranks);
  auto said = ranks.all([&](Communicator& communicator) -> Result<void> {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    GRADRAIL_ASSIGN(memories[rank], communicator.adopt(std::as_writable_bytes(std::span(data[rank]))));
    Call call;
    call.in = call.out = {&memories[rank], 0};
    call.in_place = true;
    call.count = k_count;
    call.algorithm = algorithm;
    call.coding.codec = codec(communicator.rank());
    call.pieces = 1;
    return communicator.run(call, Deadline::after(k_patience));
  });
  memories.clear();
  return said;
}

class DamagedData : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(DamagedData, IsAnErrorThatNamesItsSender) {
  const auto& [transport, algorithm] = GetParam();
  // Rank 1 posts its receives first; whichever of its operations the first send to rank 2 is, one of these meets it.
  FaultScript script;
  for (std::uint64_t operation = 1; operation <= 4; ++operation)
    script.push_back({Fault::Kind::damage, 2, 0, operation, Seconds(0), 1});
  const auto said = allreduce(
      transport, algorithm, [](int) { return "int8"; }, script);
  ASSERT_FALSE(said[2]);
  EXPECT_EQ(said[2].error().code, Code::malformed) << said[2].error().message;
  EXPECT_EQ(said[2].error().peer, 1);
  EXPECT_THAT(said[2].error().message, HasSubstr("what rank 1 sent cannot be decoded: int8: this is no encoded"));
}

INSTANTIATE_TEST_SUITE_P(Over, DamagedData,
                         testing::Combine(testing::Values("local", "shm", "tcp"), testing::Values("ring", "two_shot")),
                         [](const auto& given) {
                           return std::string(std::get<0>(given.param)) + "_" + std::get<1>(given.param);
                         });

TEST(DamagedData, IsWhatAnotherCodecMade) {
  // Their messages have one length.
  const auto said = allreduce("local", "two_shot", [](int rank) { return rank == 1 ? "bf16" : "fp16"; }, {});
  ASSERT_FALSE(said[0]);
  EXPECT_EQ(said[0].error().code, Code::malformed);
  EXPECT_EQ(said[0].error().peer, 1);
  EXPECT_THAT(said[0].error().message, HasSubstr("was encoded by another codec"));
}

TEST(DamagedData, IsSaidWhereALinkIsCut) {
  const auto said = allreduce("tcp", "ring", [](int) { return "int8"; }, {{Fault::Kind::cut, 2, 0, 2, Seconds(0), 1}});
  ASSERT_FALSE(said[1]);
  EXPECT_EQ(said[1].error().peer, 2);
  ASSERT_FALSE(said[2]);
  EXPECT_EQ(said[2].error().peer, 1);
}

}  // namespace
}  // namespace gradrail
