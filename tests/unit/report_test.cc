// What people read: figures, the choice of winners, the table, progress, the summary, CSV and the chart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "bench/report/chart.h"
#include "bench/report/choose.h"
#include "bench/report/csv.h"
#include "bench/report/figures.h"
#include "bench/report/progress.h"
#include "bench/report/summary.h"
#include "bench/report/table.h"

namespace gradrail {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

// An allreduce over shm, 1x4, whose median's interval is 5 % to each side.
Point point_of(const std::string& algorithm, std::int64_t bytes, double median_us) {
  Point point;
  point.collective = "allreduce";
  point.algorithm = algorithm;
  point.transport = "shm";
  point.topology = "1x4";
  point.ranks = 4;
  point.bytes = bytes;
  point.count = bytes / 4;
  point.type = "f32";
  point.op = "sum";
  point.wrong = 0;
  point.phase = "near";
  point.time_us = {.median = median_us,
                   .ci = {0.95 * median_us, 1.05 * median_us},
                   .p95 = 1.2 * median_us,
                   .p99 = 1.5 * median_us,
                   .min = 0.9 * median_us,
                   .max = 2 * median_us,
                   .cv = 0.034,
                   .n = 20};
  point.algbw_gbs = static_cast<double>(bytes) / median_us / 1e3;
  point.busbw_gbs = 1.5 * point.algbw_gbs;
  return point;
}

const std::vector<std::string> k_simplest_first = {"one_shot", "two_shot", "ring", "tree"};

// --- figures ---------------------------------------------------------------------------------------------------------

TEST(Figures, KeepFourDigitsAndNoMore) {
  EXPECT_EQ(format_us(0.0871), "0.087");
  EXPECT_EQ(format_us(9.9996), "10.00");
  EXPECT_EQ(format_us(262.14), "262.1");
  EXPECT_EQ(format_us(13216.4), "13216");
  EXPECT_EQ(format_us(std::nan("")), "-");
  EXPECT_EQ(format_gbs(0.0459), "0.046");
  EXPECT_EQ(format_gbs(9.7998), "9.80");
  EXPECT_EQ(format_gbs(142.71), "142.7");
}

TEST(Figures, TakeTheUnitThatFits) {
  EXPECT_EQ(format_duration(0.058), "58 ns");
  EXPECT_EQ(format_duration(10.52), "10.5 us");
  EXPECT_EQ(format_duration(999.7), "1.00 ms");
  EXPECT_EQ(format_duration(33012), "33.0 ms");
  EXPECT_EQ(format_duration(1.25e6), "1.25 s");
  EXPECT_EQ(format_wait(7.6), "8 s");
  EXPECT_EQ(format_wait(80), "1 min 20 s");
  EXPECT_EQ(format_wait(7500), "2 h 5 min");
  EXPECT_EQ(format_factor(1.836), "1.84x");
  EXPECT_EQ(format_factor(12.4), "12x");
}

// --- choosing --------------------------------------------------------------------------------------------------------

TEST(Choose, TheFastestWinsWhereIntervalsPart) {
  const std::vector<Point> points = {point_of("ring", 1024, 10), point_of("tree", 1024, 5)};
  const auto choices = choose(points, k_simplest_first);
  ASSERT_THAT(choices, SizeIs(1));
  EXPECT_EQ(choices[0].algorithm, "tree");
  EXPECT_EQ(choices[0].runner_up, "ring");
  EXPECT_DOUBLE_EQ(choices[0].margin, 2);
  EXPECT_TRUE(choices[0].confident);
  EXPECT_EQ(choices[0].bytes, 1024);
  EXPECT_EQ(choices[0].ranks, 4);
  EXPECT_THAT(marks(points, k_simplest_first), ElementsAre(Mark::none, Mark::winner));
}

TEST(Choose, ATieKeepsTheSimplerWhateverTheOrderOfMeasuring) {
  const std::vector<Point> points = {point_of("tree", 1024, 10), point_of("ring", 1024, 10.2),
                                     point_of("one_shot", 1024, 30)};
  const auto choices = choose(points, k_simplest_first);
  ASSERT_THAT(choices, SizeIs(1));
  EXPECT_EQ(choices[0].algorithm, "ring")
      << "simpler than tree, and as fast as can be told; one_shot is slower for certain";
  EXPECT_EQ(choices[0].runner_up, "tree");
  EXPECT_LT(choices[0].margin, 1) << "the runner-up was a little faster";
  EXPECT_FALSE(choices[0].confident);
  EXPECT_THAT(marks(points, k_simplest_first), ElementsAre(Mark::none, Mark::tie, Mark::none));
}

TEST(Choose, AWinnerTiedByAThirdIsNotConfident) {
  // The second's interval parts from the winner's; the third is slower at its median but so noisy that it does not.
  auto noisy = point_of("tree", 1024, 8);
  noisy.time_us->ci = {4, 12};
  const std::vector<Point> points = {point_of("one_shot", 1024, 5), point_of("ring", 1024, 7), noisy};
  const auto choices = choose(points, k_simplest_first);
  EXPECT_EQ(choices[0].algorithm, "one_shot");
  EXPECT_FALSE(choices[0].confident);
}

TEST(Choose, WithoutAListTheOrderOfMeasuringCounts) {
  const std::vector<Point> points = {point_of("tree", 1024, 10), point_of("ring", 1024, 10)};
  EXPECT_EQ(choose(points)[0].algorithm, "tree");
}

TEST(Choose, ASoleContenderIsChosenButBeatsNobody) {
  const std::vector<Point> points = {point_of("ring", 1024, 10)};
  const auto choices = choose(points);
  EXPECT_EQ(choices[0].algorithm, "ring");
  EXPECT_EQ(choices[0].runner_up, "");
  EXPECT_FALSE(choices[0].confident);
  EXPECT_THAT(marks(points), ElementsAre(Mark::none));
}

TEST(Choose, OnlyValidTimesOfOurOwnAlgorithmsCompete) {
  auto wrong = point_of("two_shot", 1024, 1);
  wrong.wrong = 3;
  auto failed = point_of("tree", 1024, 1);
  failed.error = "could not be run";
  auto untimed = point_of("halving_doubling", 1024, 1);
  untimed.time_us.reset();
  auto foreign = point_of("nccl", 1024, 1);
  foreign.library = "nccl";
  auto chosen = point_of("one_shot", 1024, 1);
  chosen.requested = "auto";
  const std::vector<Point> points = {wrong, failed, untimed, foreign, chosen, point_of("ring", 1024, 10)};
  const auto choices = choose(points, k_simplest_first);
  ASSERT_THAT(choices, SizeIs(1));
  EXPECT_EQ(choices[0].algorithm, "ring");
  EXPECT_EQ(choices[0].runner_up, "");
  EXPECT_THAT(choose(std::vector<Point>{wrong, failed}), IsEmpty());
}

TEST(Choose, FiguresOfTwoPhasesDoNotCompare) {
  auto far = point_of("tree", 1024, 5);
  far.phase = "far";
  EXPECT_FALSE(choose(std::vector<Point>{point_of("ring", 1024, 10), far})[0].confident);
}

TEST(Choose, FewSamplesAreNeverConfident) {
  auto slow = point_of("ring", 1024, 10), fast = point_of("tree", 1024, 5);
  slow.time_us->n = fast.time_us->n = 3;
  EXPECT_FALSE(choose(std::vector<Point>{slow, fast})[0].confident);
}

TEST(Choose, EachCaseHasItsOwnWinner) {
  auto tcp_ring = point_of("ring", 1024, 50), tcp_tree = point_of("tree", 1024, 90);
  tcp_ring.transport = tcp_tree.transport = "tcp";
  const auto choices = choose(std::vector<Point>{point_of("ring", 1024, 10), tcp_ring, point_of("tree", 1024, 5),
                                                 tcp_tree, point_of("ring", 4096, 7)});
  ASSERT_THAT(choices, SizeIs(3));
  EXPECT_EQ(choices[0].algorithm, "tree");
  EXPECT_EQ(choices[1].algorithm, "ring");
  EXPECT_EQ(choices[1].transport, "tcp");
  EXPECT_EQ(choices[2].bytes, 4096);
}

std::vector<Point> sweep() {
  return {point_of("one_shot", 4, 0.5),       point_of("ring", 4, 1),         point_of("one_shot", 1024, 0.6),
          point_of("ring", 1024, 1.5),        point_of("one_shot", 65536, 9), point_of("ring", 65536, 9.1),
          point_of("one_shot", 1 << 26, 9e4), point_of("ring", 1 << 26, 1e4)};
}

TEST(Choose, NeighbouringSizesWithOneWinnerAreOneRange) {
  const auto ranges = merge_sizes(choose(sweep(), k_simplest_first));
  ASSERT_THAT(ranges, SizeIs(2));
  EXPECT_EQ(ranges[0].first.algorithm, "one_shot");
  EXPECT_EQ(ranges[0].first.bytes, 4);
  EXPECT_EQ(ranges[0].last_bytes, 65536);
  EXPECT_EQ(ranges[0].sizes, 3);
  EXPECT_EQ(ranges[0].confident_sizes, 2);
  EXPECT_NEAR(ranges[0].least_margin, 9.1 / 9, 1e-9);
  EXPECT_DOUBLE_EQ(ranges[0].largest_margin, 2.5);
  EXPECT_THAT(ranges[0].runners_up, ElementsAre("ring"));
  EXPECT_EQ(ranges[1].first.algorithm, "ring");
  EXPECT_EQ(ranges[1].last_bytes, 1 << 26);
}

TEST(Choose, RangesDoNotDependOnTheOrderOfSizes) {
  auto choices = choose(sweep(), k_simplest_first);
  std::reverse(choices.begin(), choices.end());
  const auto ranges = merge_sizes(choices);
  ASSERT_THAT(ranges, SizeIs(2));
  EXPECT_EQ(ranges[0].first.bytes, 4);
  EXPECT_EQ(ranges[0].sizes, 3);
}

// --- the table -------------------------------------------------------------------------------------------------------

TEST(ReportTable, LooksLikeThis) {
  Table table({.algorithm_width = 8});
  auto unchecked = point_of("tree", 65536, 20);
  unchecked.wrong.reset();
  // clang-format off
  EXPECT_EQ(table.header() + table.row(point_of("ring", 65536, 10.5), Mark::winner) + table.row(unchecked, Mark::none),
            "#       size       count  type redop root    algorithm transport topology      time   algbw   busbw       p99     cv          95% interval  #wrong\n"
            "#        (B)  (elements)                                                      (us)  (GB/s)  (GB/s)      (us)    (%)          of time (us)\n"
            "       65536       16384   f32   sum   -1  * ring     shm       1x4          10.50    6.24    9.36     15.75    3.4        9.975 .. 11.03       0\n"
            "       65536       16384   f32   sum   -1    tree     shm       1x4          20.00    3.28    4.92     30.00    3.4        19.00 .. 21.00     N/A\n");
  // clang-format on
}

TEST(ReportTable, ColumnsStayInPlaceWithAndWithoutColour) {
  const auto stripped = [](std::string text) {
    for (auto at = text.find('\033'); at != std::string::npos; at = text.find('\033'))
      text.erase(at, text.find('m', at) - at + 1);
    return text;
  };
  Table plain({.collective_column = true}), coloured({.colour = true, .collective_column = true});
  auto wrong = point_of("ring", 1024, 10);
  wrong.wrong = 7;
  wrong.time_us.reset();
  for (const auto& [point, mark] : {std::pair(point_of("ring", 1024, 10), Mark::winner),
                                    {point_of("ring", 1024, 10), Mark::tie},
                                    {wrong, Mark::none}}) {
    const std::string row = plain.row(point, mark);
    EXPECT_THAT(row, Not(HasSubstr("\033")));
    EXPECT_EQ(stripped(coloured.row(point, mark)), row);
    EXPECT_EQ(row.size(), plain.header().find('\n') + 1);
  }
  EXPECT_THAT(coloured.row(point_of("ring", 1024, 10), Mark::winner), HasSubstr("\033[1;32m"));
  EXPECT_THAT(coloured.row(wrong, Mark::none), HasSubstr("\033[1;31m"));
  EXPECT_THAT(plain.header(), StartsWith("# collective"));
}

TEST(ReportTable, APointThatCouldNotBeRunSaysWhy) {
  Table table({});
  auto failed = point_of("tree", 4, 1);
  failed.time_us.reset();
  failed.wrong.reset();
  failed.error = "tree needs at least 2 ranks\nand had 1";
  EXPECT_THAT(table.row(failed, Mark::none),
              AllOf(HasSubstr(" - "), EndsWith("  tree needs at least 2 ranks and had 1\n")));
}

TEST(ReportTable, TheFooterCountsWhatCameOutWrong) {
  Table good({});
  static_cast<void>(good.row(point_of("ring", 4, 1), Mark::none));
  EXPECT_EQ(good.footer(), "# Out of bounds values : 0 OK\n");

  Table bad({});
  auto wrong = point_of("ring", 4, 1);
  wrong.wrong = 2;
  auto failed = point_of("tree", 4, 1);
  failed.error = "no";
  failed.wrong.reset();
  for (const auto& point : {wrong, wrong, failed}) static_cast<void>(bad.row(point, Mark::none));
  EXPECT_EQ(bad.footer(),
            "# Out of bounds values : 4 FAILED (2 of 3 points checked)\n# Points that could not be run : 1 of 3\n");

  Table unchecked({});
  wrong.wrong.reset();
  static_cast<void>(unchecked.row(wrong, Mark::none));
  EXPECT_EQ(unchecked.footer(), "# Out of bounds values : not checked\n");
}

TEST(ReportTable, AFileIsNeverColoured) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  ASSERT_TRUE(file);
  EXPECT_FALSE(wants_colour(file.get()));
}

// --- progress --------------------------------------------------------------------------------------------------------

TEST(ReportProgress, SaysHowLongItWillTake) {
  EXPECT_EQ(progress_line(0.25, Seconds(20), "allreduce ring 1 MiB", 80),
            "[ 25 %, 1 min 0 s left] allreduce ring 1 MiB");
  EXPECT_EQ(progress_line(0, Seconds(3), "warming up", 80), "[  0 %, estimating] warming up");
  EXPECT_EQ(progress_line(1.5, Seconds(3), "", 80), "[100 %, 0 s left] ") << "never beyond the end";
  EXPECT_EQ(progress_line(0.5, Seconds(3), "a name that is far too long", 20), "[ 50 %, 3 s left] a ");
}

TEST(ReportProgress, IsSilentWhereNobodyWatches) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  ASSERT_TRUE(file);
  {
    Progress progress(file.get());
    progress.update(0.5, "working");
    progress.clear();
  }
  std::fseek(file.get(), 0, SEEK_END);
  EXPECT_EQ(std::ftell(file.get()), 0);
}

// --- the summary -----------------------------------------------------------------------------------------------------

TEST(ReportSummary, LooksLikeThis) {
  const auto points = sweep();
  const Limits limits{"near", 50, 71};
  const auto bound = shared_memory_bound(points.back(), limits, 64 << 20);
  ASSERT_TRUE(bound);
  EXPECT_EQ(
      summary(choose(points, k_simplest_first), points, limits, std::vector{*bound}),
      "# Best algorithm by size: allreduce of f32, 4 ranks as 1x4, shm\n"
      "#   4 B - 64 KiB  one_shot  1.01x - 2.50x over ring  confident at 2 of 3 sizes, else a tie and the simpler is "
      "kept\n"
      "#   64 MiB        ring      9.00x over one_shot      confident\n"
      "# What the machine allows (phase near)\n"
      "#   A cache line goes from core to core in 50 ns.\n"
      "#   allreduce shm 1x4, 4 B: one_shot took 500 ns, the time of 10.0 such trips.\n"
      "#   Memory moves 71.00 GB/s, bytes read and written together.\n"
      "#   allreduce shm 1x4, 64 MiB: no less than 7.56 ms (all 4 ranks' buffers are read once and written once, 0.537 "
      "GB); ring took 10.0 ms, 76 % of what is possible.\n");
}

TEST(ReportSummary, TripsThatAreNoMeasureAreNotDividedBy) {
  auto points = sweep();
  EXPECT_THAT(summary({}, points, {"near", 200'000, 0}, {}), ::testing::HasSubstr("less than one such trip"));
  EXPECT_THAT(summary({}, points, {"far", 50, 0}, {}), ::testing::HasSubstr("in another phase (near)"));
}

TEST(ReportSummary, SpeaksOnlyOfWhatWasMeasured) {
  const std::vector<Point> alone = {point_of("ring", 4096, 3)};
  EXPECT_EQ(summary(choose(alone), alone, {}, {}),
            "# Best algorithm by size: allreduce of f32, 4 ranks as 1x4, shm\n#   4 KiB  ring  no rival\n");
  EXPECT_EQ(summary({}, {}, {}, {}), "");
}

TEST(ReportSummary, DoesNotHideALimitThatWasBeaten) {
  const std::vector<Point> points = {point_of("ring", 1 << 26, 5000)};
  const Limits limits{"", 0, 71};
  const auto bound = shared_memory_bound(points[0], limits, 0);
  ASSERT_TRUE(bound);
  EXPECT_THAT(
      summary({}, points, limits, std::vector{*bound}),
      AllOf(HasSubstr("no less than 7.56 ms"), HasSubstr("ring took 5.00 ms, 151 % of it: the bandwidth was another")));
}

TEST(ReportSummary, TheSharedMemoryLimitIsTwiceAllBuffers) {
  const Limits limits{"near", 58, 80};
  const auto bound = shared_memory_bound(point_of("ring", 100'000'000, 1), limits, 64 << 20);
  ASSERT_TRUE(bound);
  EXPECT_DOUBLE_EQ(bound->least_us, 10'000) << "2 x 4 x 100 MB at 80 GB/s";
  EXPECT_FALSE(bound->in_cache);
  EXPECT_FALSE(shared_memory_bound(point_of("ring", 4096, 1), limits, 64 << 20)) << "latency decides";
  const auto cached = shared_memory_bound(point_of("ring", 1 << 20, 200), limits, 64 << 20);
  ASSERT_TRUE(cached);
  EXPECT_TRUE(cached->in_cache);
  const std::vector<Point> points = {point_of("ring", 1 << 20, 52)};
  EXPECT_THAT(
      summary({}, points, limits, std::vector{*cached}),
      AllOf(HasSubstr("1 MiB: 105 us if caches held none of it"), HasSubstr("ring took 52.0 us, 202 % of the")));
  EXPECT_FALSE(shared_memory_bound(point_of("ring", 100'000'000, 1), {}, 0)) << "memory was not measured";
  auto other = point_of("ring", 100'000'000, 1);
  other.transport = "tcp";
  EXPECT_FALSE(shared_memory_bound(other, limits, 0));
  other = point_of("ring", 100'000'000, 1);
  other.topology = "2x2";
  EXPECT_FALSE(shared_memory_bound(other, limits, 0));
  other = point_of("ring", 100'000'000, 1);
  other.collective = "broadcast";
  EXPECT_FALSE(shared_memory_bound(other, limits, 0));
}

// --- CSV -------------------------------------------------------------------------------------------------------------

TEST(ReportCsv, IsOneRowAPointUnderNamedColumns) {
  EXPECT_EQ(
      csv_header(),
      "library,collective,algorithm,transport,topology,ranks,bytes,count,type,op,root,in_place,buffers,memory,cache,"
      "path,"
      "lanes,chunks,wrong,phase,time_us_median,time_us_ci_low,time_us_ci_high,time_us_p95,time_us_p99,time_us_min,"
      "time_us_max,time_us_cv,time_us_n,time_us_batch,algbw_gbs,busbw_gbs,model_us,expected_gbs,expected_share,"
      "codec,codec_where,wire_bytes,wire_ratio,encode_us,wire_us,decode_us,rel_l2_error,max_error,break_even_gbs,"
      "non_finite,error\r\n");
  EXPECT_EQ(
      csv_row(point_of("ring", 1000, 10)),
      "gradrail,allreduce,ring,shm,1x4,4,1000,250,f32,sum,-1,false,plain,,hot,,1,1,0,near,10,9.5,10.5,12,15,9,20,0.034,"
      "20,1,0.1,0.15,,,,,,,,,,,,,,,\r\n");
}

TEST(ReportCsv, QuotesWhatNeedsIt) {
  auto point = point_of("ring", 1000, 10);
  point.library = "";
  point.time_us.reset();
  point.wrong.reset();
  point.error = "peer 3, \"node7\", is gone\nand so on";
  const std::string row = csv_row(point);
  EXPECT_THAT(row, StartsWith(",allreduce,ring"));
  EXPECT_THAT(row, EndsWith(",,,,,,,,,,,,,,,,,,,,,,,,,\"peer 3, \"\"node7\"\", is gone\nand so on\"\r\n"));
}

TEST(ReportCsv, AFullDiskIsReported) { EXPECT_FALSE(CsvWriter::create("/dev/full")); }

// --- the chart -------------------------------------------------------------------------------------------------------

std::size_t count_of(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(ReportChart, DrawsALineAndABandForEachAlgorithmInBothPanels) {
  const std::string svg = chart_svg(sweep(), {"A <title> & more", "machine"});
  EXPECT_THAT(svg, AllOf(StartsWith("<svg"), EndsWith("</svg>\n")));
  EXPECT_EQ(count_of(svg, "<polyline"), 4u);
  EXPECT_EQ(count_of(svg, "<polygon"), 4u);
  EXPECT_EQ(count_of(svg, "<circle"), 16u);
  EXPECT_THAT(svg,
              AllOf(HasSubstr("A &lt;title&gt; &amp; more"), HasSubstr(">one_shot</text>"), HasSubstr(">ring</text>")));
  EXPECT_THAT(svg, AllOf(HasSubstr("message size"), HasSubstr("time of one operation"), HasSubstr("GB/s")));
  EXPECT_THAT(svg, HasSubstr("ring, 64 MiB: 10.0 ms (10.07 GB/s bus bandwidth)"));
  EXPECT_THAT(svg, Not(AnyOf(HasSubstr("nan"), HasSubstr("inf"))));
}

TEST(ReportChart, NamesLinesByWhatDiffers) {
  auto tcp = point_of("ring", 1024, 50);
  tcp.transport = "tcp";
  const std::string svg = chart_svg(std::vector<Point>{point_of("ring", 1024, 10), tcp}, {});
  EXPECT_THAT(svg, AllOf(HasSubstr(">ring shm</text>"), HasSubstr(">ring tcp</text>")));
}

TEST(ReportChart, CopesWithOnePointOneRankAndNothing) {
  EXPECT_EQ(count_of(chart_svg(std::vector<Point>{point_of("ring", 1024, 10)}, {}), "<circle"), 2u);
  auto alone = point_of("ring", 1024, 10);
  alone.busbw_gbs = 0;
  const std::string one_rank = chart_svg(std::vector<Point>{alone}, {});
  EXPECT_EQ(count_of(one_rank, "<circle"), 1u);
  EXPECT_THAT(one_rank, AllOf(Not(HasSubstr("bus bandwidth, GB/s")), Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
  alone.time_us.reset();
  EXPECT_THAT(chart_svg(std::vector<Point>{alone}, {}), HasSubstr("no point was timed"));
}

}  // namespace
}  // namespace gradrail
