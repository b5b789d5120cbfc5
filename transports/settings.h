// What a transport must be told to be made; one plain struct for all, so that list.cc can make any of them by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "transports/base/result.h"
#include "transports/secret.h"
#include "transports/transport.h"

namespace gradrail {

class LocalHub;  // transports/local/: where ranks that live in one process meet

// Which plain memory peers may read themselves, through the kernel, where that permits it: reading 4 KiB pages costs it
// several times what copying them does.
enum class Attach : std::uint8_t { never, huge_pages, always };

struct Settings {
  int rank = 0;
  int ranks = 1;
  Secret secret;
  std::string listen_host = "127.0.0.1";  // numeric address to listen on and to publish
  int connections = 1;                    // tcp: sockets a pipe, 1..16; messages are striped over them
  std::size_t ring_bytes = 0;             // shm: bytes of slots a pipe and direction, 0: by the number of ranks
  Attach attach = Attach::huge_pages;     // shm
  std::size_t slot_bytes = 32 << 10;      // verbs: bytes of one slot
  std::size_t slots = 8;                  // verbs: slots a pipe and direction
  std::string verbs = {};                 // verbs: "device=mlx5_0,gid=3,..." (transports/verbs/options.h)
  std::shared_ptr<LocalHub> hub;          // local: shared by all ranks of the process
};

struct TransportKind {
  std::string_view name;
  std::string_view summary;     // one line for --help and doctor
  Result<void> (*available)();  // or why not, in words a person can act on
  Result<std::unique_ptr<Transport>> (*make)(const Settings& settings);
};

// All transports, in the order of preference within a host. Defined in list.cc, the one table that names them.
[[nodiscard]] std::span<const TransportKind> transport_kinds();
// Errors: bad_usage naming the known ones; unavailable with the reason.
[[nodiscard]] Result<std::unique_ptr<Transport>> make_transport(std::string_view name, const Settings& settings);

}  // namespace gradrail
