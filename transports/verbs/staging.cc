#include "transports/verbs/staging.h"

#include <algorithm>

#include "transports/base/check.h"

namespace gradrail::verbs {

Result<std::unique_ptr<Outgoing>> Outgoing::make(Gpu& gpu, const std::vector<std::unique_ptr<Device>>& rails,
                                                 std::size_t chunk_bytes) {
  std::unique_ptr<Outgoing> self(new Outgoing(gpu, chunk_bytes));
  const std::size_t bytes = k_chunks * chunk_bytes;
  GRADRAIL_ASSIGN(self->pages_, Pages::map(bytes));
  for (const auto& rail : rails) {
    GRADRAIL_ASSIGN(ibv_mr* const memory, rail->register_memory(self->pages_.data(), bytes));
    self->memory_.push_back(Registered(memory, Deregister{&rail->calls()}));
  }
  self->pin_ = std::make_unique<Gpu::Pin>(gpu, self->pages_.data(), bytes);
  GRADRAIL_ASSIGN(self->queue_, make_copy_queue(gpu.driver(), gpu.ordinal()));
  return self;
}

Result<std::size_t> Outgoing::fill(std::span<const std::byte> source) {
  if (filled_ - free_ == k_chunks) return 0;
  const std::size_t now = std::min(source.size(), chunk_bytes_);
  if (const int error = queue_->start(at(filled_), source.data(), now); error != 0)
    return copy_failed(gpu_.driver(), gpu_.ordinal(), error);
  chunks_[filled_++ % k_chunks] = {now, 0, nullptr, 0};
  return now;
}

Result<bool> Outgoing::look() {
  const auto before = copied_ + free_;
  if (copied_ < filled_)
    if (const int error = queue_->poll(copied_); error != 0) return copy_failed(gpu_.driver(), gpu_.ordinal(), error);
  const auto is_free = [](const Chunk& chunk) {
    return chunk.pair == nullptr || chunk.last_write <= chunk.pair->acked();
  };
  while (free_ < sent_ && is_free(chunks_[free_ % k_chunks])) ++free_;
  return copied_ + free_ != before;
}

std::span<const std::byte> Outgoing::ready() const {
  if (sent_ == copied_) return {};
  const Chunk& chunk = chunks_[sent_ % k_chunks];
  return {at(sent_) + chunk.sent, chunk.bytes - chunk.sent};
}

void Outgoing::sent(std::size_t bytes, const QueuePair* pair) {
  Chunk& chunk = chunks_[sent_ % k_chunks];
  GRADRAIL_CHECK(sent_ < copied_ && bytes <= chunk.bytes - chunk.sent);
  chunk.sent += bytes;
  chunk.pair = pair;
  chunk.last_write = pair == nullptr ? 0 : pair->posted();
  if (chunk.sent == chunk.bytes) ++sent_;
}

Result<std::unique_ptr<Incoming>> Incoming::make(Gpu& gpu, std::span<std::byte> landing) {
  std::unique_ptr<Incoming> self(new Incoming(gpu, landing));
  GRADRAIL_ASSIGN(self->queue_, make_copy_queue(gpu.driver(), gpu.ordinal()));
  return self;
}

Result<void> Incoming::start(std::byte* to, std::span<const std::byte> from, std::size_t parts) {
  if (const int error = queue_->start(to, from.data(), from.size()); error != 0)
    return copy_failed(gpu_.driver(), gpu_.ordinal(), error);
  parts_[started_++ % parts_.size()] = parts;
  return {};
}

Result<std::size_t> Incoming::ended() {
  if (ended_ == started_) return 0;
  std::uint64_t ended = 0;
  if (const int error = queue_->poll(ended); error != 0) return copy_failed(gpu_.driver(), gpu_.ordinal(), error);
  return ended == ended_ ? 0 : parts_[ended_++ % parts_.size()];
}

}  // namespace gradrail::verbs
