#include "bench/report/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace gradrail {
namespace {

constexpr int k_points_pid = 1'000'000;  // behind any rank
constexpr double k_gap_us = 10;
constexpr std::size_t k_write_at_bytes = std::size_t{1} << 16;

std::string quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// A viewer refuses a whole file for one NaN.
double finite(double us) { return std::isfinite(us) && us > 0 ? us : 0; }

std::string slice(std::string_view name, std::string_view category, int pid, int tid, double start_us,
                  double duration_us, std::string_view args) {
  return fmt::format(R"({{"ph":"X","name":{},"cat":"{}","pid":{},"tid":{},"ts":{:.4f},"dur":{:.4f},"args":{{{}}}}})",
                     quoted(name), category, pid, tid, start_us, duration_us, args);
}

}  // namespace

Result<TraceWriter> TraceWriter::create(const std::string& path) {
  GRADRAIL_ASSIGN(auto file, OutputFile::create(path));
  GRADRAIL_TRY(file.write("[\n"));
  return TraceWriter(std::move(file));
}

Result<void> TraceWriter::begin_point(std::string_view label) {
  end_point();
  name_track(k_points_pid, 1, "points", "point");
  point_ = label;
  point_start_us_ = end_us_ > 0 ? end_us_ + k_gap_us : 0;
  end_us_ = point_start_us_;
  return flush();
}

Result<void> TraceWriter::add(const TraceEvent& event) {
  const int pid = event.rank + 1;
  const int tid = event.lane + 1;
  name_track(pid, tid, fmt::format("rank {}", event.rank), fmt::format("lane {}", event.lane));
  const double start_us = point_start_us_ + finite(event.start_us);
  const double duration_us = finite(event.duration_us);
  end_us_ = std::max(end_us_, start_us + duration_us);
  std::string args =
      fmt::format(R"("rank":{},"lane":{},"op":{},"bytes":{})", event.rank, event.lane, quoted(event.op), event.bytes);
  if (event.step >= 0) args += fmt::format(R"(,"step":{})", event.step);
  if (event.phase >= 0) args += fmt::format(R"(,"phase":{})", event.phase);
  if (event.peer >= 0) args += fmt::format(R"(,"peer":{})", event.peer);
  put(slice(event.name, "step", pid, tid, start_us, duration_us, args));
  return waiting_.size() < k_write_at_bytes ? Result<void>() : flush();
}

Result<void> TraceWriter::finish() {
  end_point();
  waiting_ += "\n]\n";
  return flush();
}

void TraceWriter::put(std::string_view object) {
  if (!first_) waiting_ += ",\n";
  first_ = false;
  waiting_ += object;
}

void TraceWriter::name_track(int pid, int tid, std::string_view process, std::string_view thread) {
  const auto name = [&](std::string_view what, int of_tid, std::string_view is) {
    put(fmt::format(R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"name":{}}}}})", what, pid, of_tid,
                    quoted(is)));
  };
  if (named_.emplace(pid, 0).second) {
    name("process_name", 1, process);
    // Ranks in their order, below the row of points.
    put(fmt::format(R"({{"ph":"M","name":"process_sort_index","pid":{},"tid":1,"args":{{"sort_index":{}}}}})", pid,
                    pid == k_points_pid ? 0 : pid));
  }
  if (named_.emplace(pid, tid).second) name("thread_name", tid, thread);
}

void TraceWriter::end_point() {
  if (point_.empty()) return;
  put(slice(point_, "point", k_points_pid, 1, point_start_us_, end_us_ - point_start_us_, ""));
  point_.clear();
}

Result<void> TraceWriter::flush() {
  const std::string text = std::exchange(waiting_, {});
  return file_.write(text);
}

}  // namespace gradrail
