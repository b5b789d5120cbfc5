// What a failed completion or an asynchronous event means: the words of libibverbs, and the likely cause in words that
// a person can act on.
#pragma once

#include <string>
#include <string_view>

#include "transports/base/result.h"
#include "transports/verbs/calls.h"

namespace gradrail::verbs {

// Where a pipe runs, for sentences.
struct Where {
  std::string peer;    // "rank 3 on host b"
  std::string device;  // "mlx5_0 port 1"
  int timeout = 0;     // as in Options
  int retry = 0;
  std::string_view note;  // what is known besides, such as a port that went down; may be empty
};

[[nodiscard]] std::string_view name_of(ibv_wc_status status);
[[nodiscard]] std::string_view name_of(ibv_event_type event);

struct Cause {
  Code code = Code::system;
  std::string message;
};
[[nodiscard]] Cause cause_of(ibv_wc_status status, std::uint32_t vendor_error, const Where& where);

enum class Reach { nothing, pair, port, device };  // what an event concerns
struct EventMeaning {
  Reach reach = Reach::nothing;
  bool fatal = false;     // pipes it reaches are dead; else it only explains what may follow
  std::string_view says;  // "the port went down"
};
[[nodiscard]] EventMeaning meaning_of(ibv_event_type event);

}  // namespace gradrail::verbs
