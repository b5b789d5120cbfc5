// What every codec owes: lengths as announced, errors within bounds, the same bits for the same input however it was
// cut, unbiased rounding, sums over ranks, and errors instead of crashes on damaged messages.
#include "collectives/compress/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/exec/kernels/reduce.h"
#include "tests/property/codec_cases.h"

namespace gradrail {
namespace {

constexpr std::size_t k_counts[] = {0,   1,   2,   3,   7,    15,   16,   17,   63,   127,  128,
                                    129, 255, 256, 257, 1000, 2047, 2048, 2049, 4096, 10007};

bool starts_with(std::string_view text, std::string_view front) { return text.substr(0, front.size()) == front; }

TEST(CodecNames, OfEveryKindAreReadBack) {
  for (const CodecKind* kind : codec_kinds()) {
    const auto codec = make_codec(kind->example);
    ASSERT_TRUE(codec) << kind->example << ": " << codec.error().message;
    EXPECT_TRUE(starts_with((*codec)->name(), kind->word));
  }
  for (const std::string& name : codec_names()) {
    const std::string full = codec_of(name)->name();
    EXPECT_EQ(codec_of(full)->name(), full);
  }
  EXPECT_EQ(codec_of("topk:0.001+momentum:0.9+clip:2+warmup:4")->name(),
            "topk:0.001+momentum:0.9+clip:2+warmup:4:0.25");
}

TEST(CodecNames, BadOnesAreRefusedWithASentence) {
  const std::pair<const char*, const char*> k_bad[] = {
      {"", "there is no codec ''; known are fp16, bf16"},
      {"int7", "there is no codec 'int7'"},
      {"int8:3", "'int8' takes no parameters"},
      {"topk", "'topk' takes 1 to 2 parameters, and 0 are given"},
      {"topk:", "'' in 'topk:' is no number"},
      {"topk:x", "'x' in 'topk:x' is no number"},
      {"topk:0.1x", "'0.1x' in 'topk:0.1x' is no number"},
      {"topk:0", "'topk:0' would send nothing"},
      {"topk:1.5", "'topk:1.5' is out of range: 0 to 1"},
      {"topk:nan", "'topk:nan' is out of range"},
      {"topk:0.1:quick", "'quick' is no way of choosing"},
      {"randomk:0.1:x", "'x' means nothing to randomk"},
      {"powersgd", "'powersgd' takes 1 parameter, as in powersgd:X, and 0 are given"},
      {"powersgd:0", "'powersgd:0' is out of range: 1 to 256"},
      {"powersgd:2.5", "'powersgd:2.5' is no whole rank"},
      {"qsgd:3", "'qsgd:3' is not possible"},
      {"qsgd:4:mean", "'mean' is no scale of qsgd"},
      {"fp8:e3m4", "'fp8:e3m4' is no format"},
      {"int8+", "there is no wrapper ''"},
      {"int8+x", "there is no wrapper 'x'"},
      {"int8+ef:1", "'ef' takes no parameters"},
      {"int8+momentum:2", "'momentum:2' is out of range: 0 to 1"},
      {"int8+warmup:4", "'int8' sends no share of its values"},
      {"topk:0.1+warmup:0.5", "'warmup:0.5' is out of range"},
      {"topk:0.1+warmup:1.5", "'warmup:1.5' is no whole number"},
  };
  for (const auto& [name, words] : k_bad) {
    const auto codec = make_codec(name);
    ASSERT_FALSE(codec) << name;
    EXPECT_EQ(codec.error().code, Code::bad_usage);
    EXPECT_THAT(codec.error().message, testing::HasSubstr(words));
  }
}

class CodecProperty : public testing::TestWithParam<std::string> {};
class IdempotentCodec : public CodecProperty {};  // what was decoded is encoded without further loss
class BlockwiseCodec : public CodecProperty {};   // looks at one block at a time
class StochasticCodec : public CodecProperty {};
class SummableCodec : public CodecProperty {};

TEST_P(CodecProperty, MessagesAreAsLongAsAnnouncedAndSayWhatIsNotFinite) {
  for (const std::size_t count : k_counts) {
    for (const Values kind : k_all_values) {
      const auto codec = codec_of(GetParam());
      const auto from = make_values(count, kind, static_cast<std::uint32_t>(count));
      const std::size_t most = codec->max_bytes(count);
      std::vector<std::byte> message(most + 8, std::byte{0x5A});
      const auto encoded = codec->encode(from, std::span(message).first(most), {.seed = 1});
      ASSERT_TRUE(encoded) << encoded.error().message;
      ASSERT_LE(encoded->bytes, most);
      if (codec->traits().fixed_size) {
        ASSERT_EQ(encoded->bytes, most) << count;
      }
      for (std::size_t i = most; i < message.size(); ++i) ASSERT_EQ(message[i], std::byte{0x5A});
      const auto decoded = decode_all(*codec, std::span(message).first(encoded->bytes), count);

      const bool all = !starts_with(GetParam(), "randomk");  // which sends few values, but looks at all
      const auto is_nan = [](float value) { return std::isnan(value); };
      if (std::any_of(from.begin(), from.end(), is_nan)) {
        EXPECT_TRUE(encoded->non_finite) << count;
        EXPECT_TRUE(!all || std::any_of(decoded.begin(), decoded.end(), is_nan)) << count;
      }
      if (!encoded->non_finite) {
        for (const float value : decoded) ASSERT_TRUE(std::isfinite(value));
      }
      // Adding and taking away are what they say.
      std::vector<float> sum(count, 3.0f), difference(count, 3.0f);
      ASSERT_TRUE(codec->decode_add(std::span(message).first(encoded->bytes), sum));
      ASSERT_TRUE(codec->decode_subtract(std::span(message).first(encoded->bytes), difference));
      for (std::size_t i = 0; i < count; ++i) {
        if (std::isnan(decoded[i])) {
          ASSERT_TRUE(std::isnan(sum[i]) && std::isnan(difference[i]));
        } else {
          ASSERT_EQ(sum[i], 3.0f + decoded[i]);
          ASSERT_EQ(difference[i], 3.0f - decoded[i]);
        }
      }
    }
  }
}

TEST_P(CodecProperty, TooLittleRoomIsAnError) {
  const auto codec = codec_of(GetParam());
  const auto from = make_values(300, Values::normal, 1);
  std::vector<std::byte> message(codec->max_bytes(300) - 1);
  const auto encoded = codec->encode(from, message, {});
  ASSERT_FALSE(encoded);
  EXPECT_EQ(encoded.error().code, Code::exhausted);
}

double block_largest(std::span<const float> from, std::size_t i) {
  double largest = 0;
  for (std::size_t j = i / 256 * 256; j < std::min(from.size(), i / 256 * 256 + 256); ++j) {
    largest = std::max<double>(largest, std::fabs(from[j]));
  }
  return largest;
}
double block_norm(std::span<const float> from, std::size_t i) {
  double sum = 0;
  for (std::size_t j = i / 256 * 256; j < std::min(from.size(), i / 256 * 256 + 256); ++j) {
    sum += double{from[j]} * double{from[j]};
  }
  return std::sqrt(sum);
}

// The most that the i-th decoded value may differ; infinite where nothing is promised of single values.
double error_bound(std::string_view name, std::span<const float> from, std::size_t i) {
  const double size = std::fabs(from[i]), a_little = 1 + 1e-5;
  const double tiny = std::ldexp(1, -149);  // float32's own last place
  if (name == "fp16") return std::max(size * std::ldexp(1, -11), std::ldexp(1, -25));
  if (name == "bf16") return std::max(size * std::ldexp(1, -8), std::ldexp(1, -134));
  if (name == "int8") return block_largest(from, i) / 254 * a_little + tiny;
  if (name == "int4") return block_largest(from, i) / 14 * a_little + tiny;
  if (name == "fp8:e4m3") {
    return std::max(size / 16, block_largest(from, i) * std::ldexp(1, -10) / 448) * a_little + tiny;
  }
  if (name == "fp8:e5m2") {
    return std::max(size / 8, block_largest(from, i) * std::ldexp(1, -17) / 57344) * a_little + tiny;
  }
  if (name == "qsgd:2") return block_norm(from, i) * a_little + tiny;
  if (name == "qsgd:4") return block_norm(from, i) / 7 * a_little + tiny;
  if (name == "qsgd:8") return block_norm(from, i) / 127 * a_little + tiny;
  if (name == "qsgd:4:max") return block_largest(from, i) / 7 * a_little + tiny;
  if (name == "terngrad") return block_largest(from, i) * a_little + tiny;
  if (name == "topk:1" || name == "nonzero:256") return 0;
  return INFINITY;
}

TEST_P(CodecProperty, ErrorsStayWithinBounds) {
  for (const std::size_t count : k_counts) {
    for (const Values kind : k_finite_values) {
      if (GetParam() == "fp16" && (kind == Values::huge || kind == Values::outlier || kind == Values::wide)) continue;
      const auto codec = codec_of(GetParam());
      const auto from = make_values(count, kind, static_cast<std::uint32_t>(count) + 7);
      const auto decoded = decode_all(*codec, encode_all(*codec, from, {.seed = 5}), count);
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_LE(std::fabs(double{decoded[i]} - double{from[i]}), error_bound(codec->name(), from, i))
            << "value " << i << " of " << count << ": " << from[i] << " became " << decoded[i];
      }
    }
  }
}

TEST_P(IdempotentCodec, EncodingWhatWasDecodedChangesNothing) {
  const auto& name = GetParam();
  for (const std::size_t count : k_counts) {
    for (const Values kind : {Values::normal, Values::wide, Values::outlier, Values::huge, Values::subnormal}) {
      if (name == "fp16" && kind != Values::normal) continue;
      const auto codec = codec_of(name);
      const auto from = make_values(count, kind, static_cast<std::uint32_t>(count) + 3);
      const auto first = encode_all(*codec, from);
      EXPECT_EQ(encode_all(*codec, decode_all(*codec, first, count)), first) << count;
    }
  }
}

TEST_P(BlockwiseCodec, CuttingAtBlocksChangesNothing) {
  const auto traits = codec_of(GetParam())->traits();
  constexpr std::size_t k_count = 3 * 2048 + 77;
  const auto from = make_values(k_count, Values::wide, 9);
  const auto codec = codec_of(GetParam());
  const auto whole = decode_all(*codec, encode_all(*codec, from, {.seed = 3, .rank = 2, .first = 4096}), k_count);
  std::vector<float> pieces;
  const std::size_t step = std::max<std::size_t>(traits.block, 128);
  for (std::size_t at = 0; at < k_count; at += step) {
    const auto part = std::span(from).subspan(at, std::min(step, k_count - at));
    const auto decoded =
        decode_all(*codec, encode_all(*codec, part, {.seed = 3, .rank = 2, .first = 4096 + at}), part.size());
    pieces.insert(pieces.end(), decoded.begin(), decoded.end());
  }
  EXPECT_EQ(pieces, whole);
}

TEST_P(StochasticCodec, RandomNumbersDependOnTheOriginAlone) {
  const auto from = make_values(5000, Values::normal, 4);
  const auto of = [&](const Origin& origin) {
    const auto codec = codec_of(GetParam());
    return encode_all(*codec, from, origin);
  };
  const auto first = of({.seed = 1, .step = 2, .tensor = 3, .rank = 4});
  EXPECT_EQ(of({.seed = 1, .step = 2, .tensor = 3, .rank = 4}), first);
  EXPECT_NE(of({.seed = 9, .step = 2, .tensor = 3, .rank = 4}), first);
  EXPECT_NE(of({.seed = 1, .step = 9, .tensor = 3, .rank = 4}), first);
  EXPECT_NE(of({.seed = 1, .step = 2, .tensor = 9, .rank = 4}), first);
  if (starts_with(GetParam(), "randomk")) {  // all ranks draw the same places
    EXPECT_EQ(of({.seed = 1, .step = 2, .tensor = 3, .rank = 9}), first);
  } else {
    EXPECT_NE(of({.seed = 1, .step = 2, .tensor = 3, .rank = 9}), first);
  }
  EXPECT_NE(of({.seed = 1, .step = 2, .tensor = 3, .rank = 4, .first = 128}), first);
  EXPECT_NE(of({.seed = 1, .step = 2, .tensor = 3, .rank = 4, .first = 1}), first);
  EXPECT_NE(of({.seed = 1, .step = 2 + (1ull << 32), .tensor = 3, .rank = 4}), first);
}

// The mean of many roundings of a value must come near the value: each by five of its own deviations at most, and all
// together by what chance allows.
TEST_P(StochasticCodec, StochasticRoundingIsRightOnAverage) {
  const auto codec = codec_of(GetParam());
  constexpr std::size_t k_count = 600;
  constexpr int k_rounds = 4000;
  auto from = make_values(k_count, Values::normal, 21);
  from[5] = 0;
  std::vector<double> sums(k_count), squares(k_count);
  for (int round = 0; round < k_rounds; ++round) {
    const auto step = static_cast<std::uint64_t>(round);
    const auto decoded = decode_all(*codec, encode_all(*codec, from, {.seed = 77, .step = step}), k_count);
    for (std::size_t i = 0; i < k_count; ++i) {
      sums[i] += decoded[i];
      squares[i] += double{decoded[i]} * double{decoded[i]};
    }
  }
  double all = 0;
  std::size_t noisy = 0;
  for (std::size_t i = 0; i < k_count; ++i) {
    const double mean = sums[i] / k_rounds, variance = squares[i] / k_rounds - mean * mean;
    // A value that is rarely rounded up may not have been so even once: what its variance can be at most.
    const double bound = error_bound(codec->name(), from, i), size = std::fabs(from[i]);
    const double most = size * (std::isfinite(bound) ? bound : 4 * size);
    const double deviation = std::sqrt(std::max(variance, 0.0) / k_rounds), off = std::fabs(mean - double{from[i]});
    ASSERT_LE(off, 5 * std::max(deviation, std::sqrt(most / k_rounds)) + 1e-5 * size)
        << "value " << i << ", " << from[i];
    if (const double step = std::isfinite(bound) ? bound : size; variance > 0.02 * step * step) {
      all += off / deviation * (off / deviation);
      ++noisy;
    }
  }
  ASSERT_GT(noisy, k_count / 2);
  // A chi-squared number of `noisy` degrees; single values are not wholly independent in random-k.
  EXPECT_NEAR(all / static_cast<double>(noisy), 1, 0.35);
  EXPECT_EQ(sums[5], 0);
}

TEST_P(CodecProperty, SumsOverRanksAgreeWithDouble) {
  constexpr std::size_t k_count = 3000;
  for (std::uint32_t ranks = 1; ranks <= 9; ++ranks) {
    std::vector<float> sum(k_count);
    std::vector<double> decoded_sum(k_count), bound(k_count), sizes(k_count), true_sum(k_count);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      const auto codec = codec_of(GetParam());
      const auto from = make_values(k_count, Values::normal, 100 + rank);
      const auto message = encode_all(*codec, from, {.seed = 5, .rank = rank});
      const auto decoded = decode_all(*codec, message, k_count);
      ASSERT_TRUE(codec->decode_add(message, sum));
      for (std::size_t i = 0; i < k_count; ++i) {
        decoded_sum[i] += decoded[i];
        true_sum[i] += from[i];
        sizes[i] += std::fabs(decoded[i]);
        bound[i] += error_bound(codec->name(), from, i);
      }
    }
    for (std::size_t i = 0; i < k_count; ++i) {
      const double rounding = sizes[i] * ranks * std::ldexp(1, -24);
      ASSERT_LE(std::fabs(sum[i] - decoded_sum[i]), rounding);
      ASSERT_LE(std::fabs(sum[i] - true_sum[i]), bound[i] + rounding);
    }
  }
}

TEST_P(SummableCodec, EncodedMessagesMayBeSummedWhereTheCodecSaysSo) {
  const auto traits = codec_of(GetParam())->traits();
  constexpr std::size_t k_count = 1000;
  std::vector<std::byte> sum;
  std::vector<float> want(k_count);
  double sizes = 0;
  for (std::uint32_t rank = 0; rank < 5; ++rank) {
    const auto codec = codec_of(GetParam());
    const auto message = encode_all(*codec, make_values(k_count, Values::normal, rank), {.seed = 8, .rank = rank});
    ASSERT_TRUE(codec->decode_add(message, want));
    if (rank == 0) {
      sum = message;
      continue;
    }
    ASSERT_TRUE(
        std::equal(sum.begin(), sum.begin() + static_cast<std::ptrdiff_t>(traits.header_bytes), message.begin()));
    reduce_function(*traits.sums, ReduceOp::sum)(sum.data() + traits.header_bytes, sum.data() + traits.header_bytes,
                                                 message.data() + traits.header_bytes,
                                                 (sum.size() - traits.header_bytes) / size_of(*traits.sums));
  }
  const auto got = decode_all(*codec_of(GetParam()), sum, k_count);
  for (std::size_t i = 0; i < k_count; ++i) sizes = std::max<double>(sizes, std::fabs(want[i]));
  for (std::size_t i = 0; i < k_count; ++i) EXPECT_NEAR(got[i], want[i], sizes * 5 * std::ldexp(1, -8));
}

TEST_P(CodecProperty, DamagedMessagesAreErrors) {
  std::mt19937 random(31);
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{300}, std::size_t{2500}}) {
    const auto codec = codec_of(GetParam());
    const auto message = encode_all(*codec, make_values(count, Values::normal, 2));
    std::vector<float> to(count);
    for (std::size_t length = 0; length < message.size(); ++length) {
      const auto shorter = std::vector(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(length));
      const auto result = codec->decode_add(shorter, to);
      ASSERT_FALSE(result) << length << " of " << message.size() << " bytes";
      ASSERT_EQ(result.error().code, Code::malformed);
    }
    auto longer = message;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(codec->decode(longer, to));
    for (std::size_t i = 0; i < 16; ++i) {
      auto bent = message;
      bent[i] ^= std::byte{0x10};
      EXPECT_FALSE(codec->decode(bent, to)) << "byte " << i << " of the header";
    }
    std::vector<float> more(count + 1);
    EXPECT_FALSE(codec->decode(message, more)) << "a message for another count";
    // Anywhere else anything may come out, but nothing may break.
    for (int i = 0; i < 3000 && message.size() > 16; ++i) {
      auto bent = message;
      const auto times = 1 + random() % 4;
      for (unsigned j = 0; j < times; ++j) bent[16 + random() % (bent.size() - 16)] = static_cast<std::byte>(random());
      (void)codec->decode_add(bent, to);
    }
  }
}

std::string test_name(const testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

std::vector<std::string> names_where(bool (*holds)(std::string_view name, const CodecTraits& traits)) {
  std::vector<std::string> names;
  for (const std::string& name : codec_names()) {
    if (holds(name, codec_of(name)->traits())) names.push_back(name);
  }
  return names;
}

bool is_idempotent(std::string_view name, const CodecTraits& traits) {
  return !traits.stochastic && name != "onebit" && !starts_with(name, "powersgd");
}
bool is_blockwise(std::string_view name, const CodecTraits& traits) {
  return !traits.sparse && !starts_with(name, "powersgd");
}
bool is_stochastic(std::string_view, const CodecTraits& traits) { return traits.stochastic; }
bool is_summable(std::string_view, const CodecTraits& traits) { return traits.sums.has_value(); }

INSTANTIATE_TEST_SUITE_P(Every, CodecProperty, testing::ValuesIn(codec_names()), test_name);
INSTANTIATE_TEST_SUITE_P(Some, IdempotentCodec, testing::ValuesIn(names_where(is_idempotent)), test_name);
INSTANTIATE_TEST_SUITE_P(Some, BlockwiseCodec, testing::ValuesIn(names_where(is_blockwise)), test_name);
INSTANTIATE_TEST_SUITE_P(Some, StochasticCodec, testing::ValuesIn(names_where(is_stochastic)), test_name);
INSTANTIATE_TEST_SUITE_P(Some, SummableCodec, testing::ValuesIn(names_where(is_summable)), test_name);

TEST(SignCodecs, MajorityIsTheSignOfTheVotes) {
  const auto codec = codec_of("signsgd");
  for (int ranks = 1; ranks <= 9; ++ranks) {
    std::vector<float> sum(500);
    std::vector<int> votes(500);
    for (int rank = 0; rank < ranks; ++rank) {
      const auto from = make_values(500, Values::normal, static_cast<std::uint32_t>(rank));
      ASSERT_TRUE(codec->decode_add(encode_all(*codec, from), sum));
      for (std::size_t i = 0; i < 500; ++i) votes[i] += from[i] < 0 ? -1 : 1;
    }
    codec->finish(sum);
    for (std::size_t i = 0; i < 500; ++i) ASSERT_EQ(sum[i], votes[i] > 0 ? 1 : votes[i] < 0 ? -1 : 0);
  }
}

TEST(SignCodecs, InfinitiesVoteAndNaNsAreCarried) {
  const auto codec = codec_of("signsgd");
  const auto infinite = make_values(100, Values::with_infinity, 3);
  for (const float value : decode_all(*codec, encode_all(*codec, infinite), 100)) EXPECT_EQ(std::fabs(value), 1);
  const auto nan = make_values(100, Values::with_nan, 3);
  for (const float value : decode_all(*codec, encode_all(*codec, nan), 100)) EXPECT_TRUE(std::isnan(value));
}

TEST(SignCodecs, OneBitKeepsSignsAndTheMeanSize) {
  const auto codec = codec_of("onebit");
  for (const std::size_t count : {1u, 100u, 2048u, 5000u}) {
    for (const Values kind : k_finite_values) {
      const auto from = make_values(count, kind, 11);
      const auto decoded = decode_all(*codec, encode_all(*codec, from), count);
      for (std::size_t block = 0; block < count; block += 2048) {
        double want = 0, got = 0;
        const std::size_t end = std::min(count, block + 2048);
        for (std::size_t i = block; i < end; ++i) {
          want += std::fabs(double{from[i]});
          got += std::fabs(double{decoded[i]});
          ASSERT_EQ(std::signbit(decoded[i]), std::signbit(from[i]));
        }
        EXPECT_NEAR(got, want, want * 1e-5 + static_cast<double>(end - block) * std::ldexp(1, -149));
      }
    }
  }
}

TEST(BlockCodecs, ANaNOrInfinityMarksItsBlockAndNoOther) {
  for (const char* name : {"int8", "int4", "fp8:e4m3", "fp8:e5m2", "qsgd:4", "terngrad"}) {
    for (const Values kind : {Values::with_nan, Values::with_infinity}) {
      const auto codec = codec_of(name);
      auto from = make_values(1024, Values::normal, 5);
      from[300] = kind == Values::with_nan ? std::nanf("") : INFINITY;
      const auto decoded = decode_all(*codec, encode_all(*codec, from), 1024);
      for (std::size_t i = 0; i < 1024; ++i) ASSERT_EQ(std::isnan(decoded[i]), i / 256 == 1) << name << " " << i;
    }
  }
}

TEST(BlockCodecs, ScalesThatNoEncoderWritesAreRefused) {
  const auto codec = codec_of("int8");
  const auto message = encode_all(*codec, make_values(300, Values::normal, 5));
  std::vector<float> to(300);
  for (const std::uint32_t scale : {0x80000000u, 0xBF800000u, 0x7F800000u, 0x7F800001u, 0xFFC00000u}) {
    auto bent = message;
    std::memcpy(bent.data() + 16 + 260, &scale, 4);
    EXPECT_FALSE(codec->decode(bent, to)) << std::hex << scale;
  }
}

TEST(HalfCodecs, InfinitiesAndOverflowAreCarried) {
  const auto codec = codec_of("fp16");
  const std::vector<float> from = {1, 1e6f, -1e6f, INFINITY, std::nanf(""), 65519};
  std::vector<std::byte> message(codec->max_bytes(from.size()));
  EXPECT_TRUE(codec->encode(from, message, {})->non_finite);
  const auto decoded = decode_all(*codec, message, from.size());
  EXPECT_EQ(decoded[0], 1);
  EXPECT_EQ(decoded[1], INFINITY);
  EXPECT_EQ(decoded[2], -INFINITY);
  EXPECT_EQ(decoded[3], INFINITY);
  EXPECT_TRUE(std::isnan(decoded[4]));
  EXPECT_EQ(decoded[5], 65504);
}

}  // namespace
}  // namespace gradrail
