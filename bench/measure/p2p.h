// Point to point: every pair of ranks that was asked for, over every transport, measured alone while the others sleep.
// All ranks run it together with the same options; the listener is rank 0's alone. Transports take turns within a
// round, in random order; the pairs of a matrix are visited several times, each time connected anew.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/p2p_pair.h"
#include "bench/measure/placement.h"
#include "results/record.h"
#include "transports/bare.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct P2pOptions {
  std::vector<std::string> transports{"shm"};
  std::vector<std::optional<Operation>> operations{std::nullopt};  // of every transport; none: its pipe
  std::vector<P2pTest> tests{P2pTest::latency, P2pTest::bandwidth};
  std::vector<std::int64_t> sizes;  // empty: those that a test is usually asked for
  bool matrix = false;              // all pairs; otherwise `from` and `to`
  int from = 0;
  int to = 1;
  int depth = 0;  // messages outstanding on a lane; 0: as many as the transport allows, k_bare_depth operations
  int lanes = 1;  // pipes, or queue pairs
  int rounds = 9;
  std::int64_t iterations = 0;  // in a round: round trips, or messages; 0: as many as fit into time_per_point
  Seconds time_per_point{0.2};  // of all rounds of one transport, pair, test and size
  int warmup = 5;
  bool check = true;
  Seconds timeout{30};
  BufferKind buffers = BufferKind::registered;
  MemoryWish memory;    // other than the host's only where buffers are plain
  std::string verbs;    // Settings::verbs
  int connections = 1;  // tcp: sockets a pipe
  Bind bind = Bind::none;
};

inline constexpr int k_bare_depth = 128;

class P2pListener {
 public:
  virtual ~P2pListener() = default;
  // Connections are possible; measuring begins. What transports chose on rank 0, and why, a line each.
  [[nodiscard]] virtual Result<void> begin(std::span<const std::string> transports) = 0;
  // All transports and pairs of one test and size.
  [[nodiscard]] virtual Result<void> results(std::span<const P2pPoint> points) = 0;
  virtual void next(double fraction_done, const std::string& what) = 0;
};

// Errors: bad_usage for what a transport cannot, before anything is measured; the first failure of a pair, the
// bootstrap or the listener.
[[nodiscard]] Result<void> run_p2p(Bootstrap& bootstrap, const P2pOptions& options, P2pListener* listener);

// What a test is measured with where no sizes were named.
[[nodiscard]] std::vector<std::int64_t> usual_sizes(P2pTest test, bool matrix);

// Fills in z_score where there are at least k_least_for_outliers points of one transport and operation: how far a
// pair's median lies from the others', in robust standard deviations. `points`: of one test and size.
inline constexpr std::size_t k_least_for_outliers = 4;
void score_pairs(std::vector<P2pPoint>& points);

}  // namespace gradrail
