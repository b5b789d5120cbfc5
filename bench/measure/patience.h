// How long ranks wait for each other between operations, where each is busy on its own: the job's timeout (-T), and
// what an honest rank may need beyond it. One that is stopped is missed no later than that, and named. Rank 0, which
// probes, fits and decides for all, may take as long as it needs, and says several times a second that it is at it.
#pragma once

#include <functional>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/result.h"
#include "transports/bootstrap.h"

namespace gradrail {

// The timeout, a second, and what it takes the ranks of a host on the slowest of machines to go over `touched_bytes`,
// all together: filling buffers, comparing results.
[[nodiscard]] Seconds control_wait(Seconds timeout, double touched_bytes = 0);

// Rank 0 works, in a thread of its own, while the others are in hear(). Errors: those of the bootstrap, once it is
// done.
[[nodiscard]] Result<void> work_while_heard(Bootstrap& bootstrap, Seconds timeout, const std::function<void()>& work);
// What rank 0 broadcasts when it is done working; never empty.
[[nodiscard]] Result<Bytes> hear(Bootstrap& bootstrap, Seconds timeout);
// Both, collective: what `work` makes on rank 0, which is not empty, at everyone.
[[nodiscard]] Result<Bytes> broadcast_work(Bootstrap& bootstrap, Seconds timeout, const std::function<Bytes()>& work);

}  // namespace gradrail
