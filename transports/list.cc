// The one table that names all transports. A new transport is one folder and one line here.
#include <fmt/format.h>

#include <array>

#include "transports/settings.h"

namespace gradrail {

// One line a transport:
//   extern const TransportKind k_NAME_transport;   (defined in transports/NAME/)
extern const TransportKind k_shm_transport;
extern const TransportKind k_tcp_transport;
extern const TransportKind k_local_transport;

std::span<const TransportKind> transport_kinds() {
  static const std::array kinds{
      k_shm_transport,
      k_tcp_transport,
      k_local_transport,
  };
  return kinds;
}

Result<std::unique_ptr<Transport>> make_transport(std::string_view name, const Settings& settings) {
  std::string known;
  for (const auto& kind : transport_kinds()) {
    if (kind.name == name) {
      GRADRAIL_TRY(kind.available());
      return kind.make(settings);
    }
    known += known.empty() ? "" : ", ";
    known += kind.name;
  }
  return fail(Code::bad_usage, fmt::format("there is no transport '{}'; known are {}", name, known));
}

}  // namespace gradrail
