// Sums of many sparse vectors, and the decisions of Ok-Topk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "collectives/compress/exchange_choice.h"
#include "collectives/compress/regions.h"
#include "collectives/compress/sparse_sum.h"
#include "tests/property/codec_cases.h"

namespace gradrail {
namespace {

// Blocks of `width` values at random places.
std::vector<std::byte> random_message(std::uint64_t count, std::size_t width, double density, Values kind,
                                      std::uint32_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform;
  std::vector<std::uint32_t> indices;
  for (std::uint64_t i = 0; i < sparse_places(count, width); ++i) {
    if (uniform(random) < density) indices.push_back(static_cast<std::uint32_t>(i));
  }
  const auto values = make_values(indices.size() * width, kind, seed + 1);
  std::vector<std::byte> message(sparse_max_bytes(indices.size(), width));
  message.resize(write_sparse({indices, values, width}, count, message));
  return message;
}

TEST(SparseSums, OfManyVectorsHaveTheBitsOfAddingOneAfterTheOther) {
  for (const std::size_t width : {std::size_t{1}, std::size_t{3}, std::size_t{256}, std::size_t{40000}}) {
    for (const std::uint64_t count : {1u, 100u, 8191u, 8192u, 70001u}) {
      for (const double density : {0.0, 0.001, 0.02, 0.4, 1.0}) {
        for (const Values kind : {Values::normal, Values::with_nan, Values::any_bits, Values::outlier}) {
          for (const std::size_t ranks : {1u, 2u, 5u, 9u}) {
            std::vector<std::vector<std::byte>> messages;
            std::vector<SparseReader> readers;
            std::vector<float> want(count);
            for (std::size_t rank = 0; rank < ranks; ++rank) {
              messages.push_back(random_message(count, width, density, kind, static_cast<std::uint32_t>(rank)));
              const auto open = open_sparse(messages.back(), count, "test", width);
              ASSERT_TRUE(open) << open.error().message;
              readers.emplace_back(*open);
              ASSERT_TRUE(apply_sparse(*open, want, SparseApply::add, "test"));
            }
            SparseSum sum(width);
            ASSERT_FALSE(sum.sum(readers, sparse_places(count, width)));
            ASSERT_TRUE(std::is_sorted(sum.pairs().indices.begin(), sum.pairs().indices.end()));
            std::vector<float> got(count);
            std::size_t pair = 0;
            for (const std::size_t index : sum.pairs().indices) {
              for (std::size_t i = 0; i < width && index * width + i < count; ++i) {
                got[index * width + i] = sum.pairs().values[pair * width + i];
              }
              ++pair;
            }
            for (auto* values : {&got, &want}) {  // which NaN it is, is not promised
              for (float& value : *values) value = std::isnan(value) ? std::nanf("") : value;
            }
            ASSERT_EQ(std::memcmp(got.data(), want.data(), 4 * count), 0) << width << " " << count << " " << density;
            if (count > 10000 && density > 0.1) break;  // one kind is enough of what takes long
          }
        }
      }
    }
  }
}

TEST(SparseSums, NameTheVectorThatIsDamaged) {
  auto good = random_message(1000, 1, 0.1, Values::normal, 1), bad = good;
  bad.at(bad.size() - 1) = std::byte{0xFF};
  const auto reader = [](const std::vector<std::byte>& message) {
    return SparseReader(open_sparse(message, 1000, "test").value());
  };
  SparseSum sum;
  std::vector<SparseReader> readers = {reader(good), reader(good), reader(bad)};
  EXPECT_EQ(sum.sum(readers, 1000), std::optional<std::size_t>(2));
  readers = {reader(good), reader(good)};
  EXPECT_FALSE(sum.sum(readers, 1000));
}

TEST(Regions, AreWholeAndBalanced) {
  std::mt19937 random(5);
  for (const std::size_t parts : {1u, 2u, 3u, 9u}) {
    std::vector<std::uint32_t> bounds(parts + 1);
    for (const std::uint64_t places : {0u, 1u, 8u, 1000u, 0xFFFFFFFFu}) {
      even_bounds(places, bounds);
      EXPECT_EQ(bounds.front(), 0u);
      EXPECT_EQ(bounds.back(), places);
      EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end()));
    }
    // Nearly all in one place: each part still gets its share, and the mean of proposals is a proposal.
    std::vector<std::uint32_t> indices(1000);
    std::iota(indices.begin(), indices.end(), 5000u);
    propose_bounds(indices, 100000, bounds);
    for (std::size_t i = 0; i < parts; ++i) {
      const auto in_part = std::count_if(indices.begin(), indices.end(),
                                         [&](std::uint32_t x) { return x >= bounds[i] && x < bounds[i + 1]; });
      EXPECT_NEAR(static_cast<double>(in_part), 1000.0 / static_cast<double>(parts), 1.0);
    }
    std::vector<std::uint32_t> twice(bounds), agreed(parts + 1);
    twice.insert(twice.end(), bounds.begin(), bounds.end());
    ASSERT_TRUE(agree_bounds(twice, 100000, agreed));
    EXPECT_EQ(agreed, bounds);
    EXPECT_FALSE(agree_bounds(twice, 99999, agreed));
    if (parts > 2) {
      std::swap(twice[1], twice[2]);
      EXPECT_FALSE(agree_bounds(twice, 100000, agreed));
    }
  }
}

TEST(Regions, ThresholdsLetAboutAsManyThroughAsAreWanted) {
  for (const std::size_t length : {0u, 5u, 1000u, 100000u}) {
    for (const int shape : {0, 1, 2}) {
      std::vector<std::vector<float>> parts;
      std::vector<std::vector<std::uint32_t>> sizes(3, std::vector<std::uint32_t>(k_tally_most));
      std::vector<Tally> tallies;
      std::size_t all = 0;
      for (std::uint32_t rank = 0; rank < 3; ++rank) {
        auto values = make_values(length * (rank + 1), shape == 1 ? Values::equal : Values::normal, rank);
        if (shape == 2 && rank == 1) std::fill(values.begin(), values.end(), 0.0f);
        const std::size_t taken = tally_of(values, sizes[rank]);
        tallies.push_back({static_cast<std::uint32_t>(values.size()), static_cast<std::uint32_t>(length),
                           std::span(sizes[rank]).first(taken)});
        all += values.size();
        parts.push_back(std::move(values));
      }
      std::vector<Weighed> scratch;
      const std::uint32_t threshold = threshold_of(tallies, scratch);
      std::size_t through = 0;
      for (const auto& part : parts) {
        for (const float value : part) through += arithmetic::size_bits(value) >= threshold ? 1u : 0u;
      }
      if (shape == 1) {
        EXPECT_EQ(through, all);  // none is larger than another
      } else if (length * 3 <= k_tally_most && length > 0) {
        EXPECT_EQ(through, length);
      } else {
        EXPECT_NEAR(static_cast<double>(through), static_cast<double>(length), 0.1 * static_cast<double>(length));
      }
    }
  }
}

TEST(Regions, UnevenListsAreSeen) {
  using Lengths = std::vector<std::uint32_t>;
  EXPECT_FALSE(is_uneven(Lengths{}));
  EXPECT_FALSE(is_uneven(Lengths{9}));
  EXPECT_FALSE(is_uneven(Lengths{0, 0, 0}));
  EXPECT_FALSE(is_uneven(Lengths{5, 6, 10}));
  EXPECT_TRUE(is_uneven(Lengths{0, 0, 3}));
  for (std::uint64_t part = 0; part < 7; ++part) EXPECT_LE(share_begin(10, 7, part + 1) - share_begin(10, 7, part), 2u);
  EXPECT_EQ(share_begin(10, 7, 7), 10u);
}

TEST(ExchangeChoice, GoesByBytes) {
  // Two ranks: nothing is saved by cutting. Many: sums overlap, or fill up, until they are smaller as values.
  EXPECT_EQ(cheaper_way({2, 1 << 24, 1 << 17, 1}), SparseWay::gather);
  EXPECT_EQ(cheaper_way({4, 1 << 24, 1 << 17, 1}), SparseWay::gather);
  EXPECT_EQ(cheaper_way({64, 1 << 24, 1 << 18, 1}), SparseWay::split);
  EXPECT_EQ(cheaper_way({8, 1 << 24, 1 << 22, 1}), SparseWay::split);
  EXPECT_EQ(cheaper_way({64, 1 << 10, 1 << 4, 1}), SparseWay::gather);  // one round instead of two
  EXPECT_EQ(cheaper_way({1, 0, 0, 1}), SparseWay::gather);
  EXPECT_EQ(received_bytes(SparseWay::gather, {1, 1000, 10, 1}), 0);
  // Never more than about all values, and once more those of one's own part.
  EXPECT_LE(received_bytes(SparseWay::split, {128, 1 << 20, 1 << 20, 1}), 2.2 * 4 * (1 << 20));
}

}  // namespace
}  // namespace gradrail
