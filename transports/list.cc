// The one table that names all transports, in the order of preference within a host. A new transport is one folder and
// one line here: TRANSPORT(NAME), where the folder defines the constant k_NAME_transport. Where its library was absent
// when gradrail was built, the constant says so instead (scripts/cmake/GradrailTransports.cmake).
#include <fmt/format.h>

#include <array>

#include "transports/settings.h"

#define GRADRAIL_TRANSPORTS(TRANSPORT) \
  TRANSPORT(shm)                       \
  TRANSPORT(tcp)                       \
  TRANSPORT(verbs)                     \
  TRANSPORT(ucx)                       \
  TRANSPORT(local)

namespace gradrail {

#define GRADRAIL_DECLARE(name) extern const TransportKind k_##name##_transport;
GRADRAIL_TRANSPORTS(GRADRAIL_DECLARE)
#undef GRADRAIL_DECLARE

std::span<const TransportKind> transport_kinds() {
#define GRADRAIL_ENTRY(name) k_##name##_transport,
  static const std::array kinds{GRADRAIL_TRANSPORTS(GRADRAIL_ENTRY)};
#undef GRADRAIL_ENTRY
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
