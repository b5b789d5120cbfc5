// The trace as a viewer reads it.
#include "bench/report/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace gradrail {
namespace {

using nlohmann::json;

class Trace : public testing::Test {
 protected:
  ~Trace() override { std::filesystem::remove(path_); }

  std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }
  json read() const { return json::parse(text()); }

  // The value of each metadata event `what` ("process_name", ...) by (pid, tid).
  static std::map<std::pair<int, int>, std::string> names(const json& events, const std::string& what) {
    std::map<std::pair<int, int>, std::string> out;
    for (const json& event : events)
      if (event["ph"] == "M" && event["name"] == what)
        out[{event["pid"].get<int>(), event["tid"].get<int>()}] = event["args"]["name"].get<std::string>();
    return out;
  }
  static std::vector<json> slices(const json& events, const std::string& category) {
    std::vector<json> out;
    for (const json& event : events)
      if (event["ph"] == "X" && event["cat"] == category) out.push_back(event);
    return out;
  }

  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("gradrail-trace-test-" + std::to_string(::getpid()))).string();
};

TEST_F(Trace, ShowsStepsByRankAndLane) {
  auto trace = TraceWriter::create(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_TRUE(trace->begin_point("allreduce ring shm 1x2 4 KiB"));
  ASSERT_TRUE(trace->add({.name = "send chunk 0",
                          .rank = 0,
                          .lane = 1,
                          .start_us = 0.25,
                          .duration_us = 2,
                          .step = 3,
                          .op = "send",
                          .peer = 1,
                          .bytes = 2048}));
  ASSERT_TRUE(
      trace->add({.name = "copy", .rank = 1, .lane = 0, .start_us = 1, .duration_us = 0.5, .op = "copy", .bytes = 64}));
  ASSERT_TRUE(trace->finish());

  const json events = read();
  const auto processes = names(events, "process_name");
  EXPECT_EQ(processes.at({1, 1}), "rank 0");
  EXPECT_EQ(processes.at({2, 1}), "rank 1");
  EXPECT_EQ(names(events, "thread_name").at({1, 2}), "lane 1");

  const auto steps = slices(events, "step");
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0]["name"], "send chunk 0");
  EXPECT_EQ(steps[0]["pid"], 1);
  EXPECT_EQ(steps[0]["tid"], 2);
  EXPECT_EQ(steps[0]["ts"], 0.25);
  EXPECT_EQ(steps[0]["dur"], 2.0);
  EXPECT_EQ(steps[0]["args"],
            json({{"rank", 0}, {"lane", 1}, {"step", 3}, {"op", "send"}, {"peer", 1}, {"bytes", 2048}}));
  EXPECT_FALSE(steps[1]["args"].contains("peer")) << "a copy has no peer";
}

TEST_F(Trace, PointsFollowOneAnotherOnOneTimeAxis) {
  auto trace = TraceWriter::create(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  for (const char* label : {"4 B", "8 B", "16 B"}) {
    ASSERT_TRUE(trace->begin_point(label));
    ASSERT_TRUE(trace->add({.name = "send", .rank = 0, .start_us = 1, .duration_us = 5, .op = "send", .peer = 1}));
  }
  ASSERT_TRUE(trace->finish());

  const json events = read();
  const auto points = slices(events, "point");
  const auto steps = slices(events, "step");
  ASSERT_EQ(points.size(), 3u);
  ASSERT_EQ(steps.size(), 3u);
  double end_us = -1;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double start_us = points[i]["ts"];
    EXPECT_GT(start_us, end_us) << "no point overlaps the one before";
    end_us = start_us + points[i]["dur"].get<double>();
    EXPECT_EQ(steps[i]["ts"].get<double>(), start_us + 1);
    EXPECT_LE(steps[i]["ts"].get<double>() + steps[i]["dur"].get<double>(), end_us);
  }
  EXPECT_EQ(points[2]["name"], "16 B");
  EXPECT_EQ(names(events, "process_name").at({points[0]["pid"].get<int>(), 1}), "points");
  EXPECT_EQ(names(events, "process_name").size(), 2u) << "a track is named once, however many points use it";
}

TEST_F(Trace, AnyNameIsAValidName) {
  auto trace = TraceWriter::create(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_TRUE(trace->begin_point("a \"quoted\"\nlabel \xff"));
  ASSERT_TRUE(trace->add({.name = "back\\slash", .start_us = std::nan(""), .duration_us = -1, .op = "send"}));
  ASSERT_TRUE(trace->finish());
  const auto steps = slices(read(), "step");
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0]["name"], "back\\slash");
  EXPECT_EQ(steps[0]["dur"], 0.0);
}

TEST_F(Trace, AKilledRunLeavesAllButTheClosingBracket) {
  auto trace = TraceWriter::create(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_TRUE(trace->begin_point("first"));
  ASSERT_TRUE(trace->add({.name = "send", .duration_us = 1, .op = "send"}));
  ASSERT_TRUE(trace->begin_point("second"));
  EXPECT_FALSE(json::accept(text()));
  EXPECT_EQ(slices(json::parse(text() + "]"), "point").size(), 1u);
}

TEST_F(Trace, AnEmptyTraceIsStillATrace) {
  auto trace = TraceWriter::create(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_TRUE(trace->finish());
  EXPECT_EQ(read(), json::array());
}

TEST_F(Trace, AFullDiskIsReported) {
  EXPECT_FALSE(TraceWriter::create("/dev/full"));
  EXPECT_FALSE(TraceWriter::create("/no/such/folder/trace.json"));
}

}  // namespace
}  // namespace gradrail
