// Measures the cases of one block against each other: the same collective, size, type and buffers, by several
// algorithms.
//
// Every case is first checked on fresh random data, outside the timed region; a wrong one is not timed. Where data is
// encoded, all cases of the block work on data as gradients are (gradient.h). The rest are
// warmed up and then measured in turn, in a new random order each round, so that a change of the machine hits all
// alike.
// A sample is the time from a barrier to the end of `batch` operations, per operation, at the slowest rank. Operations
// are batched only where no rank can end one before all have begun it; elsewhere, and with flushed caches, a batch is
// one.
//
// Contenders, other libraries' ranks, are cases like ours: checked, warmed up, and measured in turn by the same rules.
// While one has its turn our ranks sleep, and the other way round. One that takes more than k_hopeless times as long as
// the best contender in the first round keeps the samples of that round and gets no more: it is beaten, and waiting for
// it is dear. All hold their memory at once; where that would be more than the host has free, the slowest of those that
// were tried give theirs back and are left out, which their outcome says.
//
// Collective: all ranks call it with the same arguments. All results are complete on rank 0; other ranks may discard
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure/buffers.h"
#include "bench/measure/coding_figures.h"
#include "bench/measure/contender.h"
#include "collectives/exec/communicator.h"
#include "transports/bootstrap.h"

namespace gradrail {

// What the host has free for new processes (capacity.h).
[[nodiscard]] std::uint64_t available_memory();

// What a case gets beside its time. At the least it takes, with the check, so many operations: 1 + warm-up + estimates
// + samples, and as many again as samples where it is refreshed.
struct Pace {
  int most_warmup = 1'000'000;
  int estimates = 5;       // that tell how long an operation takes; 0: the last one of the warm-up does
  int fewest_samples = 8;  // where so many do not fit into time_per_point
  bool refresh = true;     // one operation before the samples of a turn brings code and data back into the caches
};
inline constexpr Pace k_thorough{};
// Where an operation takes milliseconds, and many must be measured: caches tell little, and estimates much.
inline constexpr Pace k_brisk{2, 1, 6, false};
inline constexpr Pace k_briefest{1, 0, 3, false};

struct MeasureRules {
  int samples = 0;  // a case; 0: as many as fit into time_per_point
  Seconds time_per_point{0.2};
  Seconds shortest_sample{0};  // operations are batched, where they may be, until they take so long
  int warmup = 5;              // operations
  bool check = true;
  // The way in which ranks that share cores are dealt out to them when the block begins: which of them share one
  // favours one algorithm or another by as much as a third, for seconds, and is not to decide, so blocks that count
  // together take consecutive ways. Nothing: they stay where the system has them.
  std::optional<std::uint64_t> deal_out_ranks{};
  Pace pace{};
  // Of the whole block; 0: no limit. What has not begun to be checked after 0.4 of it is left out, the dearest take
  // fewer samples, and none once it is over: it is passed by one case's preparation or turn at most.
  // Without contenders.
  Seconds most_time{0};
  Seconds timeout{30};     // for one operation
  std::uint64_t seed = 1;  // of data and order
  // Bytes available to new contenders, asked on rank 0; 0 if unknown.
  std::function<std::uint64_t()> free_memory = available_memory;
};

struct Outcome {
  [[nodiscard]] static Outcome without_time();

  // The algorithm is not defined for this case, there is no such algorithm, or something was missing.
  std::optional<Error> refused;
  bool no_time = false;  // refused, as most_time was over
  Ran ran;
  std::string path;         // by which most bytes went: "zero-copy"; "-" where nothing was sent
  std::uint64_t wrong = 0;  // elements, over all ranks
  std::string why_wrong;    // where it is not about elements
  int batch = 1;
  std::vector<double> samples_us;  // per operation, slowest rank
  std::optional<CodingFigures> coding;
};

inline constexpr double k_hopeless = 2;

// Contenders of a block: as many on every rank, null on all but rank 0.
using Contenders = std::vector<Contender*>;

// One of our cases, and the memory it works on.
struct BlockCase {
  Call call;
  Buffers* buffers = nullptr;
};

// `cases` differ in algorithm, lanes, pieces, codec and buffers. Outcomes come in their order, then those of the
// contenders, who are given the first case's call. Errors: those of the communicator and the bootstrap; nothing can be
// measured after one.
[[nodiscard]] Result<std::vector<Outcome>> measure_block(Bootstrap& bootstrap, Communicator& communicator,
                                                         const std::vector<BlockCase>& cases, const MeasureRules& rules,
                                                         const Contenders& contenders = {});
// All on the same buffers, without contenders.
[[nodiscard]] Result<std::vector<Outcome>> measure_block(Bootstrap& bootstrap, Communicator& communicator,
                                                         Buffers& buffers, const std::vector<Call>& cases,
                                                         const MeasureRules& rules);

}  // namespace gradrail
