// How two ranks open a pipe that needs more than a socket, such as one over RDMA: each introduces itself over a
// connection on which both have proven the job's secret, and each says when it is ready.
//
//   lower rank                     higher rank
//   hello: rank, lane, introduction ->            (handshake.h)
//                                <-  frame: here, introduction     or: refused, why
//   frame: here                  ->                                or: refused, why
//                                <-  frame: here                   or: refused, why
//
// The last two frames are sent once a side can reach the other, and no pipe is open before both have come. The socket
// stays open as the pipe's side channel: its end is how the death of a peer's process is noticed. What is said is a
// transport's own; it speaks through a Conversation. One thread; nothing waits but meet(), until its deadline.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/handshake.h"
#include "transports/settings.h"
#include "transports/transport.h"

namespace gradrail {

// One pipe that is being opened. Errors become one sentence here, and one at the peer.
class Conversation {
 public:
  virtual ~Conversation() = default;
  // What this side says of itself. Asked again where the peer gave up and came anew; what was agreed then is void.
  [[nodiscard]] virtual Result<Bytes> introduce() = 0;
  // Takes what the peer says of itself.
  [[nodiscard]] virtual Result<void> agree(std::span<const std::byte> introduction) = 0;
  // Moves on without waiting; true once bytes can travel.
  [[nodiscard]] virtual Result<bool> reached() { return true; }
};

class Introductions {
 public:
  // `transport`: its name; no introduction is longer than `most_bytes`.
  Introductions(std::string transport, std::size_t most_bytes)
      : transport_(std::move(transport)), purpose_(transport_ + " transport"), most_bytes_(most_bytes) {}

  // Errors: those of listen_for_peers().
  [[nodiscard]] Result<Address> listen(const Settings& settings);
  [[nodiscard]] bool listening() const { return acceptor_.has_value(); }
  // Readable when somebody knocks.
  [[nodiscard]] int fd() const { return acceptor_->fd(); }
  [[nodiscard]] std::size_t pending() const { return acceptor_->pending(); }
  // Takes in who knocks, for a later meet(). Errors: those of Acceptor::poll().
  [[nodiscard]] Result<void> take_early();

  // Opens one pipe a peer, in any order; the i-th conversation is about the i-th peer. Their side channels. `wakes` is
  // readable when some reached() may say more, -1 if that cannot be known. Errors name the peer.
  [[nodiscard]] Result<std::vector<Fd>> meet(const Settings& settings, std::span<const Peer> peers,
                                             std::span<Conversation* const> conversations, Deadline deadline,
                                             int wakes = -1);

 private:
  struct Early {  // proven, and not yet asked for
    int rank = 0;
    int lane = 0;
    Bytes introduction;
    Fd fd;
  };
  class Frame;
  struct Opening;

  [[nodiscard]] Result<void> start(Opening& opening, const Settings& settings) const;
  [[nodiscard]] Result<void> advance(Opening& opening, const Settings& settings);
  [[nodiscard]] Result<void> hear_higher(Opening& opening) const;
  [[nodiscard]] Result<void> answer_lower(Opening& opening);
  [[nodiscard]] Result<void> finish(Opening& opening, const Settings& settings) const;

  std::string transport_;
  std::string purpose_;  // as in handshake.h
  std::size_t most_bytes_;
  std::optional<Acceptor> acceptor_;
  std::vector<Early> early_;
};

}  // namespace gradrail
