#include "transports/verbs/shared_receives.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace gradrail::verbs {
namespace {

constexpr std::size_t k_queue_receives = 4096;  // or as many as the device can, if that is fewer

}  // namespace

Result<std::unique_ptr<SharedReceives>> SharedReceives::make(const Device& device) {
  if (device.attributes().max_srq <= 0 || device.attributes().max_srq_wr <= 0)
    return fail(Code::unsupported, fmt::format("{} has no shared receive queues; leave out the verbs setting srq, or "
                                               "choose another device",
                                               device.name()));
  return std::unique_ptr<SharedReceives>(new SharedReceives(device));
}

Result<SharedReceives::Queue*> SharedReceives::queue_with(std::size_t count) {
  for (const auto& queue : queues_)
    if (queue->capacity - queue->promised >= count) return queue.get();
  auto queue = std::make_unique<Queue>(device_.calls());
  queue->capacity = std::min(k_queue_receives, static_cast<std::size_t>(device_.attributes().max_srq_wr));
  ibv_srq_init_attr attributes{};
  attributes.attr.max_wr = static_cast<std::uint32_t>(queue->capacity);
  attributes.attr.max_sge = 1;
  queue->srq = device_.calls().create_srq(device_.domain(), attributes);
  const int error = errno;
  if (queue->srq == nullptr || queue->capacity < count)
    return fail(Code::exhausted,
                fmt::format("{} gave no shared receive queue of {} receives ({}); it has {} of at most {} each: use "
                            "fewer lanes or pairs, or leave out the verbs setting srq",
                            device_.where(), std::max(count, queue->capacity),
                            queue->srq == nullptr ? std::strerror(error) : "too small", device_.attributes().max_srq,
                            device_.attributes().max_srq_wr),
                Error::k_no_peer, error);
  queues_.push_back(std::move(queue));
  return queues_.back().get();
}

Result<SharedReceives::Share> SharedReceives::take(std::size_t count) {
  GRADRAIL_ASSIGN(Queue* const queue, queue_with(count));
  ibv_recv_wr request{};
  for (; queue->posted < queue->promised + count; ++queue->posted)
    if (const int error = device_.calls().post_srq_recv(queue->srq, request); error != 0)
      return fail_errno(fmt::format("posting shared receives on {}", device_.where()), error);
  queue->promised += count;
  return Share(*queue, count);
}

}  // namespace gradrail::verbs
