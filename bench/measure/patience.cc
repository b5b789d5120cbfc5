#include "bench/measure/patience.h"

#include <future>

namespace gradrail {

namespace {

constexpr Seconds k_moment{1};
constexpr double k_slowest_bytes_per_second = 2e8;
constexpr Seconds k_between_words{0.2};

}  // namespace

Seconds control_wait(Seconds timeout, double touched_bytes) {
  return timeout + k_moment + Seconds(touched_bytes / k_slowest_bytes_per_second);
}

Result<void> work_while_heard(Bootstrap& bootstrap, Seconds timeout, const std::function<void()>& work) {
  auto done = std::async(std::launch::async, work);
  Result<void> told;
  while (done.wait_for(k_between_words) != std::future_status::ready)
    if (told) told = bootstrap.broadcast({}, Deadline::after(control_wait(timeout))).map([](const Bytes&) {});
  done.get();
  return told;
}

Result<Bytes> hear(Bootstrap& bootstrap, Seconds timeout) {
  while (true) {
    GRADRAIL_ASSIGN(Bytes bytes, bootstrap.broadcast({}, Deadline::after(control_wait(timeout))));
    if (!bytes.empty()) return bytes;
  }
}

Result<Bytes> broadcast_work(Bootstrap& bootstrap, Seconds timeout, const std::function<Bytes()>& work) {
  if (bootstrap.rank() != 0) return hear(bootstrap, timeout);
  Bytes bytes;
  GRADRAIL_TRY(work_while_heard(bootstrap, timeout, [&] { bytes = work(); }));
  return bootstrap.broadcast(bytes, Deadline::after(control_wait(timeout)));
}

}  // namespace gradrail
