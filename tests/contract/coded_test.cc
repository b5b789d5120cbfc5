// Calls whose data is encoded: every codec of fixed-size messages on every plan, over every transport, for 1 to 9 ranks
// and ragged counts. All ranks end with the same bits, and the result is as near to the exact one as the codec
// promises.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>

#include "collectives/compress/codec.h"
#include "tests/contract/ranks.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

std::vector<float> gradient(int rank, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed * 1000 + static_cast<std::uint64_t>(rank));
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

double norm(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

// What the result may be off by: each encoding is as bad as the codec was on this data, with something to spare, and
// what was off is encoded again.
struct Bound {
  std::vector<double> exact;
  double sizes = 0;    // sum of all ranks' norms
  double quality = 0;  // the worst relative error of one encoding
};
Bound bound_of(const std::string& name, int ranks, std::size_t count, std::uint64_t seed) {
  Bound bound;
  bound.exact.assign(count, 0.0);
  for (int rank = 0; rank < ranks; ++rank) {
    const auto codec = make_codec(name).value();
    const auto values = gradient(rank, count, seed);
    std::vector<std::byte> message(codec->max_bytes(count));
    std::vector<float> back(count);
    const auto encoded = codec->encode(values, message, {.rank = static_cast<std::uint32_t>(rank)});
    EXPECT_TRUE(encoded) << name;
    EXPECT_TRUE(codec->decode(std::span(message).first(encoded->bytes), back)) << name;
    std::vector<double> whole, off;
    for (std::size_t i = 0; i < count; ++i) {
      bound.exact[i] += double{values[i]};
      whole.push_back(values[i]);
      off.push_back(double{back[i]} - double{values[i]});
    }
    bound.sizes += norm(whole);
    bound.quality = std::max(bound.quality, norm(whole) > 0 ? norm(off) / norm(whole) : 0.0);
  }
  return bound;
}

std::vector<std::string> fixed_codecs() {
  std::vector<std::string> names;
  for (const CodecKind* kind : codec_kinds())
    if (make_codec(kind->example).value()->traits().fixed_size) names.emplace_back(kind->example);
  names.insert(names.end(), {"int4+ef", "qsgd:4+ef"});
  return names;
}

std::string absence_of(const std::string& transport) {
  for (const auto& kind : transport_kinds())
    if (kind.name == transport)
      if (const auto there = kind.available(); !there) return there.error().message;
  return "";
}

struct Given {
  std::string codec;
  std::string algorithm = "auto";
  std::size_t count = 0;
  bool in_place = false;
  int lanes = 0;
  int pieces = 0;
  CodecWhere where = CodecWhere::everywhere;
  std::uint64_t seed = 1;
};
// One call on this rank; its result, and what it came to.
struct Came {
  std::vector<float> result;
  Ran ran;
  Encoding encoding;
};
Result<Came> run(Communicator& communicator, const Given& given) {
  std::vector<float> in = gradient(communicator.rank(), given.count, given.seed);
  std::vector<float> out(given.count, 77.0f);
  const std::vector<float> before = in;
  in.resize(std::max<std::size_t>(in.size(), 1));
  out.resize(std::max<std::size_t>(out.size(), 1));
  GRADRAIL_ASSIGN(const Memory in_memory, communicator.adopt(std::as_writable_bytes(std::span(in))));
  GRADRAIL_ASSIGN(const Memory out_memory, communicator.adopt(std::as_writable_bytes(std::span(out))));
  Call call;
  call.in = {&in_memory, 0};
  call.out = given.in_place ? call.in : MemoryView{&out_memory, 0};
  call.in_place = given.in_place;
  call.count = given.count;
  call.algorithm = given.algorithm;
  call.lanes = given.lanes;
  call.pieces = given.pieces;
  call.coding.codec = given.codec;
  call.coding.where = given.where;
  GRADRAIL_TRY(communicator.run(call, soon()));
  Came came;
  GRADRAIL_ASSIGN(came.ran, communicator.resolve(call, soon()));
  came.encoding = communicator.encoding();
  if (!given.in_place && !std::equal(before.begin(), before.end(), in.begin()))
    return fail(Code::malformed, "the input was changed");
  came.result = given.in_place ? in : out;
  came.result.resize(given.count);
  return came;
}

// The results of all ranks held against each other and against float64. `what` is said where they differ.
void expect_right(const std::vector<Came>& all, const Bound& bound, const std::string& what) {
  for (std::size_t rank = 1; rank < all.size(); ++rank)
    EXPECT_EQ(std::memcmp(all[0].result.data(), all[rank].result.data(), all[0].result.size() * sizeof(float)), 0)
        << what << ": rank " << rank << " has other bits than rank 0";
  if (all[0].ran.codec == "signsgd") {  // a vote, no sum
    for (const float vote : all[0].result) EXPECT_TRUE(vote == -1 || vote == 0 || vote == 1) << what;
    return;
  }
  std::vector<double> off;
  for (std::size_t i = 0; i < bound.exact.size(); ++i) off.push_back(double{all[0].result[i]} - bound.exact[i]);
  // 1e-6: of adding in float32.
  const double hops = all[0].ran.requantised;
  EXPECT_LE(norm(off), bound.sizes * (std::pow(1 + 1.5 * bound.quality, hops) - 1 + 1e-6)) << what;
}

class CodedCalls : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    if (const auto why = absence_of(std::get<0>(GetParam())); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(CodedCalls, EndWithTheSameBitsNearTheExactSum) {
  const auto& [transport, codec] = GetParam();
  for (int n = 1; n <= 9; ++n) {
    Ranks ranks(n, transport);
    if (HasFailure()) return;
    int turn = n;
    for (const Planner* planner : planners()) {
      if (planner->collective != Collective::allreduce) continue;
      for (const std::size_t count : {0, 1, 300, 5003}) {
        ++turn;
        const Given given{codec,
                          std::string(planner->name),
                          count,
                          turn % 2 == 0,
                          1 + turn % 2,
                          1 + turn % 3,
                          CodecWhere::everywhere,
                          static_cast<std::uint64_t>(turn)};
        std::vector<Came> all(static_cast<std::size_t>(n));
        ranks.expect_all([&](Communicator& communicator) -> Result<void> {
          GRADRAIL_ASSIGN(all[static_cast<std::size_t>(communicator.rank())], run(communicator, given));
          return communicator.barrier(soon());
        });
        if (HasFailure()) return;
        expect_right(all, bound_of(codec, n, count, given.seed),
                     fmt::format("{} with {}, {} ranks, {} values{}", planner->name, codec, n, count,
                                 given.in_place ? ", in place" : ""));
        if (HasFailure()) return;
      }
      for (int rank = 0; rank < n; ++rank) ranks[rank].forget_encodings();
    }
  }
}

std::vector<std::string> transports() {
  std::vector<std::string> names;
  for (const auto& kind : transport_kinds()) names.emplace_back(kind.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Over, CodedCalls,
                         testing::Combine(testing::ValuesIn(transports()), testing::ValuesIn(fixed_codecs())),
                         [](const auto& given) {
                           std::string name = std::get<0>(given.param) + "_" + std::get<1>(given.param);
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

// Sizes that are cut into many chunks, sent and received while others are encoded.
TEST(CodedCall, OfManyChunksIsRightOnEveryPlan) {
  constexpr std::size_t k_count = 700'001;
  for (const std::string transport : {"local", "shm", "tcp"}) {
    Ranks ranks(4, transport, "", 2, 2);
    ASSERT_FALSE(HasFailure());
    for (const std::string algorithm : {"auto", "two_shot", "ring", "hierarchical:ring+recursive_doubling"}) {
      const Given given{"int8", algorithm, k_count, algorithm == "ring", 0, 0, CodecWhere::everywhere, 5};
      std::vector<Came> all(4);
      ranks.expect_all([&](Communicator& communicator) -> Result<void> {
        GRADRAIL_ASSIGN(all[static_cast<std::size_t>(communicator.rank())], run(communicator, given));
        return communicator.barrier(soon());
      });
      ASSERT_FALSE(HasFailure());
      expect_right(all, bound_of("int8", 4, k_count, 5), algorithm + " over " + transport);
      const double ratio =
          static_cast<double>(all[0].encoding.dense_bytes) / static_cast<double>(all[0].encoding.wire_bytes);
      EXPECT_GT(ratio, 3.8) << algorithm;  // 260 bytes stand for 1024, and a header for each chunk
      EXPECT_LT(ratio, 4) << algorithm;
    }
  }
}

TEST(CodedCall, OfInt8IsWithinHalfALevelPerEncoding) {
  constexpr int k_ranks = 3;
  constexpr std::size_t k_count = 10'000;
  Ranks ranks(k_ranks, "local");
  std::vector<Came> all(k_ranks);
  const Given given{"int8", "two_shot", k_count, false, 1, 2, CodecWhere::everywhere, 9};
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    GRADRAIL_ASSIGN(all[static_cast<std::size_t>(communicator.rank())], run(communicator, given));
    return communicator.barrier(soon());
  });
  double largest = 0;
  std::vector<double> exact(k_count, 0.0);
  double levels = 0;
  for (int rank = 0; rank < k_ranks; ++rank) {
    double most = 0;
    const auto values = gradient(rank, k_count, 9);
    for (std::size_t i = 0; i < k_count; ++i) {
      exact[i] += double{values[i]};
      most = std::max(most, std::abs(double{values[i]}));
    }
    levels += most / 254;
  }
  for (const double value : exact) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < k_count; ++i)
    ASSERT_NEAR(all[0].result[i], exact[i], levels + (largest + levels) / 254 + 1e-5) << i;
  EXPECT_EQ(all[0].ran.requantised, 2);
  EXPECT_EQ(all[0].ran.codec, "int8");
}

TEST(CodedCall, BetweenHostsOnlyEncodesWhatCrossesThem) {
  constexpr std::size_t k_count = 100'000;
  Ranks ranks(6, "shm", "tcp", 2);
  ASSERT_FALSE(HasFailure());
  for (const std::string codec : {"int8", "qsgd:4+ef", "bf16"})
    for (const std::string algorithm : {"hierarchical", "hierarchical:two_shot+recursive_doubling"}) {
      const Given given{codec, algorithm, k_count, false, 0, 0, CodecWhere::between_hosts, 3};
      for (int repeat = 0; repeat < 2; ++repeat) {
        std::vector<Came> all(6);
        ranks.expect_all([&](Communicator& communicator) -> Result<void> {
          GRADRAIL_ASSIGN(all[static_cast<std::size_t>(communicator.rank())], run(communicator, given));
          return communicator.barrier(soon());
        });
        ASSERT_FALSE(HasFailure());
        expect_right(all, bound_of(codec, 6, k_count, 3), codec + " " + algorithm);
        EXPECT_LT(all[0].encoding.wire_bytes, all[0].encoding.dense_bytes);
      }
    }
  // A ring crosses hosts in the middle: who is before the crossing would keep what was never encoded.
  const auto said = ranks.all([&](Communicator& communicator) -> Result<void> {
    GRADRAIL_TRY(run(communicator, {"int8", "ring", k_count, false, 0, 0, CodecWhere::between_hosts, 3}));
    return {};
  });
  ASSERT_FALSE(said[0]);
  EXPECT_EQ(said[0].error().code, Code::unsupported);
  EXPECT_THAT(said[0].error().message, HasSubstr("choose hierarchical"));
}

// What was not sent goes with the next step: the mean over steps comes near the exact sum, whatever place in flight a
// step had.
TEST(CodedCall, KeepsErrorFeedbackFromCallToCall) {
  constexpr std::size_t k_count = 3000;
  constexpr int k_steps = 40;
  for (const int in_flight : {1, 3}) {
    Ranks ranks(3, "local", "", 0, in_flight);
    std::vector<double> mean(k_count, 0.0), once(k_count, 0.0), exact(k_count, 0.0);
    for (int rank = 0; rank < 3; ++rank) {
      const auto values = gradient(rank, k_count, 1);
      for (std::size_t i = 0; i < k_count; ++i) exact[i] += double{values[i]};
    }
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      for (int step = 0; step < k_steps; ++step) {
        GRADRAIL_ASSIGN(const Came came, run(communicator, {"int4+ef", "two_shot", k_count}));
        GRADRAIL_TRY(communicator.barrier(soon()));
        if (communicator.rank() != 0) continue;
        for (std::size_t i = 0; i < k_count; ++i) {
          mean[i] += double{came.result[i]} / k_steps;
          if (step == 0) once[i] = double{came.result[i]} - exact[i];
        }
      }
      return {};
    });
    for (std::size_t i = 0; i < k_count; ++i) mean[i] -= exact[i];
    EXPECT_LT(norm(mean), norm(once) / 8) << in_flight << " in flight";
  }
}

// With two shots, whoever owns a part counts all votes; a tie goes with +0.
TEST(CodedCall, OfSignsIsAVote) {
  constexpr int k_ranks = 3;
  constexpr std::size_t k_count = 4000;
  Ranks ranks(k_ranks, "local");
  std::vector<Came> all(k_ranks);
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    GRADRAIL_ASSIGN(all[static_cast<std::size_t>(communicator.rank())],
                    run(communicator, {"signsgd", "two_shot", k_count}));
    return communicator.barrier(soon());
  });
  for (std::size_t i = 0; i < k_count; ++i) {
    int votes = 0;
    for (int rank = 0; rank < k_ranks; ++rank) votes += std::signbit(gradient(rank, k_count, 1)[i]) ? -1 : 1;
    ASSERT_EQ(all[1].result[i], votes > 0 ? 1.0f : -1.0f) << i;
    if (i == 50) break;
  }
}

TEST(CodedCall, ReportsWhatIsNoFiniteNumber) {
  Ranks ranks(2, "local");
  std::vector<std::vector<float>> data(2, std::vector<float>(1000, 1.0f));
  data[1][600] = std::numeric_limits<float>::infinity();
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    auto& mine = data[static_cast<std::size_t>(communicator.rank())];
    GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(mine))));
    Call call;
    call.in = call.out = {&memory, 0};
    call.in_place = true;
    call.count = mine.size();
    call.coding.codec = "int8";
    GRADRAIL_TRY(communicator.run(call, soon()));
    if (communicator.rank() == 1 && !communicator.encoding().non_finite)
      return fail(Code::malformed, "the infinity was not reported");
    return communicator.barrier(soon());
  });
  EXPECT_TRUE(std::isnan(data[0][600]));
  EXPECT_TRUE(std::isnan(data[1][600]));
  EXPECT_NEAR(data[0][10], 2.0f, 0.02f);
}

TEST(CodedCall, OfReduceScatterAndAllGatherIsRight) {
  constexpr std::size_t k_block = 1111;
  constexpr int k_ranks = 4;
  Ranks ranks(k_ranks, "shm");
  for (const std::string algorithm : {"ring", "direct"}) {
    std::vector<std::vector<float>> gathered(k_ranks);
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      std::vector<float> whole = gradient(communicator.rank(), k_block * k_ranks, 4), block(k_block);
      std::vector<float>& all = gathered[rank];
      all.assign(k_block * k_ranks, 0.0f);
      GRADRAIL_ASSIGN(const Memory in, communicator.adopt(std::as_writable_bytes(std::span(whole))));
      GRADRAIL_ASSIGN(const Memory mine, communicator.adopt(std::as_writable_bytes(std::span(block))));
      GRADRAIL_ASSIGN(const Memory out, communicator.adopt(std::as_writable_bytes(std::span(all))));
      Call call;
      call.collective = Collective::reduce_scatter;
      call.op = ReduceOp::avg;
      call.in = {&in, 0};
      call.out = {&mine, 0};
      call.count = k_block;
      call.algorithm = algorithm;
      call.coding.codec = "int8";
      GRADRAIL_TRY(communicator.run(call, soon()));
      call.collective = Collective::all_gather;
      call.in = {&mine, 0};
      call.out = {&out, 0};
      GRADRAIL_TRY(communicator.run(call, soon()));
      return communicator.barrier(soon());
    });
    ASSERT_FALSE(HasFailure());
    for (int rank = 1; rank < k_ranks; ++rank)
      EXPECT_EQ(gathered[0], gathered[static_cast<std::size_t>(rank)]) << algorithm;
    const Bound bound = bound_of("int8", k_ranks, k_block * k_ranks, 4);
    std::vector<double> off;
    for (std::size_t i = 0; i < bound.exact.size(); ++i)
      off.push_back(double{gathered[0][i]} - bound.exact[i] / k_ranks);
    EXPECT_LT(norm(off), 0.02 * norm(bound.exact)) << algorithm;
  }
}

TEST(CodedCall, RefusesWhatItIsNotFor) {
  Ranks ranks(2, "local");
  std::vector<float> data(100);
  auto memory = ranks[0].adopt(std::as_writable_bytes(std::span(data)));
  ASSERT_TRUE(memory);
  Call call;
  call.in = call.out = {&*memory, 0};
  call.in_place = true;
  call.count = 10;
  call.coding.codec = "int8";
  const auto refusal = [&](const Call& refused) {
    const auto said = ranks[0].run(refused, soon());
    EXPECT_FALSE(said);
    return said ? std::string() : said.error().message;
  };
  Call other = call;
  other.type = Type::f64;
  EXPECT_THAT(refusal(other), HasSubstr("codecs are for float32, and the data is f64"));
  other = call;
  other.op = ReduceOp::max;
  EXPECT_THAT(refusal(other), HasSubstr("summed and averaged, and the operation is max"));
  other = call;
  other.collective = Collective::broadcast;
  EXPECT_THAT(refusal(other), HasSubstr("not for broadcast"));
  other = call;
  other.coding.codec = "int9";
  EXPECT_THAT(refusal(other), HasSubstr("no codec 'int9'"));
  other = call;
  other.algorithm = "ring";
  other.coding.codec = "topk:0.01";
  EXPECT_THAT(refusal(other), HasSubstr("ring carries messages of fixed size"));
}

}  // namespace
}  // namespace gradrail
