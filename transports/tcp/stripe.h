// Which sockets of a pipe carry a message, and how it is cut over them. Pure arithmetic, the same on both sides.
//
// A pipe of K connections has 2K sockets. Messages of up to k_one_way_bytes (k_stripe_bytes if K > 1) travel on socket
// 0, whichever way they go: there the acknowledgement of one rides on the next one back. Longer ones travel on the K
// sockets of their direction (even ones from the lower rank to the higher, odd ones back): a socket is one lock, and
// copying out of it would wait for copying into it. They are cut into blocks of k_stripe_bytes; block i travels on the
// socket of place i mod K. On each socket that takes part a header comes first.
//
//   K = 2, 5 blocks, upwards:  socket 0:  header 0 2 4      socket 2:  header 1 3
#pragma once

#include <algorithm>
#include <cstddef>

namespace gradrail {

inline constexpr std::size_t k_stripe_bytes = 64 << 10;
inline constexpr std::size_t k_one_way_bytes = 256 << 10;

// One socket's part in the messages of one direction.
struct Stripe {
  std::size_t sockets = 1;  // that carry a long message of this direction: K
  std::size_t place = 0;    // of this one among them
  bool carries_short = true;
  bool carries_long = true;

  // `index`: of the socket in its pipe, 0..2K-1.
  [[nodiscard]] static Stripe of(std::size_t connections, std::size_t index, bool upwards) {
    return {connections, index / 2, index == 0, (index % 2 == 0) == upwards};
  }
  // Of messages that travel on socket 0 alone, whichever way they go.
  [[nodiscard]] std::size_t short_bytes() const { return sockets == 1 ? k_one_way_bytes : k_stripe_bytes; }
  // Payload bytes of a message of `size` that travel on this socket.
  [[nodiscard]] std::size_t share(std::size_t size) const {
    if (size <= short_bytes()) return carries_short ? size : 0;
    if (!carries_long) return 0;
    if (sockets == 1) return size;
    const std::size_t round = k_stripe_bytes * sockets;
    const std::size_t rest = size % round;
    const std::size_t before = k_stripe_bytes * place;
    return size / round * k_stripe_bytes + (rest > before ? std::min(rest - before, k_stripe_bytes) : 0);
  }
  [[nodiscard]] bool takes_part(std::size_t size) const {
    return size <= short_bytes() ? carries_short : carries_long && size > k_stripe_bytes * place;
  }
  // Where in the message byte `at` of this socket's share lies.
  [[nodiscard]] std::size_t position(std::size_t at) const {
    if (sockets == 1) return at;
    return (at / k_stripe_bytes * sockets + place) * k_stripe_bytes + at % k_stripe_bytes;
  }
  // Bytes from there to the end of the run, given the share's size.
  [[nodiscard]] std::size_t run(std::size_t at, std::size_t share_size) const {
    const std::size_t rest = share_size - at;
    return sockets == 1 ? rest : std::min(rest, k_stripe_bytes - at % k_stripe_bytes);
  }
};

}  // namespace gradrail
