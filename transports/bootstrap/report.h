// What a rank tells the launcher when it gives up, as one packet on a pipe that all ranks of the job share. A packet is
// written and read whole (the pipe is in packet mode, and a packet never exceeds PIPE_BUF), so ranks cannot mix theirs.
// The launcher trusts nothing in it: a packet that does not parse is dropped.
#pragma once

#include <span>
#include <string>

#include "transports/base/bytes.h"
#include "transports/base/result.h"

namespace gradrail {

struct Report {
  int rank = 0;
  Code code = Code::system;
  int peer = Error::k_no_peer;
  std::string message;
};

// At most k_report_bytes: a longer message is cut.
inline constexpr std::size_t k_report_bytes = 2048;
[[nodiscard]] Bytes encode(const Report& report);
// Errors: malformed.
[[nodiscard]] Result<Report> decode_report(std::span<const std::byte> packet, int ranks);

}  // namespace gradrail
