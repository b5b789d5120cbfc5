// How the ranks of a job find each other before any transport is up, and the slow control channel they keep after it.
//
// join() looks at its surroundings: a rank started by gradrail's own launcher, by mpirun or srun (PMIx), or with
// torchrun's variables; or none of these, which is a job of one. Whatever the way in, the ranks end up in a star of TCP
// connections around rank 0, each proven with the job's secret, and all checked: as many as were promised, each number
// once, one build. Rank, host and reason are named when that fails.
//
// The channel is for control (addresses, decisions, results), never for timed data. All functions are collective: every
// rank calls them in the same order. A bootstrap belongs to one thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/result.h"
#include "transports/secret.h"

namespace gradrail {

struct Member {
  int rank = 0;
  std::string host;
  std::string listen_host;  // numeric address by which others on the network reach it
  long pid = 0;
};

class Bootstrap {
 public:
  virtual ~Bootstrap() = default;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int ranks() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] std::span<const Member> members() const { return members_; }
  [[nodiscard]] const Secret& secret() const { return secret_; }
  // "launcher", "pmix", "torchrun", "alone"
  [[nodiscard]] std::string_view origin() const { return origin_; }

  // Everyone's bytes, by rank, at everyone.
  [[nodiscard]] virtual Result<std::vector<Bytes>> all_gather(std::span<const std::byte> mine, Deadline deadline) = 0;
  // Rank 0's bytes at everyone.
  [[nodiscard]] virtual Result<Bytes> broadcast(std::span<const std::byte> from_rank_0, Deadline deadline) = 0;
  // Tells the launcher (or standard error, where there is none) why this rank gives up; the job's one sentence is made
  // from what all ranks say. Never fails, never waits.
  virtual void give_up(const Error& why) = 0;

  // Everyone waits for everyone.
  [[nodiscard]] Result<void> barrier(Deadline deadline);

 protected:
  int rank_ = 0;
  std::vector<Member> members_;
  Secret secret_;
  std::string origin_ = "alone";
};

struct JoinOptions {
  int expected_ranks = 0;     // what the user asked for with -n; 0 if nothing was said
  std::string_view build_id;  // must be equal on all ranks
  Seconds wait{30};           // for the slowest rank to arrive
};

// Joins the job this process belongs to. Errors name rank and host: timed_out (who is missing), refused (two ranks
// claim one number, mixed builds, a wrong secret), bad_usage (N jobs of one where one job of N was meant).
// Whoever should hear of an error has heard of it, as by give_up(), when this returns: the caller only ends (2 for
// bad_usage, else 1).
[[nodiscard]] Result<std::unique_ptr<Bootstrap>> join(const JoinOptions& options);

}  // namespace gradrail
