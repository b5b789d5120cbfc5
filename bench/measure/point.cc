#include "bench/measure/point.h"

#include <fmt/format.h>

#include "bench/measure/statistics.h"

namespace gradrail {

std::int64_t bytes_of(const Call& call, int ranks) {
  const auto bytes = static_cast<std::int64_t>(call.count * size_of(call.type));
  return is_blocked(call.collective) ? bytes * ranks : bytes;
}

namespace {

// What is the same for all points of a case.
Point point_at(const Setting& setting, const Call& call) {
  Point point;
  point.collective = to_string(call.collective);
  point.transport = setting.transport;
  point.topology = setting.topology;
  point.ranks = setting.ranks;
  point.bytes = bytes_of(call, setting.ranks);
  point.count = static_cast<std::int64_t>(call.count);
  point.type = to_string(call.type);
  if (reduces(call.collective)) point.op = to_string(call.op);
  if (has_root(call.collective)) point.root = call.root;
  point.in_place = call.in_place;
  point.buffers = to_string(setting.buffers);
  point.cache = to_string(setting.cache);
  point.bind = to_string(setting.bind);
  return point;
}

void add_figures(Point& point, const Setting& setting, const Call& call, const Outcome& outcome) {
  if (setting.checked) point.wrong = static_cast<std::int64_t>(outcome.wrong);
  if (outcome.wrong > 0) {
    point.error = fmt::format("{} elements came out wrong; the point was not timed", outcome.wrong);
    return;
  }
  point.samples_us = outcome.samples_us;
  if (point.samples_us.empty()) return;
  point.time_us = summarise(point.samples_us, outcome.batch);
  point.algbw_gbs = static_cast<double>(point.bytes) / point.time_us->median * 1e-3;
  point.busbw_gbs = point.algbw_gbs * bus_factor(call.collective, setting.ranks);
}

}  // namespace

Point point_of(const Setting& setting, const Call& call, const Outcome& outcome, const Contender& contender) {
  Point point = point_at(setting, call);
  point.library = contender.library();
  point.algorithm = contender.name();
  point.buffers = to_string(BufferKind::plain);
  if (outcome.refused)
    point.error = outcome.refused->message;
  else
    add_figures(point, setting, call, outcome);
  return point;
}

Point point_of(const Setting& setting, const Call& call, const Outcome& outcome) {
  Point point = point_at(setting, call);
  point.algorithm = outcome.refused ? std::string(call.algorithm) : outcome.ran.algorithm;
  if (call.algorithm == "auto") point.requested = "auto";
  if (outcome.refused) {
    point.error = outcome.refused->message;
    return point;
  }
  const Question question{call.collective,   static_cast<std::uint64_t>(point.bytes),
                          setting.ranks,     setting.ranks_per_host,
                          setting.transport, call.in_place};
  const Selection ran{outcome.ran.algorithm, outcome.ran.lanes, outcome.ran.pieces};
  if (const auto seconds = predict(ran, question, setting.model, call.root)) point.model_us = *seconds * 1e6;
  point.path = outcome.path;
  point.lanes = outcome.ran.lanes;
  point.chunks = static_cast<int>(outcome.ran.chunks);
  add_figures(point, setting, call, outcome);
  return point;
}

}  // namespace gradrail
