// What point-to-point results come to: outliers by robust scores, the square of numbers, the heat map, rows and
// records.
#include "bench/measure/p2p.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "bench/measure/statistics.h"
#include "bench/report/csv.h"
#include "bench/report/p2p.h"
#include "results/store.h"
#include "transports/local/hub.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

P2pPoint point_of(int from, int to, double us, const std::string& test = "latency") {
  P2pPoint point;
  point.test = test;
  point.transport = "tcp";
  point.from = from;
  point.to = to;
  point.from_host = "a";
  point.to_host = "b";
  point.bytes = 8;
  point.buffers = "registered";
  point.path = "socket";
  point.iterations = 9;
  point.rounds = 9;
  point.samples_us = {us, us, us};
  point.time_us = summarise(point.samples_us);
  point.average_us = us;
  if (test != "latency") {
    point.bandwidth_gbs = 8 / us * 1e-3;
    point.message_mpps = 1 / us;
  }
  return point;
}

// Six pairs of four ranks; those of `slow` take longer.
std::vector<P2pPoint> four_ranks(int slow) {
  std::vector<P2pPoint> points;
  for (int from = 0; from < 4; ++from)
    for (int to = from + 1; to < 4; ++to)
      points.push_back(point_of(from, to, (from == slow || to == slow ? 40 : 10) + 0.1 * from + 0.03 * to));
  return points;
}

TEST(RobustScores, OneFarValueStandsOut) {
  // Median 10.2, median absolute deviation 0.2: by hand.
  const auto scores = robust_z_scores(std::vector<double>{10, 10.2, 10.4, 9.9, 30});
  EXPECT_NEAR(scores[4], 19.8 / (1.482602218505602 * 0.2), 1e-9);
  EXPECT_NEAR(scores[1], 0, 1e-12);
  EXPECT_LT(scores[3], 0);
}

TEST(RobustScores, EqualValuesHaveNone) {
  EXPECT_THAT(robust_z_scores(std::vector<double>(5, 3.0)), Each(0.0));
  EXPECT_THAT(robust_z_scores({}), ElementsAre());
}

TEST(RobustScores, WhereMostAreEqualTheMeanDeviationCounts) {
  // One of five differs by 1: mean deviation 0.2.
  const auto scores = robust_z_scores(std::vector<double>{1, 1, 1, 1, 2});
  EXPECT_NEAR(scores[4], 1 / (1.2533141373155 * 0.2), 1e-9);
  EXPECT_EQ(scores[0], 0);
}

TEST(P2pOutliers, APairIsNamed) {
  auto points = four_ranks(-1);
  points[3].time_us = summarise(std::vector<double>(3, 80.0));  // ranks 1 and 2
  score_pairs(points);
  ASSERT_TRUE(points[3].z_score);
  EXPECT_GT(*points[3].z_score, k_outlier_score);
  EXPECT_THAT(outliers_text(points), HasSubstr("# outlier: rank 1 on a and 2 on b over tcp: 80.00 us"));
  EXPECT_THAT(outliers_text(points), Not(HasSubstr("rank 0")));
}

TEST(P2pOutliers, ARankThatIsSlowInMostOfItsPairsIsNamedInstead) {
  std::vector<P2pPoint> points;
  for (int from = 0; from < 8; ++from)
    for (int to = from + 1; to < 8; ++to)
      points.push_back(point_of(from, to, (from == 5 || to == 5 ? 40 : 10) + 0.1 * from + 0.03 * to));
  score_pairs(points);
  EXPECT_EQ(outliers_text(points), "# outlier: rank 5 over tcp: slow in 7 of its 7 pairs\n");
}

TEST(P2pOutliers, FewPairsHaveNone) {
  std::vector<P2pPoint> points = {point_of(0, 1, 1), point_of(0, 2, 1), point_of(1, 2, 100)};
  score_pairs(points);
  EXPECT_FALSE(points[2].z_score) << "among three, none can be said to be odd";
  EXPECT_EQ(outliers_text(points), "");
}

TEST(P2pOutliers, TransportsAreJudgedApart) {
  auto points = four_ranks(-1);
  auto slow = four_ranks(-1);
  for (P2pPoint& point : slow) {
    point.transport = "verbs";
    point.time_us = summarise(std::vector<double>(3, point.time_us->median * 50));
  }
  points.insert(points.end(), slow.begin(), slow.end());
  score_pairs(points);
  EXPECT_EQ(outliers_text(points), "");
}

TEST(P2pReport, LatencyFillsBothHalvesOfTheSquare) {
  const auto panels = heat_panels(four_ranks(-1), 4);
  ASSERT_EQ(panels.size(), 1u);
  EXPECT_EQ(panels[0].heading, "latency of 8 B over tcp, us");
  EXPECT_FALSE(panels[0].more_is_better);
  EXPECT_FALSE(panels[0].cells[0].value) << "nobody sends to itself";
  EXPECT_EQ(panels[0].cells[1].value, panels[0].cells[4].value);
  const auto text = matrix_text(panels[0]);
  EXPECT_THAT(text, HasSubstr("     0        -"));
  EXPECT_THAT(text, HasSubstr("10.03"));
}

TEST(P2pReport, BandwidthHasADirection) {
  const std::vector<P2pPoint> points = {point_of(0, 1, 2, "bandwidth"), point_of(1, 0, 4, "bandwidth")};
  const auto panels = heat_panels(points, 2);
  EXPECT_TRUE(panels[0].more_is_better);
  EXPECT_NE(panels[0].cells[1].value, panels[0].cells[2].value);
}

TEST(P2pReport, RowsHavePerftestsColumns) {
  EXPECT_THAT(p2p_header("latency"), HasSubstr("t_min     t_max t_typical     t_avg   t_stdev       99%     99.9%"));
  EXPECT_THAT(p2p_row(point_of(0, 1, 2.5)), HasSubstr("2.500     2.500     2.500     2.500"));
  EXPECT_THAT(p2p_header("bandwidth"), HasSubstr("GB/s      Gb/s      Mpps"));
  P2pPoint failed = point_of(0, 1, 1);
  failed.time_us.reset();
  failed.error = "3 bytes came out wrong";
  EXPECT_THAT(p2p_row(failed), HasSubstr("3 bytes came out wrong"));
}

TEST(P2pReport, CsvHasAsManyCellsAsNames) {
  const auto commas = [](const std::string& text) { return std::count(text.begin(), text.end(), ','); };
  EXPECT_EQ(commas(p2p_csv_header()), commas(p2p_csv_row(point_of(0, 1, 1))));
  EXPECT_THAT(p2p_csv_header(), HasSubstr("bandwidth_gbs,message_mpps,expected_gbs,expected_share,z_score,error\r\n"));
}

TEST(P2pReport, AHeatMapFramesOutliersAndEscapesText) {
  HeatPanel panel;
  panel.heading = "a < b";
  panel.ranks = 2;
  panel.cells.resize(4);
  panel.cells[1] = {5.0, false, "fine"};
  panel.cells[2] = {50.0, true, "odd & slow"};
  const auto svg = heat_map_svg(std::span(&panel, 1), "title", "machine");
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("odd &amp; slow"));
  EXPECT_THAT(svg, HasSubstr("stroke-width=\"3\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_THAT(heat_map_svg({}, "t", "s"), HasSubstr("nothing was measured"));
}

TEST(P2pRecord, ComesBackAsItWas) {
  P2pPoint point = point_of(0, 1, 2.5, "bandwidth");
  point.z_score = -1.5;
  point.wrong = 0;
  point.operation = "write";
  point.expected_gbs = 12.5;
  point.expected_share = 0.5;
  point.memory = "cuda:0 to cuda:1";
  point.memory_path = "by mlx5_0: dma-buf";
  point.to_memory_path = "by mlx5_1: nvidia-peermem (dma-buf: the driver of mlx5_1 takes none)";
  const auto line = format_record(point);
  EXPECT_THAT(line,
              HasSubstr(R"({"kind":"p2p","test":"bandwidth","transport":"tcp","operation":"write","from":0,"to":1)"));
  EXPECT_THAT(line,
              HasSubstr(R"("memory":"cuda:0 to cuda:1","memory_path":"by mlx5_0: dma-buf","to_memory_path":"by)"));
  EXPECT_THAT(p2p_row(point), HasSubstr("cuda:0 to cuda:1 by mlx5_0: dma-buf; the other by mlx5_1: nvidia-peermem ("));
  EXPECT_THAT(line, HasSubstr(R"("expected_gbs":12.5,"expected_share":0.5)"));
  const auto read = parse_record(line);
  ASSERT_TRUE(read && *read);
  EXPECT_EQ(format_record(**read), line);
}

// --- the timed loops, between two threads
// -----------------------------------------------------------------------------

class P2pPair : public testing::Test {
 protected:
  // Runs `work` on both ranks with their ends, and returns rank 0's answer.
  template <class Work>
  auto between_two(int lanes, Work work) {
    auto hub = std::make_shared<LocalHub>();
    using Answer = decltype(work(std::declval<Pair&>()));
    std::array<std::optional<Answer>, 2> answers;
    std::array<Address, 2> addresses;
    std::array<std::unique_ptr<Transport>, 2> transports;
    for (int rank = 0; rank < 2; ++rank) {
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      settings.hub = hub;
      const auto at = static_cast<std::size_t>(rank);
      transports[at] = make_transport("local", settings).value();
      addresses[at] = transports[at]->listen().value();
    }
    const auto side = [&](int rank) {
      const auto at = static_cast<std::size_t>(rank);
      Peer peer;
      peer.rank = 1 - rank;
      peer.host = "here";
      peer.address = addresses[1 - at];
      auto pair = Pair::open(*transports[at], peer, rank == 0, {lanes, 4096, BufferKind::plain, true},
                             Deadline::after(Seconds(10)));
      if (pair) answers[at] = work(*pair);
    };
    std::thread other([&] { side(1); });
    side(0);
    other.join();
    EXPECT_TRUE(answers[1]);
    return std::move(*answers[0]);
  }
};

TEST_F(P2pPair, EveryTestInAnyOrderOverAnyLanes) {
  for (const int lanes : {1, 3}) {
    const auto done = between_two(lanes, [](Pair& pair) -> Result<std::size_t> {
      std::size_t samples = 0;
      for (const P2pTest test : {P2pTest::bandwidth, P2pTest::latency, P2pTest::bidirectional, P2pTest::message_rate,
                                 P2pTest::latency, P2pTest::bidirectional})
        for (const std::int64_t messages : {1, 2, 7, 100})
          for (const std::size_t bytes : {std::size_t{0}, std::size_t{8}, std::size_t{4096}}) {
            GRADRAIL_ASSIGN(const auto times, pair.run({test, bytes, messages, 5}, Deadline::after(Seconds(20))));
            samples += times.size();
            GRADRAIL_ASSIGN(const auto wrong,
                            pair.check(bytes, static_cast<std::uint64_t>(messages), Deadline::after(Seconds(20))));
            if (wrong != 0) return fail(Code::malformed, "wrong");
          }
      return samples;
    });
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(*done, 2u * 3 * 110 + 4 * 4 * 3);
  }
}

TEST_F(P2pPair, TheLargestDepthIsTheTransports) {
  const auto done = between_two(1, [](Pair& pair) -> Result<std::vector<double>> {
    GRADRAIL_TRY(pair.run({P2pTest::bidirectional, 64, 1000, 64}, Deadline::after(Seconds(20))));
    return pair.run({P2pTest::bandwidth, 64, 1000, 64}, Deadline::after(Seconds(20)));
  });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->size(), 1u);
}

}  // namespace
}  // namespace gradrail
