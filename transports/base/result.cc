#include "transports/base/result.h"

#include <fmt/format.h>

#include <system_error>

namespace gradrail {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::bad_usage: return "bad usage";
    case Code::unavailable: return "unavailable";
    case Code::unsupported: return "unsupported";
    case Code::peer_gone: return "peer gone";
    case Code::timed_out: return "timed out";
    case Code::refused: return "refused";
    case Code::malformed: return "malformed";
    case Code::exhausted: return "exhausted";
    case Code::system: return "system";
    case Code::poisoned: return "poisoned";
  }
  return "unknown";
}

Error Error::in(std::string_view what) && {
  message = fmt::format("{}: {}", what, message);
  return std::move(*this);
}

tl::unexpected<Error> fail_errno(std::string_view what, int sys_errno, int peer) {
  return fail(Code::system, fmt::format("{}: {}", what, std::system_category().message(sys_errno)), peer, sys_errno);
}

}  // namespace gradrail
