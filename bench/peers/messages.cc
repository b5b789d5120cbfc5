#include "bench/peers/messages.h"

#include <algorithm>
#include <cstring>

namespace gradrail {

namespace {

// A byte that names one of `all`, or nothing.
template <class T, class Range>
bool take(ByteReader& reader, const Range& all, T& value) {
  value = static_cast<T>(reader.get<std::uint8_t>());
  return std::find(std::begin(all), std::end(all), value) != std::end(all);
}

constexpr Cache k_caches[] = {Cache::hot, Cache::rotate, Cache::flush};
constexpr PeerOrder k_orders[] = {PeerOrder::prepare, PeerOrder::measure, PeerOrder::release, PeerOrder::end};

}  // namespace

Bytes encode(const PeerHello& hello) {
  ByteWriter writer;
  writer.put(static_cast<std::int32_t>(hello.rank));
  writer.put(static_cast<std::int32_t>(hello.ranks));
  writer.put_string(hello.version);
  return std::move(writer).take();
}

Result<PeerHello> decode_peer_hello(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  PeerHello hello;
  hello.rank = reader.get<std::int32_t>();
  hello.ranks = reader.get<std::int32_t>();
  hello.version = reader.get_string();
  if (!reader.ok() || reader.left() > 0) return fail(Code::malformed, "a runner's greeting is damaged");
  return hello;
}

Bytes encode(const PeerRequest& request) {
  ByteWriter writer;
  writer.put(static_cast<std::uint8_t>(request.order));
  writer.put(static_cast<std::uint8_t>(request.call.collective));
  writer.put(request.call.count);
  writer.put(static_cast<std::uint8_t>(request.call.type));
  writer.put(static_cast<std::uint8_t>(request.call.op));
  writer.put(static_cast<std::int32_t>(request.call.root));
  writer.put(static_cast<std::uint8_t>(request.call.in_place));
  writer.put(static_cast<std::uint8_t>(request.cache));
  writer.put(static_cast<std::int32_t>(request.warmup));
  writer.put(static_cast<std::uint8_t>(request.check));
  writer.put(request.seed);
  writer.put(static_cast<std::int32_t>(request.samples));
  writer.put(static_cast<std::int32_t>(request.batch));
  return std::move(writer).take();
}

Result<PeerRequest> decode_peer_request(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  PeerRequest request;
  bool known = take(reader, k_orders, request.order);
  known &= take(reader, k_collectives, request.call.collective);
  request.call.count = reader.get<std::uint64_t>();
  known &= take(reader, k_types, request.call.type);
  known &= take(reader, k_reduce_ops, request.call.op);
  request.call.root = reader.get<std::int32_t>();
  request.call.in_place = reader.get<std::uint8_t>() != 0;
  known &= take(reader, k_caches, request.cache);
  request.warmup = reader.get<std::int32_t>();
  request.check = reader.get<std::uint8_t>() != 0;
  request.seed = reader.get<std::uint64_t>();
  request.samples = reader.get<std::int32_t>();
  request.batch = reader.get<std::int32_t>();
  if (!reader.ok() || reader.left() > 0 || !known) return fail(Code::malformed, "the driver's request is damaged");
  return request;
}

Bytes encode(const PeerReply& reply) {
  ByteWriter writer;
  writer.put(static_cast<std::uint8_t>(reply.error.has_value()));
  if (reply.error) {
    writer.put(static_cast<std::uint8_t>(reply.error->code));
    writer.put_string(reply.error->message);
  }
  writer.put(reply.wrong);
  writer.put(reply.operation_us);
  writer.put(reply.barrier_us);
  writer.put_block(std::as_bytes(std::span(reply.samples_us)));
  return std::move(writer).take();
}

Result<PeerReply> decode_peer_reply(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  PeerReply reply;
  bool known = true;
  if (reader.get<std::uint8_t>() != 0) {
    Error error;
    const auto code = reader.get<std::uint8_t>();
    known = code <= static_cast<std::uint8_t>(Code::poisoned);
    error.code = static_cast<Code>(code);
    error.message = reader.get_string();
    reply.error = std::move(error);
  }
  reply.wrong = reader.get<std::uint64_t>();
  reply.operation_us = reader.get<double>();
  reply.barrier_us = reader.get<double>();
  const auto samples = reader.get_block();
  if (!reader.ok() || reader.left() > 0 || !known || samples.size() % sizeof(double) != 0)
    return fail(Code::malformed, "a runner's answer is damaged");
  reply.samples_us.resize(samples.size() / sizeof(double));
  if (!samples.empty()) std::memcpy(reply.samples_us.data(), samples.data(), samples.size());
  return reply;
}

}  // namespace gradrail
