#include "bench/report/csv.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace gradrail {
namespace {

std::string cell(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string out(1, '"');
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
  return out;
}
std::string cell(const std::string& text) { return cell(std::string_view(text)); }
std::string cell(double value) { return std::isfinite(value) ? fmt::format("{:.7g}", value) : ""; }
std::string cell(std::int64_t value) { return std::to_string(value); }
std::string cell(int value) { return std::to_string(value); }
std::string cell(bool value) { return value ? "true" : "false"; }
template <class T>
std::string cell(const std::optional<T>& value) {
  return value ? cell(*value) : std::string();
}

struct Cell {
  std::string_view name;
  std::string text;
};

std::string median_and_co(const std::optional<Timing>& timing, double Timing::*member) {
  return timing ? cell((*timing).*member) : std::string();
}

std::vector<Cell> cells_of(const P2pPoint& point) {
  const auto figure = [&](double value) { return point.time_us ? cell(value) : std::string(); };
  return {{"test", cell(point.test)},
          {"transport", cell(point.transport)},
          {"operation", cell(point.operation)},
          {"from", cell(point.from)},
          {"to", cell(point.to)},
          {"from_host", cell(point.from_host)},
          {"to_host", cell(point.to_host)},
          {"bytes", cell(point.bytes)},
          {"depth", cell(point.depth)},
          {"lanes", cell(point.lanes)},
          {"buffers", cell(point.buffers)},
          {"memory", cell(point.memory)},
          {"memory_path", cell(point.memory_path)},
          {"path", cell(point.path)},
          {"iterations", cell(point.iterations)},
          {"rounds", cell(point.rounds)},
          {"wrong", cell(point.wrong)},
          {"time_us_median", median_and_co(point.time_us, &Timing::median)},
          {"time_us_ci_low", point.time_us ? cell(point.time_us->ci[0]) : ""},
          {"time_us_ci_high", point.time_us ? cell(point.time_us->ci[1]) : ""},
          {"time_us_p99", median_and_co(point.time_us, &Timing::p99)},
          {"time_us_min", median_and_co(point.time_us, &Timing::min)},
          {"time_us_max", median_and_co(point.time_us, &Timing::max)},
          {"average_us", figure(point.average_us)},
          {"stdev_us", figure(point.stdev_us)},
          {"p999_us", figure(point.p999_us)},
          {"bandwidth_gbs", figure(point.bandwidth_gbs)},
          {"message_mpps", figure(point.message_mpps)},
          {"expected_gbs", cell(point.expected_gbs)},
          {"expected_share", cell(point.expected_share)},
          {"z_score", cell(point.z_score)},
          {"error", cell(point.error)}};
}

// Names and values side by side, so that header and rows cannot come apart.
std::vector<Cell> cells_of(const Point& point) {
  const auto timing = [&](auto member) -> std::string { return point.time_us ? cell(member(*point.time_us)) : ""; };
  return {{"library", cell(point.library)},
          {"collective", cell(point.collective)},
          {"algorithm", cell(point.algorithm)},
          {"transport", cell(point.transport)},
          {"topology", cell(point.topology)},
          {"ranks", cell(point.ranks)},
          {"bytes", cell(point.bytes)},
          {"count", cell(point.count)},
          {"type", cell(point.type)},
          {"op", cell(point.op)},
          {"root", cell(point.root)},
          {"in_place", cell(point.in_place)},
          {"buffers", cell(point.buffers)},
          {"memory", cell(point.memory)},
          {"cache", cell(point.cache)},
          {"path", cell(point.path)},
          {"lanes", cell(point.lanes)},
          {"chunks", cell(point.chunks)},
          {"wrong", cell(point.wrong)},
          {"phase", cell(point.phase)},
          {"time_us_median", timing([](const Timing& t) { return t.median; })},
          {"time_us_ci_low", timing([](const Timing& t) { return t.ci[0]; })},
          {"time_us_ci_high", timing([](const Timing& t) { return t.ci[1]; })},
          {"time_us_p95", timing([](const Timing& t) { return t.p95; })},
          {"time_us_p99", timing([](const Timing& t) { return t.p99; })},
          {"time_us_min", timing([](const Timing& t) { return t.min; })},
          {"time_us_max", timing([](const Timing& t) { return t.max; })},
          {"time_us_cv", timing([](const Timing& t) { return t.cv; })},
          {"time_us_n", timing([](const Timing& t) { return t.n; })},
          {"time_us_batch", timing([](const Timing& t) { return t.batch; })},
          {"algbw_gbs", point.time_us ? cell(point.algbw_gbs) : ""},
          {"busbw_gbs", point.time_us ? cell(point.busbw_gbs) : ""},
          {"model_us", cell(point.model_us)},
          {"expected_gbs", cell(point.expected_gbs)},
          {"expected_share", cell(point.expected_share)},
          {"codec", cell(point.codec)},
          {"codec_where", cell(point.codec_where)},
          {"wire_bytes", cell(point.wire_bytes)},
          {"wire_ratio", cell(point.wire_ratio)},
          {"encode_us", cell(point.encode_us)},
          {"wire_us", cell(point.wire_us)},
          {"decode_us", cell(point.decode_us)},
          {"rel_l2_error", cell(point.rel_l2_error)},
          {"max_error", cell(point.max_error)},
          {"break_even_gbs", cell(point.break_even_gbs)},
          {"non_finite", cell(point.non_finite)},
          {"error", cell(point.error)}};
}

template <class T>
std::string line(const T& point, std::string (*part)(const Cell&)) {
  std::string out;
  bool first = true;
  for (const Cell& each : cells_of(point)) {
    if (!first) out += ',';
    first = false;
    out += part(each);
  }
  out += "\r\n";
  return out;
}

}  // namespace

std::string csv_header() {
  return line(Point(), [](const Cell& each) { return std::string(each.name); });
}

std::string csv_row(const Point& point) {
  return line(point, [](const Cell& each) { return each.text; });
}

std::string p2p_csv_header() {
  return line(P2pPoint(), [](const Cell& each) { return std::string(each.name); });
}

std::string p2p_csv_row(const P2pPoint& point) {
  return line(point, [](const Cell& each) { return each.text; });
}

Result<CsvWriter> CsvWriter::create(const std::string& path) {
  GRADRAIL_ASSIGN(auto file, OutputFile::create(path));
  GRADRAIL_TRY(file.write(csv_header()));
  return CsvWriter(std::move(file));
}

}  // namespace gradrail
