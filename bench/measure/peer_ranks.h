// Ranks of another library, from the driver's side: started with one configuration, told over a socket of this host
// what to do, ended with the object. Belongs to one thread of one process, gradrail's rank 0.
//
// However this process ends, they end: their sockets close. A folder that it left because it was killed goes when the
// next ranks are started. What they print is kept for the one sentence that says why they failed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/measure/contender.h"
#include "bench/peers/configurations.h"

namespace gradrail {

class PeerRanks : public Contender {
 public:
  struct Start {
    std::string library;
    std::string name;
    PeerCommand command;     // its words hold {control} and {folder} where these belong
    std::vector<int> cores;  // that the ranks may use, together
    std::vector<int> cpus;   // by rank, if each is to be bound to one
    int ranks = 0;
    // Several hosts, for ranks that no launcher starts: `agent HOST COMMAND...` starts them, blocks of equal size in
    // this order, and they find each other through `interface`.
    struct Hosts {
      std::vector<std::string> names;
      std::string agent;
      std::string interface;
    };
    Hosts hosts = {};
  };
  static constexpr std::string_view k_control = "{control}";
  static constexpr std::string_view k_folder = "{folder}";

  // Returns when all ranks have their library open. Errors: unavailable (it ended, with its last words), timed_out.
  [[nodiscard]] static Result<std::unique_ptr<PeerRanks>> start(const Start& start, Deadline deadline);

  [[nodiscard]] virtual const std::string& version() const = 0;
};

}  // namespace gradrail
