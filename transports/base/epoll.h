// epoll(7) as transports use it. The set and the descriptors in it stay the caller's.
#pragma once

#include <sys/epoll.h>

#include <span>

#include "transports/base/clock.h"

namespace gradrail {

// Waits for events at most so long, to the nanosecond where the kernel can (Linux 5.11), else to the millisecond above.
// How many came; below 0 with errno as epoll_wait.
[[nodiscard]] int wait_for_events(int epoll, std::span<epoll_event> events, Seconds at_most);

}  // namespace gradrail
