#include "bench/measure/point.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "bench/measure/memory_kind.h"
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
  if (setting.buffers == BufferKind::huge) point.memory = to_string(MemoryKind::huge);
  point.cache = to_string(setting.cache);
  point.bind = to_string(setting.bind);
  return point;
}

void add_figures(Point& point, const Setting& setting, const Call& call, const Outcome& outcome) {
  if (setting.checked) point.wrong = static_cast<std::int64_t>(outcome.wrong);
  if (outcome.wrong > 0) {
    point.error = !outcome.why_wrong.empty()
                      ? outcome.why_wrong
                      : fmt::format("{} elements came out wrong; the point was not timed", outcome.wrong);
    return;
  }
  point.samples_us = outcome.samples_us;
  if (point.samples_us.empty()) return;
  point.time_us = summarise(point.samples_us, outcome.batch);
  point.algbw_gbs = static_cast<double>(point.bytes) / point.time_us->median * 1e-3;
  point.busbw_gbs = point.algbw_gbs * bus_factor(call.collective, setting.ranks);
}

// What encoding cost and did.
void add_coding(Point& point, const Outcome& outcome) {
  if (!outcome.coding) return;
  const CodingFigures& figures = *outcome.coding;
  const bool encoded = !outcome.ran.codec.empty();
  point.codec = encoded ? outcome.ran.codec : std::string("none");
  if (encoded) point.codec_where = to_string(outcome.ran.where);
  point.wire_bytes = static_cast<std::int64_t>(figures.wire_bytes);
  if (figures.wire_bytes > 0)
    point.wire_ratio = static_cast<double>(figures.dense_bytes) / static_cast<double>(figures.wire_bytes);
  point.rel_l2_error = figures.relative_error;
  point.max_error = figures.largest_error;
  if (figures.non_finite) point.non_finite = true;
  if (!point.time_us || !encoded) return;
  const double all = point.time_us->median;
  point.encode_us = all * figures.encode_share;
  point.decode_us = all * figures.decode_share;
  point.wire_us = all - *point.encode_us - *point.decode_us;
}

}  // namespace

double break_even_gbs(const CodedAndDense& measured) {
  const double saved = measured.dense_bytes - measured.coded_bytes;
  double coding = measured.coding_us;
  double hidden = 0;  // share of the shorter of coding and the wire
  if (measured.dense_us > 0 && measured.dense_bytes > 0) {
    // What this link takes for the encoded bytes.
    const double wire = measured.dense_us * measured.coded_bytes / measured.dense_bytes;
    const double overlap = coding + wire - measured.coded_us;
    if (overlap < 0)
      coding -= overlap;
    else if (const double shorter = std::min(coding, wire); shorter > 0)
      hidden = std::min(1.0, overlap / shorter);
  }
  if (saved <= 0 || coding <= 0) return 0;
  // Bytes in a microsecond are thousandths of a GB/s.
  const double where_wire_is_shorter = (measured.dense_bytes - (1 - hidden) * measured.coded_bytes) / coding;
  if (where_wire_is_shorter >= measured.coded_bytes / coding) return where_wire_is_shorter * 1e-3;
  return saved / (coding * (1 - hidden)) * 1e-3;
}

void say_where_encoding_pays(std::vector<Point>& points) {
  for (Point& point : points) {
    if (!is_encoded(point) || !point.time_us || !point.wire_bytes) continue;
    const Point* dense = nullptr;
    for (const Point& other : points)
      if (other.library == point.library && other.buffers == point.buffers && other.time_us && other.wire_bytes &&
          !is_encoded(other) && (dense == nullptr || other.time_us->median < dense->time_us->median))
        dense = &other;
    CodedAndDense measured;
    measured.coded_us = point.time_us->median;
    measured.coded_bytes = static_cast<double>(*point.wire_bytes);
    measured.coding_us = point.encode_us.value_or(0) + point.decode_us.value_or(0);
    measured.dense_bytes = measured.coded_bytes * point.wire_ratio.value_or(1);
    if (dense != nullptr) {
      measured.dense_us = dense->time_us->median;
      measured.dense_bytes = static_cast<double>(*dense->wire_bytes);
    }
    if (measured.dense_us > 0 || measured.coding_us > 0) point.break_even_gbs = break_even_gbs(measured);
  }
}

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
  // An exchange may take the cheaper of two others.
  const bool chosen = call.coding.asked() && !point.algorithm.starts_with(call.algorithm);
  if (call.algorithm == "auto" || chosen) point.requested = std::string(call.algorithm);
  if (call.coding.asked()) point.codec = std::string(call.coding.codec);
  if (call.coding.permitted()) point.requested_codec = "auto";
  if (outcome.refused) {
    point.error = outcome.refused->message;
    return point;
  }
  const Question question{call.collective,   static_cast<std::uint64_t>(point.bytes),
                          setting.ranks,     setting.ranks_per_host,
                          setting.transport, call.in_place};
  const Selection ran{outcome.ran.algorithm, outcome.ran.lanes, outcome.ran.pieces};
  // The model knows no codecs.
  if (const auto seconds = predict(ran, question, setting.model, call.root); seconds && outcome.ran.codec.empty())
    point.model_us = *seconds * 1e6;
  point.path = outcome.path;
  point.via = setting.via;
  point.lanes = outcome.ran.lanes;
  point.chunks = static_cast<int>(outcome.ran.chunks);
  add_figures(point, setting, call, outcome);
  add_coding(point, outcome);
  return point;
}

}  // namespace gradrail
