// What plain sockets move between ranks, without a transport: the measure that a transport over sockets is held
// against. Ranks are paired; all pairs exchange the same number of bytes at once, both ways, each rank in one thread
// that sends and receives in turn: over one socket both ways, and over one for each way, whichever is faster.
//
// A sample is timed from when the first rank of a host begins to when its last one is done, as the pairs know
// nothing of each other: where ranks share cores, one pair could be done before another has left the barrier, and each
// would seem to have had the cores for itself. The ranks of a collective wait for each other.
//
// Owned and used by one rank's thread, collective over the job; the sockets are proven with the job's secret.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/exec/communicator.h"
#include "transports/base/fd.h"
#include "transports/bootstrap.h"

namespace gradrail {

class BareSockets {
 public:
  // How ranks are paired, and what an allreduce of S bytes has to send over sockets at the least.
  struct Pairing {
    bool between_hosts = false;  // only bytes between hosts go over sockets: 2(h-1)/h of S a host of h
    int ranks_per_host = 1;
    int hosts = 1;
    [[nodiscard]] int partner_of(int rank, int ranks) const;
    // That each rank sends, for an allreduce of `bytes`.
    [[nodiscard]] std::uint64_t share(std::uint64_t bytes, int ranks) const;
  };
  // Whether the group's allreduce goes over tcp, and its ranks fall into pairs.
  [[nodiscard]] static std::optional<Pairing> pairing_of(const Communicator& group);

  [[nodiscard]] static Result<BareSockets> make(Bootstrap& bootstrap, const Pairing& pairing, Deadline deadline);

  // What is exchanged: `bytes` out of `from`, again and again if that is shorter, and as many into `to`.
  struct Load {
    std::span<const std::byte> from;
    std::span<std::byte> to;
    std::uint64_t bytes = 0;
  };
  struct Rules {
    Seconds budget;           // as many samples as fit, at least four of each kind
    Seconds shortest_sample;  // exchanges follow each other until a sample takes so long
    Seconds timeout;          // of an exchange
  };
  // Adds samples.
  [[nodiscard]] Result<void> measure(Bootstrap& bootstrap, Communicator& group, const Load& load, const Rules& rules);
  // The median of the samples so far, of the faster kind, for the slowest host; on all ranks. Forgets the samples.
  [[nodiscard]] Result<double> take_us(Bootstrap& bootstrap, Deadline deadline);

  // When a rank began and ended some exchanges, by its host's clock.
  struct Sample {
    std::int64_t begin_ns = 0;
    std::int64_t end_ns = 0;
    std::int64_t exchanges = 1;
  };
  // The time of an exchange of each sample, for the slowest host, as far as all ranks have samples. A host's name a
  // rank.
  [[nodiscard]] static std::vector<double> times_us(std::span<const std::vector<Sample>> by_rank,
                                                    std::span<const std::string> hosts);

 private:
  [[nodiscard]] Result<void> exchange(bool one_way_each, const Load& load, Deadline deadline);

  int partner_ = -1;
  std::string who_;       // the partner, for messages
  bool upwards_ = false;  // this rank is the lower of the two
  bool crowded_ = false;
  std::array<Fd, 2> sockets_;
  std::array<std::vector<Sample>, 2> samples_;  // by kind
};

}  // namespace gradrail
