// Exchanges of messages whose size depends on the data, over every transport: the sum of what the ranks encoded, added
// in the order of ranks, with the same bits on every rank, whichever way it came about.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <span>

#include "tests/contract/allocations.h"
#include "tests/contract/ranks.h"
#include "tests/property/codec_cases.h"

namespace gradrail {
namespace {

std::string absence_of(const std::string& transport) {
  for (const auto& kind : transport_kinds())
    if (kind.name == transport)
      if (const auto there = kind.available(); !there) return there.error().message;
  return "";
}

Call call_of(std::string_view algorithm, std::string_view codec, std::uint64_t count, const Memory& in,
             const Memory& out) {
  Call call;
  call.collective = Collective::allreduce;
  call.algorithm = algorithm;
  call.count = count;
  call.in = {&in, 0};
  call.out = {&out, 0};
  call.in_place = &in == &out;
  call.coding.codec = codec;
  call.coding.seed = 9;
  return call;
}

// Values that a rank contributes at a step.
std::vector<float> values_of(std::size_t count, Values kind, int rank, int step) {
  auto values = make_values(count, kind, static_cast<std::uint32_t>(100 * step + rank));
  if (kind == Values::with_nan && rank != 0)
    values = make_values(count, Values::normal, static_cast<std::uint32_t>(rank));
  // Whole blocks of zeros, so that there is something to leave out.
  for (std::size_t i = 0; i < count; ++i) {
    if (i / 40 % 3 == static_cast<std::size_t>(rank % 3)) values[i] = 0;
  }
  return values;
}

void expect_same(std::span<const float> got, std::span<const float> want, const std::string& where) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    const bool same = std::isnan(want[i]) ? std::isnan(got[i]) : std::memcmp(&got[i], &want[i], sizeof(float)) == 0;
    ASSERT_TRUE(same) << where << ", value " << i << ": " << got[i] << " and not " << want[i];
  }
}

// Runs steps on all ranks; each rank's result is held against `want(step)`.
void run_steps(Ranks& ranks, std::string_view algorithm, const std::string& codec, std::size_t count, Values kind,
               bool in_place, const std::vector<std::vector<float>>& want) {
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    communicator.forget_encodings();
    std::vector<float> in(count), out(count);
    GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
    GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
    for (std::size_t step = 0; step < want.size(); ++step) {
      std::ranges::copy(values_of(count, kind, communicator.rank(), static_cast<int>(step)), in.begin());
      std::fill(out.begin(), out.end(), -7.0f);
      GRADRAIL_TRY(communicator.run(call_of(algorithm, codec, count, from, in_place ? from : to), soon()));
      expect_same(in_place ? in : out, want[step],
                  std::string(algorithm) + " " + codec + ", rank " + std::to_string(communicator.rank()) + " of " +
                      std::to_string(communicator.ranks()) + ", " + std::to_string(count) + " values, step " +
                      std::to_string(step));
    }
    return communicator.barrier(soon());
  });
}

// What comes out when every rank's messages are added to zeros.
std::vector<std::vector<float>> sums_of(int ranks, const std::string& name, std::size_t count, Values kind, int steps) {
  std::vector<std::vector<float>> sums(static_cast<std::size_t>(steps), std::vector<float>(count));
  const auto reader = codec_of(name);
  for (int rank = 0; rank < ranks; ++rank) {
    const auto codec = codec_of(name);
    for (int step = 0; step < steps; ++step) {
      const Origin origin{9, static_cast<std::uint64_t>(step), 0, static_cast<std::uint32_t>(rank), 0};
      const auto message = encode_all(*codec, values_of(count, kind, rank, step), origin);
      auto& sum = sums[static_cast<std::size_t>(step)];
      if (rank == 0 && !codec->traits().sparse) {
        EXPECT_TRUE(reader->decode(message, sum));
      } else {
        EXPECT_TRUE(reader->decode_add(message, sum));
      }
    }
  }
  for (auto& sum : sums) reader->finish(sum);
  return sums;
}

class SparseExchanges : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (const auto why = absence_of(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(SparseExchanges, AddWhatWasEncodedInTheOrderOfRanks) {
  for (int n = 1; n <= 9; ++n) {
    Ranks ranks(n, GetParam());
    if (HasFailure()) return;
    for (const std::string codec : {"topk:0.1", "nonzero:8", "topk:0.02:sampled+ef", "topk:0.9"}) {
      for (const std::size_t count :
           {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{1000}, std::size_t{9001}}) {
        const auto want = sums_of(n, codec, count, Values::normal, 2);
        for (const char* algorithm : {"gather", "split"})
          run_steps(ranks, algorithm, codec, count, Values::normal, n % 2 == 0, want);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(SparseExchanges, TakeEveryKindOfValue) {
  Ranks ranks(3, GetParam());
  ASSERT_FALSE(HasFailure());
  for (const Values kind : {Values::zero, Values::equal, Values::with_nan, Values::with_infinity, Values::outlier,
                            Values::subnormal, Values::huge}) {
    for (const std::string codec : {"topk:0.05+ef", "nonzero:16"}) {
      const auto want = sums_of(3, codec, 3001, kind, 3);
      for (const char* algorithm : {"auto", "gather", "split"})
        run_steps(ranks, algorithm, codec, 3001, kind, false, want);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SparseExchanges, GatherServesCodecsOfFixedSizeToo) {
  Ranks ranks(4, GetParam());
  ASSERT_FALSE(HasFailure());
  for (const std::string codec : {"signsgd", "onebit+ef", "int8", "powersgd:2+ef", "topk:0.1+warmup:3"}) {
    const auto want = sums_of(4, codec, 4100, Values::normal, 3);
    run_steps(ranks, "gather", codec, 4100, Values::normal, true, want);
    if (HasFailure()) return;
  }
}

TEST_P(SparseExchanges, PassMessagesOnWithinAHost) {
  for (const auto& [n, here] : {std::pair{4, 2}, std::pair{6, 3}, std::pair{9, 3}, std::pair{4, 1}, std::pair{3, 3}}) {
    Ranks ranks(n, GetParam(), GetParam(), here);
    if (HasFailure()) return;
    for (const std::string codec : {"topk:0.1+ef", "nonzero:8"}) {
      const auto want = sums_of(n, codec, 2003, Values::normal, 2);
      for (const char* algorithm : {"gather", "split"})
        run_steps(ranks, algorithm, codec, 2003, Values::normal, false, want);
      if (HasFailure()) return;
    }
  }
}

// Long enough to be cut into parts, in the middle of blocks too.
TEST_P(SparseExchanges, SendLongMessagesBetweenHostsInParts) {
  for (const auto& [n, here] : {std::pair{4, 2}, std::pair{3, 1}}) {
    Ranks ranks(n, GetParam(), GetParam(), here);
    if (HasFailure()) return;
    for (const std::string codec : {"topk:0.5+ef", "nonzero:8", "nonzero:4000"}) {
      const auto want = sums_of(n, codec, 100003, Values::normal, 2);
      run_steps(ranks, "gather", codec, 100003, Values::normal, false, want);
      if (HasFailure()) return;
    }
  }
}

// The ranks of a host are summed as they are, and only their sums are encoded.
TEST_P(SparseExchanges, EncodeOnlyBetweenHosts) {
  constexpr std::size_t k_count = 3003;
  for (const auto& [n, here] : {std::pair{4, 2}, std::pair{6, 2}, std::pair{6, 3}}) {
    Ranks ranks(n, GetParam(), GetParam(), here);
    if (HasFailure()) return;
    const auto whole_numbers = [](int rank, int step) {
      auto values = make_values(k_count, Values::normal, static_cast<std::uint32_t>(100 * step + rank));
      for (float& value : values) value = std::round(16 * value);
      return values;
    };
    for (const std::string name : {"topk:0.1+ef", "nonzero:8"}) {
      std::vector<std::vector<float>> want(2, std::vector<float>(k_count));
      for (int host = 0; host < n / here; ++host) {
        const auto codec = codec_of(name);
        for (std::size_t step = 0; step < want.size(); ++step) {
          std::vector<float> sum(k_count);
          for (int rank = host * here; rank < (host + 1) * here; ++rank) {
            const auto one = whole_numbers(rank, static_cast<int>(step));
            for (std::size_t i = 0; i < k_count; ++i) sum[i] += one[i];
          }
          EXPECT_TRUE(codec->decode_add(encode_all(*codec, sum), want[step]));
        }
      }
      for (const char* algorithm : {"auto", "gather", "split"}) {
        for (const bool in_place : {false, true}) {
          ranks.expect_all([&](Communicator& communicator) -> Result<void> {
            communicator.forget_encodings();
            std::vector<float> in(k_count), out(k_count, -7.0f);
            GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
            GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
            for (std::size_t step = 0; step < want.size(); ++step) {
              std::ranges::copy(whole_numbers(communicator.rank(), static_cast<int>(step)), in.begin());
              Call call = call_of(algorithm, name, k_count, from, in_place ? from : to);
              call.coding.where = CodecWhere::between_hosts;
              GRADRAIL_TRY(communicator.run(call, soon()));
              expect_same(in_place ? in : out, want[step], std::string(algorithm) + " " + name);
            }
            return communicator.barrier(soon());
          });
          if (HasFailure()) return;
        }
      }
    }
  }
}

// Whole numbers, whose sums are exact: what went in comes out, if not at once, then when nothing more goes in.
void expect_nothing_lost(Ranks& ranks, const char* codec, std::size_t count, int shape, int steps) {
  const auto whole_numbers = [&](int rank, int step) {
    auto values = make_values(count, Values::normal, static_cast<std::uint32_t>(100 * step + rank));
    for (std::size_t i = 0; i < count; ++i) {
      const float value = std::round(64 * values[i]);
      values[i] = shape == 0   ? value
                  : shape == 1 ? 3.0f                                              // all are the same
                  : shape == 2 ? (i < 60 ? 1000 + value : std::round(value / 32))  // the large ones in one part
                               : (i == 5 ? 1e6f : 0.0f);                           // one alone
    }
    return values;
  };
  std::vector<double> want(count);
  for (int rank = 0; rank < ranks.size(); ++rank) {
    for (int step = 0; step < 3; ++step) {
      const auto one = whole_numbers(rank, step);
      for (std::size_t i = 0; i < count; ++i) want[i] += one[i];
    }
  }
  std::mutex lock;
  std::vector<std::vector<float>> first;  // of the ranks, all steps' results
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    communicator.forget_encodings();
    std::vector<float> in(count), out(count), all;
    std::vector<double> sum(count);
    GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
    GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
    for (int step = 0; step < steps; ++step) {
      std::ranges::fill(in, 0.0f);
      if (step < 3) std::ranges::copy(whole_numbers(communicator.rank(), step), in.begin());
      GRADRAIL_TRY(communicator.run(call_of("ok_topk", codec, count, from, to), soon()));
      for (std::size_t i = 0; i < count; ++i) sum[i] += out[i];
      all.insert(all.end(), out.begin(), out.end());
    }
    EXPECT_EQ(sum, want) << codec << ", " << count << " values, " << ranks.size() << " ranks, shape " << shape;
    {
      const std::lock_guard guard(lock);
      first.push_back(std::move(all));
    }
    return communicator.barrier(soon());
  });
  for (const auto& one : first) EXPECT_EQ(one, first.front());
}

TEST_P(SparseExchanges, OkTopkLosesNothing) {
  // Enough for all to come through; bounds and thresholds are asked for anew after 32.
  constexpr int k_steps = 260;
  for (const auto& [n, here] : {std::pair{1, 1}, std::pair{2, 2}, std::pair{3, 3}, std::pair{4, 2}, std::pair{6, 6}}) {
    for (const int shape : {0, 1, 2, 3}) {
      Ranks ranks(n, GetParam(), GetParam(), here);
      if (HasFailure()) return;
      expect_nothing_lost(ranks, "topk:0.1+ef", 700, shape, k_steps);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SparseExchanges, OkTopkTakesFewerValuesThanRanks) {
  for (int n = 1; n <= 9; ++n) {
    Ranks ranks(n, GetParam());
    if (HasFailure()) return;
    for (const char* codec : {"topk:0.5+ef", "topk:1+ef", "topk:0.01:sampled+ef"}) {
      for (const std::size_t count : {0u, 1u, 2u, 3u, 8u, 10u}) {
        for (const int shape : {0, 1}) {
          expect_nothing_lost(ranks, codec, count, shape, 34 + static_cast<int>(count) * n);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(SparseExchanges, OkTopkSendsAboutAsManyAsOneRankChose) {
  constexpr std::size_t k_count = 50000, k_wanted = 500;
  for (const int n : {2, 5}) {
    Ranks ranks(n, GetParam());
    ASSERT_FALSE(HasFailure());
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      std::vector<float> in(k_count), out(k_count);
      GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
      GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
      for (int step = 0; step < 5; ++step) {
        std::ranges::copy(
            make_values(k_count, Values::normal, static_cast<std::uint32_t>(9 * step + communicator.rank())),
            in.begin());
        GRADRAIL_TRY(communicator.run(call_of("ok_topk", "topk:0.01", k_count, from, to), soon()));
        const auto sent = static_cast<double>(k_count - static_cast<std::size_t>(std::ranges::count(out, 0.0f)));
        EXPECT_NEAR(sent, k_wanted, 0.25 * k_wanted) << "step " << step << ", " << n << " ranks";
        // Pairs of at most 8 bytes: parts, shares and lists. Numbers and tallies are a few KiB.
        EXPECT_LT(communicator.encoding().wire_bytes, 8 * 4 * k_wanted + 6000u * static_cast<unsigned>(n));
      }
      return communicator.barrier(soon());
    });
  }
}

// Gradients that are all multiples of one row: one vector each way is enough to carry their sum.
TEST_P(SparseExchanges, RoundsMakeTheSumOfMatricesOfLowRank) {
  constexpr std::size_t k_rows = 1021, k_columns = 1024, k_count = k_rows * k_columns;  // factors of some KiB
  for (const int n : {1, 2, 5}) {
    for (const char* name : {"powersgd:1", "powersgd:2+ef"}) {
      Ranks ranks(n, GetParam());
      ASSERT_FALSE(HasFailure());
      std::mutex lock;
      std::vector<std::vector<float>> results;
      ranks.expect_all([&](Communicator& communicator) -> Result<void> {
        std::vector<float> in(k_count), out(k_count);
        GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
        GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
        const auto row = make_values(k_columns, Values::normal, 1);
        std::vector<double> want(k_count), sum(k_count), all(k_count);
        for (int step = 0; step < 4; ++step) {
          std::fill(want.begin(), want.end(), 0.0);
          for (int rank = 0; rank < n; ++rank) {
            const auto factors =
                make_values(k_rows, Values::normal, static_cast<std::uint32_t>(10 + rank + 100 * step));
            for (std::size_t i = 0; i < k_count; ++i) {
              const float value = factors[i / k_columns] * row[i % k_columns];
              want[i] += value;
              if (rank == communicator.rank()) in[i] = value;
            }
          }
          GRADRAIL_TRY(communicator.run(call_of("rounds", name, k_count, from, to), soon()));
          for (std::size_t i = 0; i < k_count; ++i) {
            all[i] += want[i];
            sum[i] += out[i];
            // Where nothing is kept back each step is right by itself.
            if (name[9] == '1') {
              EXPECT_NEAR(out[i], want[i], 2e-4) << "value " << i << ", step " << step;
            }
            EXPECT_NEAR(sum[i], all[i], 2e-3) << "value " << i << ", step " << step;
          }
          if (n > 1) {
            EXPECT_LT(communicator.encoding().wire_bytes, communicator.encoding().dense_bytes / 4);
          }
        }
        {
          const std::lock_guard guard(lock);
          results.push_back(out);
        }
        return communicator.barrier(soon());
      });
      for (const auto& one : results) EXPECT_EQ(one, results.front());
      if (HasFailure()) return;
    }
  }
}

TEST_P(SparseExchanges, AllocateNothingOnceTheyRan) {
  Ranks ranks(3, GetParam());
  ASSERT_FALSE(HasFailure());
  for (const char* algorithm : {"gather", "split", "ok_topk"}) {
    ranks.expect_all([&](Communicator& communicator) -> Result<void> {
      auto values = values_of(20000, Values::normal, communicator.rank(), 0);
      GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(values))));
      for (int step = 0; step < 6; ++step) {
        std::ranges::copy(values_of(20000, Values::normal, communicator.rank(), 0), values.begin());  // the same again
        const auto own = gradrail::testing::allocations();
        GRADRAIL_TRY(communicator.run(call_of(algorithm, "topk:0.05+ef", 20000, memory, memory), soon()));
        if (step < 3) continue;
        EXPECT_EQ(gradrail::testing::allocations() - own, 0u) << algorithm << ", step " << step;
      }
      return communicator.barrier(soon());
    });
  }
}

TEST(SparseExchange, WhatCannotBeSplitIsRefused) {
  Ranks ranks(2, "local");
  ASSERT_FALSE(HasFailure());
  const auto said = ranks.all([&](Communicator& communicator) -> Result<void> {
    GRADRAIL_ASSIGN(const Memory memory, communicator.allocate(400));
    return communicator.run(call_of("split", "int8", 100, memory, memory), soon());
  });
  for (const auto& result : said) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Code::unsupported);
    EXPECT_NE(result.error().message.find("no pairs"), std::string::npos) << result.error().message;
  }
}

// Rank 0 runs one call and rank 1 another, as if it were broken or hostile: rank 0 says so, and names it.
void expect_blamed(const Call& mine, const Call& theirs, const std::string& sentence) {
  Ranks ranks(2, "local");
  ASSERT_FALSE(ranks.size() != 2);
  const auto said = ranks.all([&](Communicator& communicator) -> Result<void> {
    Call call = communicator.rank() == 0 ? mine : theirs;
    GRADRAIL_ASSIGN(const Memory memory, communicator.allocate(400 << 10));
    call.in = call.out = {&memory, 0};
    auto* const values = reinterpret_cast<float*>(memory.data());
    for (std::size_t i = 0; i < call.count; ++i) values[i] = static_cast<float>(i % 17) + 1;
    return communicator.run(call, Deadline::after(Seconds(communicator.rank() == 0 ? 30 : 0.5)));
  });
  ASSERT_FALSE(said[0]);
  EXPECT_EQ(said[0].error().code, Code::malformed) << said[0].error().message;
  EXPECT_EQ(said[0].error().peer, 1);
  EXPECT_NE(said[0].error().message.find(sentence), std::string::npos) << said[0].error().message;
}

TEST(SparseExchange, WhoSendsSomethingElseIsNamed) {
  const Memory none;
  const auto call = [&](const char* algorithm, const char* codec, std::uint64_t count) {
    return call_of(algorithm, codec, count, none, none);
  };
  expect_blamed(call("gather", "topk:0.1", 1000), call("gather", "nonzero:2", 1000), "rank 1 announced");
  expect_blamed(call("gather", "topk:0.9", 1000), call("gather", "nonzero:500", 1000),
                "rank 1 sent: topk:0.9: the front");
  expect_blamed(call("gather", "topk:0.1", 1000), call("gather", "topk:0.1", 999), "holds 999 values where 1000");
  expect_blamed(call("gather", "topk:0.1", 1000), call("split", "topk:0.1", 1000), "which it was not to send now");
  expect_blamed(call("split", "topk:0.1", 1000), call("split", "topk:0.1", 900), "rank 1 sent: topk:0.1");
  expect_blamed(call("gather", "topk:0.1", 1000), call("gather", "topk:0.9", 1000), "rank 1 announced");
  expect_blamed(call("ok_topk", "topk:0.1", 1000), call("ok_topk", "topk:0.1", 900), "bounds that do not ascend");
}

std::vector<std::string> transports() {
  std::vector<std::string> names;
  for (const auto& kind : transport_kinds()) names.emplace_back(kind.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Over, SparseExchanges, ::testing::ValuesIn(transports()),
                         [](const auto& which) { return which.param; });

}  // namespace
}  // namespace gradrail
