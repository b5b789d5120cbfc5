// A pipe to one peer over two or more TCP sockets. Owned by its user, known to the transport that made it, on the one
// thread of both.
//
// On each socket: header (size of the whole message, its number in the pipe), then this socket's share of the payload
// (stripe.h). Both are written by one system call and read by one; where they are few bytes, by way of one small block,
// as that is less work than a list of pieces. Payload goes from the registered source to the
// kernel and from the kernel to the registered destination; a receive in place goes through `landing_`, a ring of
// turn_of(message) bytes in which byte i of the message lies at i modulo its size. Only the oldest incomplete receive
// may use the ring. Nothing is read from a socket for which no receive is posted: the kernel then holds the sender
// back.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/tcp/pace.h"
#include "transports/tcp/stripe.h"
#include "transports/transport.h"

namespace gradrail {

class TcpTransport;

inline constexpr std::size_t k_tcp_depth = 64;
// Bytes moved by one system call, so that sending and receiving take turns, and of the landing ring: of short messages
// while they are in the second-level cache; of longer ones, which leave it anyhow, in larger turns. Between ranks of
// one host a call sends more (below): each one costs packets, and what is sent need not lie in a cache of the sender's.
inline constexpr std::size_t k_turn_bytes = 256 << 10;
inline constexpr std::size_t k_long_turn_bytes = 512 << 10;
[[nodiscard]] constexpr std::size_t turn_of(std::size_t message_bytes) {
  return message_bytes <= (4u << 20) ? k_turn_bytes : k_long_turn_bytes;
}
// Of the rest of a long message, header included, what one call sends between ranks of one host, where the kernel makes
// packets of `segment` bytes: whole ones, as what is left over becomes a packet of its own, and costs nearly as much.
[[nodiscard]] constexpr std::size_t whole_segments_of(std::size_t rest, std::size_t segment) {
  const std::size_t whole = k_long_turn_bytes - k_long_turn_bytes % segment;
  return rest <= whole + segment ? rest : whole;
}

struct TcpHeader {
  std::uint64_t size = 0;
  std::uint64_t number = 0;
};
static_assert(sizeof(TcpHeader) == 16);

class TcpEndpoint;

// One socket of a pipe: how far it has got in each direction.
struct TcpStream {
  Fd fd;
  TcpEndpoint* endpoint = nullptr;
  Stripe out, in;           // its part in what is sent, and in what is received
  bool may_read = true;     // not known to be empty: set by epoll, cleared by a read that found nothing more
  bool may_write = true;    // the same for room to write
  bool hung_up = false;     // the peer has closed its side; what it sent before may still be unread
  std::size_t segment = 0;  // of payload, that the kernel puts into a packet

  std::uint64_t sending = 0;    // number of the message being sent
  std::size_t sent = 0;         // its bytes gone, header included
  std::uint64_t receiving = 0;  // the same for receiving
  std::size_t received = 0;
  TcpHeader header;  // of the message being received
};

class TcpEndpoint final : public Endpoint {
 public:
  TcpEndpoint(TcpTransport& transport, const Peer& peer, std::vector<Fd> sockets, bool keeps_step);
  ~TcpEndpoint() override;

  [[nodiscard]] Result<void> send(Slice source) override;
  [[nodiscard]] Result<void> recv(Slice destination) override;
  [[nodiscard]] Result<void> recv_in_place(std::size_t bytes) override;
  [[nodiscard]] std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;
  [[nodiscard]] std::size_t departed(std::uint64_t send, std::size_t bytes) const override;

  // For the transport. True if anything moved. `look`: try every socket, not only those epoll has spoken of.
  bool progress(bool look);
  // True if a socket that may be read or written has something to read or write.
  [[nodiscard]] bool could_move() const;
  [[nodiscard]] bool expects() const { return recvs_done_ < recvs_posted_; }
  [[nodiscard]] bool busy() const { return sends_done_ < sends_posted_ || expects(); }
  // True if the next to be received is part of a long message (pace.h).
  [[nodiscard]] bool takes_long() const;
  // Finds the end of a connection on which nothing is expected, or whose other host has stopped answering.
  void notice_end(TcpStream& stream);
  void notice_silence();
  // Finds a message of another size than was to be received, where that travels on another socket.
  void notice_stray();
  [[nodiscard]] std::vector<std::unique_ptr<TcpStream>>& streams() { return streams_; }

 private:
  struct Outgoing {
    TcpHeader header;
    std::byte* data = nullptr;
  };
  struct Incoming {
    std::size_t size = 0;
    std::byte* data = nullptr;  // null: in place
    bool in_place = false;
  };

  [[nodiscard]] Result<void> post_recv(Incoming incoming);
  // Payload that the next call on it may send.
  [[nodiscard]] std::size_t send_turn(const TcpStream& stream) const;
  bool send_some(TcpStream& stream);
  bool recv_some(TcpStream& stream);
  void sent_bytes(TcpStream& stream, std::size_t count);
  [[nodiscard]] bool header_fits(const TcpStream& stream, const Incoming& incoming);
  void wrong_size(const TcpHeader& header, std::size_t expected);
  void finish_sends();
  void finish_recvs();
  // Moves the cursors over messages in which the socket has no part.
  void skip_sends(TcpStream& stream) const;
  void skip_recvs(TcpStream& stream) const;
  [[nodiscard]] bool has_room(const TcpStream& stream) const;
  // True if the oldest incomplete receive is in place and has arrived, but is not consumed.
  [[nodiscard]] bool holds_whole_message() const;
  // Whether a part of a long message should be sent now.
  [[nodiscard]] bool in_step();
  [[nodiscard]] static bool has_unread(const TcpStream& stream);
  // True if another socket holds part of a message that comes before the one this socket is at.
  [[nodiscard]] bool older_is_unread(const TcpStream& than) const;
  // notice_end() for all sockets on which nothing is expected.
  void notice_ends();
  void end(Code code, std::string_view how, int sys_errno = 0);
  void ended(int sys_errno);

  [[nodiscard]] Outgoing& outgoing(std::uint64_t number) { return outgoing_[number % k_tcp_depth]; }
  [[nodiscard]] const Outgoing& outgoing(std::uint64_t number) const { return outgoing_[number % k_tcp_depth]; }
  [[nodiscard]] Incoming& incoming(std::uint64_t number) { return incoming_[number % k_tcp_depth]; }
  [[nodiscard]] const Incoming& incoming(std::uint64_t number) const { return incoming_[number % k_tcp_depth]; }

  TcpTransport& transport_;
  std::string who_;  // "rank 3 on host b"
  std::vector<std::unique_ptr<TcpStream>> streams_;
  std::array<Outgoing, k_tcp_depth> outgoing_;
  std::array<Incoming, k_tcp_depth> incoming_;
  std::uint64_t sends_posted_ = 0;
  std::uint64_t recvs_posted_ = 0;
  const bool keeps_step_;  // pace.h
  Pace pace_;              // of long messages of this pipe

  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> landing_;
  std::size_t consumed_ = 0;  // of the oldest incomplete receive, if it is one in place
};

}  // namespace gradrail
