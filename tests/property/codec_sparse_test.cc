// Sparse messages, the sum of sparse vectors, and the choice of the largest values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "collectives/compress/select.h"
#include "collectives/compress/sparse.h"
#include "tests/property/codec_cases.h"
#include "tests/unit/simd_targets.h"

namespace gradrail {
namespace {

struct Pairs {
  std::vector<std::uint32_t> indices;
  std::vector<float> values;
  [[nodiscard]] SparseView view() const { return {indices, values}; }
};

Pairs random_pairs(std::uint64_t count, double density, std::uint32_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform;
  Pairs out;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (uniform(random) >= density) continue;
    out.indices.push_back(static_cast<std::uint32_t>(i));
    out.values.push_back(static_cast<float>(uniform(random) - 0.5));
  }
  return out;
}

std::vector<std::byte> message_of(const Pairs& pairs, std::uint64_t count) {
  std::vector<std::byte> message(sparse_max_bytes(pairs.indices.size()) + 4, std::byte{0x5A});
  const std::size_t bytes = write_sparse(pairs.view(), count, std::span(message).first(message.size() - 4));
  for (std::size_t i = bytes; i < message.size(); ++i) EXPECT_EQ(message[i], std::byte{0x5A});
  message.resize(bytes);
  return message;
}

void expect_read_back(const Pairs& pairs, std::uint64_t count, const std::vector<std::byte>& message) {
  const auto open = open_sparse(message, count, "test");
  ASSERT_TRUE(open) << open.error().message;
  std::vector<std::uint32_t> indices(open->pairs);
  const auto read = read_indices(*open, indices, "test");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(indices, pairs.indices);
  for (std::size_t i = 0; i < indices.size(); ++i) ASSERT_EQ(sparse_value(*open, i), pairs.values[i]);
}

TEST(SparseMessages, AreReadBackAtEveryDensityInTheSmallestEncoding) {
  for (const std::uint64_t count : {1u, 7u, 8u, 9u, 63u, 64u, 65u, 1000u, 40000u}) {
    for (const double density : {0.0, 0.0001, 0.001, 0.01, 0.05, 0.12, 0.13, 0.3, 0.9, 1.0}) {
      const Pairs pairs = random_pairs(count, density, static_cast<std::uint32_t>(count));
      const auto message = message_of(pairs, count);
      expect_read_back(pairs, count, message);
      std::size_t varint = 0;
      std::int64_t before = -1;
      for (const std::uint32_t index : pairs.indices) {
        auto gap = static_cast<std::uint64_t>(index - before - 1);
        do ++varint;
        while ((gap >>= 7) != 0);
        before = index;
      }
      const std::size_t smallest = std::min({varint, 4 * pairs.indices.size(), std::size_t((count + 7) / 8)});
      EXPECT_EQ(message.size(), 16 + 8 + 4 * pairs.indices.size() + smallest) << count << " " << density;
    }
  }
}

TEST(SparseMessages, FarApartIndicesAreWrittenRaw) {
  constexpr std::uint64_t k_count = 0xFFFFFFFFu;
  const Pairs far{{0xFFFFFFFEu}, {1.5f}};
  expect_read_back(far, k_count, message_of(far, k_count));
  EXPECT_EQ(open_sparse(message_of(far, k_count), k_count, "test")->encoding, IndexEncoding::raw);
  const Pairs both{{3, 1u << 30, 1u << 31}, {1, 2, 3}};
  expect_read_back(both, k_count, message_of(both, k_count));
}

TEST(SparseMessages, DamagedIndicesAreRefused) {
  const auto raw = [](std::vector<std::uint32_t> indices, std::uint32_t encoding, std::vector<std::uint8_t> bytes,
                      std::uint64_t count) {
    std::vector<std::byte> message(24 + 4 * indices.size());
    message[0] = std::byte{'G'};
    message[1] = std::byte{'C'};
    message[2] = std::byte{1};
    message[3] = std::byte{11};
    std::memcpy(message.data() + 8, &count, 8);
    const auto pairs = static_cast<std::uint32_t>(indices.size());
    std::memcpy(message.data() + 16, &pairs, 4);
    std::memcpy(message.data() + 20, &encoding, 4);
    for (const std::uint8_t byte : bytes) message.push_back(static_cast<std::byte>(byte));
    return message;
  };
  const auto refused = [](const std::vector<std::byte>& message, std::uint64_t count) {
    const auto open = open_sparse(message, count, "test");
    if (!open) return open.error().message;
    std::vector<std::uint32_t> indices(open->pairs);
    const auto read = read_indices(*open, indices, "test");
    return read ? std::string() : read.error().message;
  };
  using testing::HasSubstr;
  EXPECT_EQ(refused(raw({0, 0}, 0, {1, 0, 0, 0, 2, 0, 0, 0}, 9), 9), "");
  EXPECT_THAT(refused(raw({0, 0}, 0, {2, 0, 0, 0, 2, 0, 0, 0}, 9), 9), HasSubstr("do not ascend"));
  EXPECT_THAT(refused(raw({0, 0}, 0, {2, 0, 0, 0, 9, 0, 0, 0}, 9), 9), HasSubstr("beyond"));
  EXPECT_THAT(refused(raw({0, 0}, 0, {2, 0, 0, 0, 9, 0, 0}, 9), 9), HasSubstr("another length"));
  EXPECT_THAT(refused(raw({0, 0}, 3, {}, 9), 9), HasSubstr("front"));
  EXPECT_THAT(refused(raw({0, 0}, 0, {}, 1), 1), HasSubstr("front"));
  EXPECT_EQ(refused(raw({0, 0}, 1, {0x81, 0x00, 2}, 9), 9), "");
  EXPECT_THAT(refused(raw({0, 0}, 1, {1, 7}, 9), 9), HasSubstr("beyond"));
  EXPECT_THAT(refused(raw({0, 0}, 1, {1, 2, 3}, 9), 9), HasSubstr("more bytes"));
  EXPECT_THAT(refused(raw({0, 0}, 1, {1}, 9), 9), HasSubstr("within a number"));
  EXPECT_THAT(refused(raw({0}, 1, {0x80, 0x80, 0x80, 0x80, 0x80, 0}, 9), 9), HasSubstr("too long"));
  EXPECT_EQ(refused(raw({0, 0}, 2, {0x80, 1}, 9), 9), "");
  EXPECT_THAT(refused(raw({0, 0}, 2, {0x80, 2}, 9), 9), HasSubstr("beyond"));
  EXPECT_THAT(refused(raw({0, 0}, 2, {0x80, 0}, 9), 9), HasSubstr("too few"));
  EXPECT_THAT(refused(raw({0, 0}, 2, {0x8F, 0}, 9), 9), HasSubstr("too many"));
}

TEST(SparseSums, EqualTheSumOfMaps) {
  for (const double density_a : {0.0, 0.02, 0.5, 1.0}) {
    for (const double density_b : {0.0, 0.02, 0.5, 1.0}) {
      const Pairs a = random_pairs(3000, density_a, 1), b = random_pairs(3000, density_b, 2);
      std::map<std::uint32_t, float> want;
      for (std::size_t i = 0; i < a.indices.size(); ++i) want[a.indices[i]] = a.values[i];
      for (std::size_t i = 0; i < b.indices.size(); ++i) want[b.indices[i]] += b.values[i];
      Pairs sum;
      sum.indices.resize(a.indices.size() + b.indices.size());
      sum.values.resize(sum.indices.size());
      const std::size_t found = merge_sparse(a.view(), b.view(), sum.indices.data(), sum.values.data());
      ASSERT_EQ(found, want.size());
      std::size_t i = 0;
      for (const auto& [index, value] : want) {
        ASSERT_EQ(sum.indices[i], index);
        ASSERT_EQ(sum.values[i++], value);
      }
    }
  }
}

TEST(SparseSums, OverNineRanksAgreeWithDouble) {
  constexpr std::size_t k_count = 20000;
  for (std::uint32_t ranks = 1; ranks <= 9; ++ranks) {
    Pairs sum;
    std::vector<double> want(k_count);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      const Pairs one = random_pairs(k_count, 0.05, rank);
      for (std::size_t i = 0; i < one.indices.size(); ++i) want[one.indices[i]] += one.values[i];
      Pairs next;
      next.indices.resize(sum.indices.size() + one.indices.size());
      next.values.resize(next.indices.size());
      const auto found = merge_sparse(sum.view(), one.view(), next.indices.data(), next.values.data());
      next.indices.resize(found);
      next.values.resize(found);
      sum = std::move(next);
    }
    std::vector<double> got(k_count);
    for (std::size_t i = 0; i < sum.indices.size(); ++i) got[sum.indices[i]] = sum.values[i];
    for (std::size_t i = 0; i < k_count; ++i) ASSERT_NEAR(got[i], want[i], 9 * 9 * std::ldexp(1, -24));
  }
}

// --- Selection.

std::uint32_t size_bits_of(float value) { return arithmetic::size_bits(value); }

// By sorting everything.
std::vector<std::uint32_t> largest_of(std::span<const float> from, std::size_t wanted) {
  std::vector<std::uint32_t> order(from.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return size_bits_of(from[a]) > size_bits_of(from[b]); });
  order.resize(wanted);
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<float> shaped(std::size_t count, int shape) {
  switch (shape) {
    case 0: return make_values(count, Values::normal, 1);
    case 1: return make_values(count, Values::any_bits, 2);
    case 2: return make_values(count, Values::equal, 3);
    case 3: return make_values(count, Values::zero, 3);
    default: break;
  }
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto x = static_cast<float>(i);
    switch (shape) {
      case 4: out[i] = x; break;
      case 5: out[i] = -static_cast<float>(count - i); break;
      case 6: out[i] = static_cast<float>(i % 5); break;                       // many ties
      case 7: out[i] = i % 64 == 0 ? x : 0.001f; break;                        // a period
      default: out[i] = i < count / 20 ? 100 + x : std::sin(x) * 0.1f; break;  // all the large ones in one place
    }
  }
  return out;
}

using SelectionKernels = OnSimdTarget;

TEST_P(SelectionKernels, ExactIsWhatSortingGives) {
  Selection selection;
  for (const std::size_t count : {0u, 1u, 5u, 63u, 64u, 65u, 1000u, 40000u, 120001u}) {
    for (int shape = 0; shape <= 8; ++shape) {
      const auto from = shaped(count, shape);
      for (const std::size_t wanted : {std::size_t{0}, std::size_t{1}, count / 1000, count / 100, count / 10, count / 2,
                                       count - count / 8, count}) {
        if (wanted > count) continue;
        selection.exact(from, wanted);
        const auto pairs = selection.pairs();
        const auto want = largest_of(from, wanted);
        ASSERT_TRUE(std::equal(want.begin(), want.end(), pairs.indices.begin(), pairs.indices.end()))
            << wanted << " of " << count << ", shape " << shape;
        for (std::size_t i = 0; i < wanted; ++i) {
          ASSERT_EQ(arithmetic::bits_of(pairs.values[i]), arithmetic::bits_of(from[pairs.indices[i]]));
        }
      }
    }
  }
}

TEST_P(SelectionKernels, SampledKeepsCloseToWhatIsWanted) {
  Selection selection;
  for (const std::size_t count : {1u, 5u, 65u, 1000u, 40000u, 3000000u}) {
    for (int shape = 0; shape <= 8; ++shape) {
      if (count == 3000000u && (shape == 1 || shape == 3)) continue;
      const auto from = shaped(count, shape);
      for (const std::size_t wanted : {std::size_t{1}, count / 1000, count / 100, count / 10, count / 2}) {
        if (wanted == 0) continue;
        selection.sampled(from, wanted);
        const auto pairs = selection.pairs();
        ASSERT_LE(std::fabs(double(pairs.size()) - double(wanted)), std::max(1.0, 0.1 * double(wanted)))
            << wanted << " of " << count << ", shape " << shape;
        // Nothing that was left behind is larger than what was taken.
        std::uint32_t least = 0xFFFFFFFFu;
        for (const float value : pairs.values) least = std::min(least, size_bits_of(value));
        std::vector<bool> taken(count);
        for (std::size_t i = 0; i < pairs.size(); ++i) {
          ASSERT_TRUE(i == 0 || pairs.indices[i - 1] < pairs.indices[i]);
          taken[pairs.indices[i]] = true;
          ASSERT_EQ(arithmetic::bits_of(pairs.values[i]), arithmetic::bits_of(from[pairs.indices[i]]));
        }
        for (std::size_t i = 0; i < count; ++i) ASSERT_TRUE(taken[i] || size_bits_of(from[i]) <= least);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SelectionKernels, testing::ValuesIn(simd_targets_here()), simd_target_name);

TEST(SparseCodecs, SendTheLargestAndWhatTheyDraw) {
  const auto from = make_values(10000, Values::normal, 8);
  const auto top = codec_of("topk:0.01");
  const auto decoded = decode_all(*top, encode_all(*top, from), from.size());
  std::size_t sent = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (decoded[i] == 0) continue;
    ++sent;
    ASSERT_EQ(decoded[i], from[i]);
  }
  EXPECT_EQ(sent, 100);

  const auto random = codec_of("randomk:0.01");
  std::vector<int> drawn(from.size());
  for (std::uint64_t step = 0; step < 2000; ++step) {
    const auto some = decode_all(*random, encode_all(*random, from, {.step = step}), from.size());
    std::size_t count = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (some[i] == 0) continue;
      ASSERT_EQ(some[i], from[i]);
      ++drawn[i];
      ++count;
    }
    ASSERT_EQ(count, 100);
  }
  // 20 times each on average, with a deviation of 4.5.
  EXPECT_GT(*std::min_element(drawn.begin(), drawn.end()), 1);
  EXPECT_LT(*std::max_element(drawn.begin(), drawn.end()), 50);
}

TEST(SparseCodecs, NaNsAndInfinitiesAreSentBeforeAnyNumber) {
  auto from = make_values(5000, Values::normal, 8);
  from[17] = 1e38f;
  from[100] = std::nanf("");
  from[4000] = -INFINITY;
  const auto codec = codec_of("topk:0.0004");
  std::vector<std::byte> message(codec->max_bytes(from.size()));
  const auto encoded = codec->encode(from, message, {}).value();
  EXPECT_TRUE(encoded.non_finite);
  const auto decoded = decode_all(*codec, std::span(message).first(encoded.bytes), from.size());
  EXPECT_TRUE(std::isnan(decoded[100]));
  EXPECT_EQ(decoded[4000], -INFINITY);
  EXPECT_EQ(decoded[17], 0);
}

}  // namespace
}  // namespace gradrail
