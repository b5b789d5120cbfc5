#include "bench/report/table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "bench/report/figures.h"

namespace gradrail {
namespace {

constexpr std::string_view k_bold_green = "\033[1;32m";
constexpr std::string_view k_bold_red = "\033[1;31m";
constexpr std::string_view k_plain = "\033[0m";

constexpr int k_collective_width = 15;

struct Cells {
  std::string_view collective, size, count, type, redop, root, algorithm, transport, topology, time, algbw, busbw, p99,
      cv, interval, wrong;
  std::string_view codec = {}, encode = {}, wire = {}, decode = {}, sent = {}, ratio = {}, error = {}, most = {},
                   pays = {};
};

// The one place that knows the columns. Colours go around padded text, so that they move nothing.
std::string line(const TableOptions& options, char lead, const Cells& cells, std::string_view colour = {},
                 std::string_view wrong_colour = {}) {
  const auto paint = [](std::string_view with, const std::string& text) {
    return with.empty() ? text : fmt::format("{}{}{}", with, text, k_plain);
  };
  std::string out = options.collective_column ? fmt::format("{:<{}}", cells.collective, k_collective_width) : "";
  out += fmt::format("{:>12} {:>11} {:>5} {:>5} {:>4}  ", cells.size, cells.count, cells.type, cells.redop, cells.root);
  out += paint(colour, fmt::format("{:<{}}", cells.algorithm, options.algorithm_width + 2));
  if (options.codec_width > 0) out += fmt::format(" {:<{}}", cells.codec, options.codec_width);
  out += fmt::format(" {:<{}} {:<8} ", cells.transport, options.transport_width, cells.topology);
  out += paint(colour, fmt::format("{:>9} {:>7} {:>7}", cells.time, cells.algbw, cells.busbw));
  out += fmt::format(" {:>9} {:>6} {:>21} ", cells.p99, cells.cv, cells.interval);
  out += paint(wrong_colour, fmt::format("{:>7}", cells.wrong));
  if (options.codec_width > 0)
    out += fmt::format(" {:>9} {:>9} {:>9} {:>12} {:>6} {:>9} {:>9} {:>11}", cells.encode, cells.wire, cells.decode,
                       cells.sent, cells.ratio, cells.error, cells.most, cells.pays);
  if (lead != ' ') out.front() = lead;
  return out;
}

}  // namespace

bool wants_colour(std::FILE* stream) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(stream)) == 1 && (!no_colour || *no_colour == '\0') &&
         (!term || std::string_view(term) != "dumb");
}

std::string Table::header() const {
  const std::string_view collective = options_.collective_column ? "# collective" : "";
  const std::string names =
      line(options_, '#',
           {collective, "size",   "count", "type",  "redop",    "root",         "  algorithm", "transport", "topology",
            "time",     "algbw",  "busbw", "p99",   "cv",       "95% interval", "#wrong",      "codec",     "encode",
            "wire",     "decode", "sent",  "ratio", "L2 error", "max error",    "pays below"});
  std::string units =
      line(options_, '#',
           {"",      "(B)", "(elements)",   "", "", "",     "",     "",     "",    "(us)", "(GB/s)",    "(GB/s)",
            "(us)",  "(%)", "of time (us)", "", "", "(us)", "(us)", "(us)", "(B)", "",     "of result", "of largest",
            "(GB/s)"});
  units.erase(units.find_last_not_of(' ') + 1);
  return fmt::format("{}\n{}\n", names, units);
}

std::string Table::row(const Point& point, Mark mark) {
  const bool is_wrong = point.wrong.value_or(0) > 0;
  ++points_;
  checked_points_ += point.wrong.has_value();
  wrong_ += point.wrong.value_or(0);
  failed_points_ += point.error.has_value();

  const std::string size = std::to_string(point.bytes);
  const std::string count = std::to_string(point.count);
  const std::string root = std::to_string(point.root);
  std::string algorithm = fmt::format("{} {}",
                                      mark == Mark::winner ? '*'
                                      : mark == Mark::tie  ? '~'
                                                           : ' ',
                                      point.requested               ? *point.requested + ":" + point.algorithm
                                      : point.library != "gradrail" ? point.library + ":" + point.algorithm
                                                                    : point.algorithm);
  if (options_.say_registered && point.buffers == "registered") algorithm += " (registered)";
  const std::string wrong = point.wrong ? std::to_string(*point.wrong) : "N/A";
  std::string time = "-", algbw = "-", busbw = "-", p99 = "-", cv = "-", interval = "-";
  if (point.time_us) {
    time = format_us(point.time_us->median);
    algbw = format_gbs(point.algbw_gbs);
    busbw = format_gbs(point.busbw_gbs);
    p99 = format_us(point.time_us->p99);
    cv = fmt::format("{:.1f}", 100 * point.time_us->cv);
    interval = fmt::format("{} .. {}", format_us(point.time_us->ci[0]), format_us(point.time_us->ci[1]));
  }
  const auto text = [](const std::optional<double>& value, auto format) {
    return value ? format(*value) : std::string("-");
  };
  const auto as_error = [](double value) { return fmt::format("{:.2g}", value); };
  const std::string codec = (point.requested_codec ? *point.requested_codec + ":" : "") + point.codec.value_or("-");
  const std::string encode = text(point.encode_us, format_us), wire_time = text(point.wire_us, format_us),
                    decode = text(point.decode_us, format_us);
  const std::string sent = point.wire_bytes ? std::to_string(*point.wire_bytes) : "-";
  const std::string ratio = text(point.wire_ratio, [](double value) { return fmt::format("{:.2f}", value); });
  const std::string error = text(point.rel_l2_error, as_error), most = text(point.max_error, as_error);
  const std::string pays = text(point.break_even_gbs, format_gbs);
  const auto colour = options_.colour && mark == Mark::winner ? k_bold_green : std::string_view();
  std::string out = line(options_, ' ',
                         {point.collective,
                          size,
                          count,
                          point.type,
                          point.op.empty() ? "none" : point.op,
                          root,
                          algorithm,
                          point.transport,
                          point.topology,
                          time,
                          algbw,
                          busbw,
                          p99,
                          cv,
                          interval,
                          wrong,
                          codec,
                          encode,
                          wire_time,
                          decode,
                          sent,
                          ratio,
                          error,
                          most,
                          pays},
                         colour, options_.colour && is_wrong ? k_bold_red : std::string_view());
  if (point.non_finite) out += "  values that were no finite numbers were met: blocks of the result are NaN";
  if (point.error) {
    // A sentence with a line break in it would look like a row of its own.
    std::string sentence = *point.error;
    std::replace(sentence.begin(), sentence.end(), '\n', ' ');
    out += "  " + sentence;
  }
  return out + '\n';
}

std::string Table::footer() const {
  std::string out = "# Out of bounds values : ";
  const auto painted = [&](std::string_view colour, std::string_view text) {
    return options_.colour ? fmt::format("{}{}{}", colour, text, k_plain) : std::string(text);
  };
  if (checked_points_ == 0)
    out += "not checked";
  else
    out += fmt::format("{} {}", wrong_, wrong_ == 0 ? painted(k_bold_green, "OK") : painted(k_bold_red, "FAILED"));
  if (checked_points_ > 0 && checked_points_ < points_)
    out += fmt::format(" ({} of {} points checked)", checked_points_, points_);
  out += '\n';
  if (failed_points_ > 0) out += fmt::format("# Points that could not be run : {} of {}\n", failed_points_, points_);
  return out;
}

}  // namespace gradrail
