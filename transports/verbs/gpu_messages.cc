// The parts of VerbsEndpoint that carry memory of GPUs. What the device reaches goes as host memory does, but never in
// line, and short messages come to it by copies out of the ring. What it does not reach is copied to chunks and sent
// from there, and comes through the ring whole, whatever its size. A staged message that is placed goes over one queue
// pair after the other, as chunks are filled in order.
#include <fmt/format.h>

#include <algorithm>

#include "transports/verbs/endpoint.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
VerbsEndpoint::OfGpu& VerbsEndpoint::of_gpu(Gpu& gpu) {
  const auto found = std::find_if(gpus_.begin(), gpus_.end(), [&](const OfGpu& one) { return one.gpu == &gpu; });
  return found != gpus_.end() ? *found : gpus_.emplace_back(OfGpu{&gpu, nullptr, nullptr});
}

Result<Outgoing*> VerbsEndpoint::outgoing(Gpu& gpu) {
  OfGpu& one = of_gpu(gpu);
  if (one.out == nullptr) {
    GRADRAIL_ASSIGN(one.out, Outgoing::make(gpu, owner_.rails(), std::size_t(owner_.options().chunk_kib) << 10));
  }
  return one.out.get();
}

Result<Incoming*> VerbsEndpoint::incoming(Gpu& gpu) {
  OfGpu& one = of_gpu(gpu);
  if (one.in == nullptr) {
    GRADRAIL_ASSIGN(one.in, Incoming::make(gpu, {landing_.data() + Landing::ring_at(), ring_bytes_}));
  }
  return one.in.get();
}

bool VerbsEndpoint::copying() const {
  return std::any_of(gpus_.begin(), gpus_.end(), [](const OfGpu& one) {
    return (one.in != nullptr && one.in->busy()) || (one.out != nullptr && one.out->busy());
  });
}

bool VerbsEndpoint::copy_broke(const Error& error) {
  break_off(error.code, fmt::format("{}: {}", who_, error.message));
  return false;
}

// Fills chunks with the next messages' bytes, as far as there are chunks, while earlier ones are on the wire.
bool VerbsEndpoint::stage() {
  bool moved = false;
  for (const OfGpu& one : gpus_) {
    if (one.out == nullptr) continue;
    const auto looked = one.out->look();
    if (!looked) return copy_broke(looked.error());
    moved |= *looked;
  }
  if (staged_ < sends_issued_) {
    staged_ = sends_issued_;
    staged_bytes_ = 0;
  }
  while (staged_ < sends_posted_) {
    const Send& send = sends_[staged_ % k_depth];
    if (send.staging != nullptr && staged_bytes_ < send.size) {
      // A chunk goes over one queue pair.
      const std::size_t stripes = stripes_of(send.size, pairs_.size());
      const std::size_t end = stripe_at(send.size, stripes, stripe_with(send.size, stripes, staged_bytes_) + 1);
      const auto filled = send.staging->fill({send.data + staged_bytes_, end - staged_bytes_});
      if (!filled) return copy_broke(filled.error());
      if (*filled == 0) return moved;
      moved = true;
      staged_bytes_ += *filled;
      if (staged_bytes_ < send.size) continue;
    }
    ++staged_;
    staged_bytes_ = 0;
  }
  return moved;
}

// As place(), from chunks: as far as they are filled.
bool VerbsEndpoint::place_staged(Send& send, const Advert& advert) {
  const std::size_t stripes = stripes_of(send.size, pairs_.size());
  while (issued_bytes_ < send.size) {
    const auto ready = send.staging->ready();
    const std::size_t index = stripe_with(send.size, stripes, issued_bytes_);
    QueuePair& pair = *pairs_[index];
    if (ready.empty() || pair.room() == 0) return false;
    const std::size_t end = stripe_at(send.size, stripes, index + 1);
    const std::size_t now = std::min({ready.size(), end - issued_bytes_, pair.largest_write()});
    const bool last = issued_bytes_ + now == end;
    QueuePair::Write write{.from = ready.data(),
                           .bytes = now,
                           .local_key = send.staging->key(pair.rail()),
                           .to = advert.address + issued_bytes_,
                           .remote_key = advert.keys[other_.pairs[index].rail],
                           .complete = last || now == ready.size()};
    if (last) write.immediate = immediate(Note::placed, sends_issued_);
    if (!post(pair, write)) return false;
    send.staging->sent(now, &pair);
    issued_bytes_ += now;
    if (last) stripes_[index].last_write[sends_issued_ % k_depth] = pair.posted();
  }
  issued_bytes_ = 0;
  placed(send, stripes, Path::one_copy);
  return true;
}

// Bytes of the ring to where only a GPU's copies reach: parts that adjoin go in one copy, the next are copied while
// more arrive, and all are given back in order. True if that moved anything.
bool VerbsEndpoint::copy_in(const Recv& recv) {
  const auto ended = recv.copies->ended();
  if (!ended) return copy_broke(ended.error());
  if (copying_.parts == 0) copying_ = {0, 0, ring_read_, false};
  for (std::size_t i = 0; i < *ended; ++i) {
    const std::size_t bytes = arrived_[arrived_head_ % k_parts].value;
    --copying_.parts;
    copying_.bytes -= bytes;
    take(bytes);
  }
  if (*ended > 0) return true;
  if (copying_.whole || !recv.copies->room()) return false;

  const std::byte* from = nullptr;
  std::size_t parts = 0, bytes = 0;
  while (!copying_.whole && arrived_head_ + copying_.parts + parts != arrived_tail_) {
    const Arrived part = arrived_[(arrived_head_ + copying_.parts + parts) % k_parts];
    if (!fits(part, copying_.bytes + bytes)) return false;
    const auto extent = next_extent(copying_.ring, part.value, ring_bytes_);
    const std::byte* const at = landing_.data() + Landing::ring_at() + extent.offset;
    if (parts > 0 && at != from + bytes) break;
    if (parts == 0) from = at;
    ++parts;
    bytes += part.value;
    copying_.ring += extent.taken;
    copying_.whole = part.note == Note::last_part;
  }
  if (parts == 0) return false;
  const auto started = recv.copies->start(recv.data + received_ + copying_.bytes, {from, bytes}, parts);
  if (!started) return copy_broke(started.error());
  copying_.parts += parts;
  copying_.bytes += bytes;
  return true;
}

// What the device wrote is seen by the GPU before anybody is told of it.
bool VerbsEndpoint::flush(Gpu& gpu) {
  const int error = gpu.flush();
  if (error != 0)
    break_off(Code::system, fmt::format("{}: flushing what it wrote to GPU {} failed: {}", who_, gpu.ordinal(),
                                        gpu.driver().words(error)));
  return error == 0;
}

}  // namespace gradrail::verbs
