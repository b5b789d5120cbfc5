// What the driver of a comparison and the ranks of another library say to each other: one frame (transports/socket.h) a
// message, the driver asks, every rank answers once. Both sides are of one build, on one host; messages are parsed with
// bounds all the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure/buffers.h"
#include "collectives/exec/communicator.h"
#include "transports/base/bytes.h"
#include "transports/base/result.h"

namespace gradrail {

inline constexpr std::size_t k_longest_peer_message = 16 << 20;

// A rank's first words, once its library is up.
struct PeerHello {
  int rank = 0;
  int ranks = 0;
  std::string version;
};

enum class PeerOrder : std::uint8_t {
  prepare,  // buffers, a check on fresh data, warm-up, an estimate
  measure,  // samples of what was prepared
  release,  // gives the buffers back
  end,      // the library is closed, and the process ends
};

struct PeerRequest {
  PeerOrder order = PeerOrder::end;
  // prepare
  Call call;  // buffers and algorithm do not travel
  Cache cache = Cache::hot;
  int warmup = 0;
  bool check = true;
  std::uint64_t seed = 0;  // of the data
  // measure
  int samples = 0;
  int batch = 1;
};

struct PeerReply {
  std::optional<Error> error;  // nothing else holds then; unsupported: the rank goes on
  std::uint64_t wrong = 0;     // prepare: elements on this rank
  double operation_us = 0;     // prepare: an estimate
  double barrier_us = 0;
  std::vector<double> samples_us;  // measure: per operation, this rank's
};

[[nodiscard]] Bytes encode(const PeerHello& hello);
[[nodiscard]] Bytes encode(const PeerRequest& request);
[[nodiscard]] Bytes encode(const PeerReply& reply);
// Errors: malformed.
[[nodiscard]] Result<PeerHello> decode_peer_hello(std::span<const std::byte> bytes);
[[nodiscard]] Result<PeerRequest> decode_peer_request(std::span<const std::byte> bytes);
[[nodiscard]] Result<PeerReply> decode_peer_reply(std::span<const std::byte> bytes);

}  // namespace gradrail
