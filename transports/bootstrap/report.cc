#include "transports/bootstrap/report.h"

#include <algorithm>
#include <string_view>

namespace gradrail {
namespace {

constexpr std::uint32_t k_magic = 0x72706772;  // "rgpr"

}  // namespace

Bytes encode(const Report& report) {
  ByteWriter out;
  out.put(k_magic);
  out.put(static_cast<std::int32_t>(report.rank));
  out.put(static_cast<std::uint8_t>(report.code));
  out.put(static_cast<std::int32_t>(report.peer));
  out.put_string(std::string_view(report.message).substr(0, k_report_bytes - 32));
  return std::move(out).take();
}

Result<Report> decode_report(std::span<const std::byte> packet, int ranks) {
  ByteReader in(packet);
  const auto magic = in.get<std::uint32_t>();
  Report report;
  report.rank = in.get<std::int32_t>();
  const auto code = in.get<std::uint8_t>();
  report.peer = in.get<std::int32_t>();
  report.message = in.get_string();
  const bool sound = in.ok() && in.left() == 0 && magic == k_magic && report.rank >= 0 && report.rank < ranks &&
                     code <= static_cast<std::uint8_t>(Code::poisoned) && report.peer >= Error::k_no_peer &&
                     report.peer < ranks;
  if (!sound) return fail(Code::malformed, "a rank's report to the launcher does not parse");
  report.code = static_cast<Code>(code);
  // It will be printed as one line of a terminal.
  std::replace_if(
      report.message.begin(), report.message.end(), [](char c) { return c >= 0 && c < ' '; }, ' ');
  return report;
}

}  // namespace gradrail
