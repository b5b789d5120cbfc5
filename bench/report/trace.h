// A trace in the Chrome trace-event format (JSON array), to be opened in ui.perfetto.dev or chrome://tracing: a rank is
// a process, a lane a thread, a step of a plan a slice. One file holds many points one after the other on one time
// axis; a process named "points" says which is which. Written as it comes: an unfinished file still opens, for the
// format lets the closing bracket be missing. Ids count from 1, since viewers take process and thread 0 for the
// system's own; names and arguments keep the true numbers. One thread.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "results/output_file.h"
#include "transports/base/result.h"

namespace gradrail {

struct TraceEvent {
  std::string_view name;  // "recv_reduce chunk 3"
  int rank = 0;
  int lane = 0;
  double start_us = 0;  // since the point began; not negative
  double duration_us = 0;
  int step = 0;            // of the rank's program; -1 where it is none of a plan
  int phase = -1;          // of an exchange; -1 where there is none
  std::string_view op;     // "recv_reduce"
  int peer = -1;           // -1 where the step has none
  std::int64_t bytes = 0;  // moved
};

class TraceWriter {
 public:
  [[nodiscard]] static Result<TraceWriter> create(const std::string& path);

  // Ends the point before, if there was one, and leaves a gap on the time axis.
  [[nodiscard]] Result<void> begin_point(std::string_view label);
  [[nodiscard]] Result<void> add(const TraceEvent& event);  // of the point that was begun
  [[nodiscard]] Result<void> finish();                      // ends the last point and the file; nothing may follow

  [[nodiscard]] const std::string& path() const { return file_.path(); }

 private:
  explicit TraceWriter(OutputFile file) : file_(std::move(file)) {}
  void put(std::string_view object);
  void name_track(int pid, int tid, std::string_view process, std::string_view thread);
  void end_point();
  [[nodiscard]] Result<void> flush();

  OutputFile file_;
  std::string waiting_;  // written when it has grown large, and at the end of a point
  bool first_ = true;
  std::set<std::pair<int, int>> named_;  // (pid, tid) that have their names; tid 0: the process
  std::string point_;                    // label of the point that is open, empty if none is
  double point_start_us_ = 0;
  double end_us_ = 0;  // of all events so far
};

}  // namespace gradrail
