// In which ways each other library is run: the table behind --against. A peer is measured at its best, so every setting
// that may win somewhere is an entry of its own, and the best of them at each size is "the peer". Pure data.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/types.h"
#include "transports/base/result.h"

namespace gradrail {

// Where the ranks may run, as far as settings depend on it.
enum class Room : std::uint8_t {
  any,
  core_each,  // as many cores as ranks, or more
  crowded,    // fewer
};

struct PeerConfiguration {
  std::string_view library;
  std::string_view name;          // unique within library and transport
  std::string_view transport;     // of ours that it is compared with: it moves bytes the same way
  std::string_view environment;   // "NAME=value NAME=value"
  std::string_view arguments;     // of the library's launcher
  std::string_view variant = {};  // for the runner, where it has several ways
  Room room = Room::any;
  bool only_allreduce = false;  // the setting changes nothing else
  bool is_default = false;      // what one gets who sets nothing; measured for every collective
};

[[nodiscard]] std::span<const PeerConfiguration> peer_configurations();

// The libraries that the table knows, each once, in its order.
[[nodiscard]] std::vector<std::string_view> peer_libraries();

// "openmpi,mpich,gloo", or "all" for those that `built` says are there. Errors: bad_usage for a name that the table
// does not know; unavailable, naming what to install, for one without a runner.
[[nodiscard]] Result<std::vector<std::string>> parse_peers(std::string_view text, std::string_view runner_folder);

struct PeerQuery {
  std::string_view library;
  std::string_view transport;
  int ranks = 0;
  int cores = 0;
  std::span<const Collective> collectives;
};
[[nodiscard]] std::vector<const PeerConfiguration*> find_configurations(const PeerQuery& query);

// How the ranks of a configuration are started: one process that starts them all (an MPI's launcher), or one a rank.
struct PeerCommand {
  std::vector<std::string> argv;         // argv[0] is a path; a rank's own options follow for `one_a_rank`
  std::vector<std::string> environment;  // "NAME=value", on top of what is inherited
  bool one_a_rank = false;
  bool bind = false;  // one_a_rank: each to a core, where there are enough; launchers do it themselves
};
// `bind`: each rank to a core. `control`: path of the socket that the ranks connect to; `folder`: for addresses.
[[nodiscard]] PeerCommand command_of(const PeerConfiguration& configuration, int ranks, bool bind,
                                     const std::string& runner, const std::string& control, const std::string& folder);

// "DIR/gradrail-peer-openmpi"
[[nodiscard]] std::string runner_path(std::string_view runner_folder, std::string_view library);
// Where this program lies, or what GRADRAIL_PEER_RUNNERS says.
[[nodiscard]] std::string runner_folder();

}  // namespace gradrail
