// How a message is cut over the sockets of one pipe. Pure arithmetic, the same on both sides.
//
// With one socket a message is one run of bytes. With K sockets it is cut into blocks of k_stripe_bytes; block i
// travels on socket i mod K. Socket 0 takes part in every message, the others only in those that have a block for them,
// so a small message costs one socket whatever K is. On each socket taking part a header comes first.
//
//   K = 2, 5 blocks:   socket 0:  header 0 2 4      socket 1:  header 1 3
#pragma once

#include <algorithm>
#include <cstddef>

namespace gradrail {

inline constexpr std::size_t k_stripe_bytes = 64 << 10;

struct Stripe {
  std::size_t sockets = 1;
  std::size_t index = 0;  // of this socket

  // Payload bytes of a message of `size` that travel on this socket.
  [[nodiscard]] std::size_t share(std::size_t size) const {
    if (sockets == 1) return size;
    const std::size_t round = k_stripe_bytes * sockets;
    const std::size_t rest = size % round;
    const std::size_t before = k_stripe_bytes * index;
    return size / round * k_stripe_bytes + (rest > before ? std::min(rest - before, k_stripe_bytes) : 0);
  }
  [[nodiscard]] bool takes_part(std::size_t size) const { return index == 0 || size > k_stripe_bytes * index; }
  // Where in the message byte `at` of this socket's share lies.
  [[nodiscard]] std::size_t position(std::size_t at) const {
    if (sockets == 1) return at;
    return (at / k_stripe_bytes * sockets + index) * k_stripe_bytes + at % k_stripe_bytes;
  }
  // Bytes from there to the end of the run, given the share's size.
  [[nodiscard]] std::size_t run(std::size_t at, std::size_t share_size) const {
    const std::size_t rest = share_size - at;
    return sockets == 1 ? rest : std::min(rest, k_stripe_bytes - at % k_stripe_bytes);
  }
};

}  // namespace gradrail
