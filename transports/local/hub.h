// Where the ranks of one process meet: the `local` transport, for tests and for ranks that are threads.
//
// All ranks share one LocalHub through Settings::hub. Every pipe lies in the hub and is guarded by the hub's one mutex,
// so ranks may be threads; connect() never waits, so one thread may as well make all ranks and drive them in turn, and
// then every run is the same run. Sends only refer to the sender's memory; the receiver copies it in its own
// progress(), or views it by readable(). A send completes when its bytes have been received. A message produced in
// place goes straight into the posted destination; where none is posted, or the receive is in place, through a buffer
// of the pipe (k_staging_bytes).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "transports/base/bytes.h"
#include "transports/transport.h"

namespace gradrail {

// One direction of a pipe. Message numbers count from 0; message n lies at n % k_depth. All fields are guarded by
// LocalHub::mutex, but the bytes handed out by readable() and writable() belong to whoever they were handed to.
struct LocalDirection {
  static constexpr std::size_t k_depth = 64;
  static constexpr std::size_t k_staging_bytes = 64 << 10;

  struct Send {
    const std::byte* data = nullptr;  // none: produced in place
    std::size_t size = 0;
    bool in_place = false;
  };
  struct Recv {
    std::byte* data = nullptr;
    std::size_t size = 0;
    bool in_place = false;
  };

  std::array<Send, k_depth> sends;
  std::array<Recv, k_depth> recvs;
  std::uint64_t sends_posted = 0;
  std::uint64_t recvs_posted = 0;
  std::uint64_t done = 0;  // messages received, and so completed on both sides

  // The oldest incomplete message:
  std::size_t committed = 0;     // bytes written by the sender, if produced in place
  std::size_t received = 0;      // bytes copied or consumed by the receiver
  std::size_t staged_begin = 0;  // committed bytes in `staging` that were not received yet
  std::size_t staged_end = 0;
  Bytes staging;  // made at the first message that needs it

  Traffic traffic{};
};

struct LocalPipe {
  std::array<LocalDirection, 2> from;  // from[0]: sent by the lower rank
  std::array<bool, 2> attached{};      // [0]: the lower rank's endpoint was made
  std::array<bool, 2> closed{};        // and was destroyed, or failed
};

class LocalHub {
 public:
  // The pipe of `rank` to `peer` on `lane`, shared with the other side's endpoint.
  [[nodiscard]] std::shared_ptr<LocalPipe> attach(int rank, int peer, int lane);

  std::mutex mutex;

 private:
  std::map<std::tuple<int, int, int>, std::shared_ptr<LocalPipe>> half_open_;  // waiting for the other side
};

}  // namespace gradrail
