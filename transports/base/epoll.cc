#include "transports/base/epoll.h"

#include <cerrno>
#include <ctime>

namespace gradrail {

int wait_for_events(int epoll, std::span<epoll_event> events, Seconds at_most) {
  const auto room = static_cast<int>(events.size());
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(at_most).count();
  const timespec limit{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  const int count = ::epoll_pwait2(epoll, events.data(), room, &limit, nullptr);
  if (count >= 0 || errno != ENOSYS) return count;
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(at_most).count();
  return ::epoll_wait(epoll, events.data(), room, static_cast<int>(milliseconds));
}

}  // namespace gradrail
