// Who may talk to a rank: the mutual proof of the job's secret on any stream socket, and the two ends that use it.
//
//   client                            server
//   magic 8, nonce C 16        ->
//                              <-     magic 8, nonce S 16
//   HMAC("client", purpose, C, S) ->                             the client proves first
//                              <-     HMAC("server", purpose, C, S)
//   hello: length 4, bytes     ->                                who it is; read only after the proof
//
// All messages are of fixed size up to the hello, so a stranger costs a few hundred bytes and is never believed.
// Nothing beyond the handshake is read from the socket. The proof keeps strangers out; it does not encrypt what
// follows. Classes here belong to one thread and never block, unless a function takes a Deadline.
#pragma once

#include <array>
#include <cstddef>
#include <list>
#include <optional>
#include <string>
#include <string_view>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/fd.h"
#include "transports/base/result.h"
#include "transports/secret.h"
#include "transports/socket.h"

namespace gradrail {

enum class Role { client, server };

// One side of the proof, moved on as bytes come.
class Proof {
 public:
  // `purpose` names what the connection is for ("rendezvous"), so that a proof for one is none for another.
  Proof(Role role, const Secret& secret, std::string_view purpose);

  // Sends and receives what is possible now; true once both sides are proven. Errors: refused (a wrong secret, or the
  // server hung up on this side's proof), malformed (not gradrail's protocol), peer_gone (ended before it answered).
  [[nodiscard]] Result<bool> advance(int fd);
  // What to wait for while advance() is false: POLLIN or POLLOUT.
  [[nodiscard]] short waits_for() const;
  // True once the other side's first message has come.
  [[nodiscard]] bool greeted() const { return stage_ == Stage::digest || stage_ == Stage::done; }

 private:
  enum class Stage { start, greeting, digest, done };
  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> take_greeting();
  [[nodiscard]] Result<void> take_digest();
  void queue(std::span<const std::byte> bytes);
  [[nodiscard]] Bytes signed_by(Role role) const;
  [[nodiscard]] tl::unexpected<Error> ended(int error) const;

  Role role_;
  Secret secret_;
  std::string purpose_;
  Stage stage_ = Stage::start;
  Secret::Nonce mine_{};
  Secret::Nonce theirs_{};
  std::array<std::byte, 64> out_{};
  std::size_t out_size_ = 0;
  std::size_t out_done_ = 0;
  std::array<std::byte, 32> in_{};
  std::size_t in_have_ = 0;
};

// Runs one side of the proof on a connected stream socket. Errors: those of Proof::advance, and timed_out.
[[nodiscard]] Result<void> prove(int fd, const Secret& secret, Role role, std::string_view purpose, Deadline deadline);

// Accepts connections on a listener (TCP or unix) and yields those that proved the secret, with their hello. Any number
// of half-finished handshakes go on side by side: strangers who sit there, send garbage or claim huge frames are
// dropped without delaying anybody.
class Acceptor {
 public:
  struct Options {
    std::string purpose;
    std::size_t most_hello_bytes = 1024;
    Seconds time_limit{5};           // for one handshake, from accept to hello
    std::size_t most_pending = 128;  // above it the oldest is dropped, first among those that have said nothing yet
  };
  struct Accepted {
    Fd fd;
    Bytes hello;
  };

  [[nodiscard]] static Result<Acceptor> make(Fd listener, const Secret& secret, Options options);

  // Moves all handshakes on without waiting; one finished connection if there is any (call again for more). Dropped
  // strangers are no error. Errors: exhausted (no descriptors left), system.
  [[nodiscard]] Result<std::optional<Accepted>> poll();
  // Waits for one. Errors: those of poll(), and timed_out.
  [[nodiscard]] Result<Accepted> accept(Deadline deadline);

  // Readable whenever poll() has something to do: for poll(2) or an epoll set of the caller's.
  [[nodiscard]] int fd() const { return epoll_.get(); }
  [[nodiscard]] int listener() const { return listener_.get(); }
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }
  [[nodiscard]] std::size_t dropped() const { return dropped_; }

 private:
  struct Pending {
    Pending(Fd socket, Proof server, Clock::time_point limit)
        : fd(std::move(socket)), proof(std::move(server)), give_up(limit) {}
    Fd fd;
    Proof proof;
    Clock::time_point give_up;
    bool spoke = false;  // something has arrived
    bool proven = false;
    std::size_t have = 0;  // bytes of length and hello
    std::array<std::byte, 4> length{};
    Bytes hello;
  };

  Acceptor(Fd listener, Fd epoll, const Secret& secret, Options options);
  [[nodiscard]] Result<bool> advance(Pending& one) const;  // true: finished
  void drop_oldest();
  [[nodiscard]] Result<bool> take_new();  // false: nobody is waiting

  Fd listener_;
  Fd epoll_;
  Secret secret_;
  Options options_;
  std::list<Pending> pending_;  // oldest first
  std::size_t dropped_ = 0;
};

// One outgoing connection: connects (again and again while nobody listens there, or the listener drops it before
// answering), proves, says hello.
class Dial {
 public:
  Dial(const SocketAddress& to, const Secret& secret, std::string_view purpose, Bytes hello);

  // Goes on without waiting; true once connected, proven, and the hello is sent. Errors: refused, malformed, system.
  [[nodiscard]] Result<bool> advance();
  // The connection, after advance() was true.
  [[nodiscard]] Fd take() { return std::move(fd_); }
  // The socket to wait on, and for what; -1 between two tries (then wait for a few milliseconds).
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] short waits_for() const;

 private:
  enum class Stage { apart, connecting, proving, greeting, done };
  void try_again();

  SocketAddress to_;
  Secret secret_;
  std::string purpose_;
  Bytes hello_;  // with its length in front
  Stage stage_ = Stage::apart;
  Fd fd_;
  Proof proof_;
  std::size_t sent_ = 0;
  Clock::time_point not_before_{};
  std::chrono::milliseconds pause_{1};
};

// The whole of Dial in one call. Errors: those of Dial::advance, bad_usage, timed_out; all name host and port.
[[nodiscard]] Result<Fd> dial(std::string_view host, int port, const Secret& secret, std::string_view purpose,
                              std::span<const std::byte> hello, Deadline deadline);

}  // namespace gradrail
