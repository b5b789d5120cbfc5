// What two ranks say to each other over UCX: this page is the protocol.
//
// A pipe has a number at each end, which its receiver chose; a tag-matching message for it carries that number in its
// tag, and UCX keeps the order of messages of one tag from one peer. A message travels in fragments of
// k_fragment_bytes, the last one shorter, a message of nothing as one empty fragment. Each names the whole message's
// size in its tag, so that the receiver notices a difference, whatever has arrived of it:
//
//   63          44  43     42      41 40   39                 0
//   pipe (20 bits)  hello  first   0       bytes of the message
//
// A hello is an empty message with which both ends try the way before the pipe is open. On its side channel an end
// says, before it closes it, how many fragments it has sent in all (8 bytes): those may still be under way then.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "transports/base/bytes.h"

namespace gradrail::ucx {

inline constexpr std::size_t k_depth = 64;    // messages outstanding each way
inline constexpr std::size_t k_flights = 64;  // fragments given to UCX and not yet done, each way
// Large enough for UCX's rendezvous to be at its best, small enough for what is read in place to stay in cache.
inline constexpr std::size_t k_fragment_bytes = 512 << 10;
inline constexpr std::size_t k_grain = 64;

inline constexpr std::uint64_t k_most_pipes = 1 << 20;
inline constexpr std::uint64_t k_most_message_bytes = std::uint64_t(1) << 40;
inline constexpr std::uint64_t k_hello_bit = std::uint64_t(1) << 43;
inline constexpr std::uint64_t k_first_bit = std::uint64_t(1) << 42;
// What a receive looks at.
inline constexpr std::uint64_t k_match = ~(k_hello_bit - 1);

[[nodiscard]] constexpr std::uint64_t tag_of(std::uint64_t pipe, std::uint64_t message_bytes, bool first) {
  return pipe << 44 | (first ? k_first_bit : 0) | message_bytes;
}
[[nodiscard]] constexpr std::uint64_t hello_tag(std::uint64_t pipe) { return pipe << 44 | k_hello_bit; }
[[nodiscard]] constexpr std::uint64_t message_bytes_of(std::uint64_t tag) { return tag & (k_most_message_bytes - 1); }
[[nodiscard]] constexpr bool is_first(std::uint64_t tag) { return (tag & k_first_bit) != 0; }

// How one end introduces itself.
struct Introduction {
  static constexpr std::uint32_t k_version = 1;
  static constexpr std::size_t k_most_bytes = 32 << 10;

  std::uint32_t version = k_version;
  std::uint64_t fragment_bytes = k_fragment_bytes;
  std::uint64_t pipe = 0;
  bool shares_memory = false;
  std::string host;       // the same on two ranks that may share memory
  std::string resources;  // of UCX, for people
  std::string library;    // UCX's version
  Bytes address;          // of the worker

  [[nodiscard]] Bytes pack() const {
    ByteWriter out;
    out.put(version);
    out.put(fragment_bytes);
    out.put(pipe);
    out.put(static_cast<std::uint8_t>(shares_memory));
    out.put_string(host);
    out.put_string(resources.substr(0, 2048));
    out.put_string(library);
    out.put_block(address);
    return std::move(out).take();
  }
  // Only the version is sure to be right where the other build is not this one.
  [[nodiscard]] static std::optional<Introduction> parse(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    Introduction one;
    one.version = in.get<std::uint32_t>();
    if (!in.ok() || one.version != k_version) return std::nullopt;
    one.fragment_bytes = in.get<std::uint64_t>();
    one.pipe = in.get<std::uint64_t>();
    one.shares_memory = in.get<std::uint8_t>() != 0;
    one.host = in.get_string();
    one.resources = in.get_string();
    one.library = in.get_string();
    const auto address = in.get_block();
    one.address.assign(address.begin(), address.end());
    if (!in.ok() || in.left() > 0 || one.pipe >= k_most_pipes || one.address.empty()) return std::nullopt;
    return one;
  }
};

}  // namespace gradrail::ucx
