// A pipe to one peer over one or more TCP sockets. Owned by its user, known to the transport that made it, on the one
// thread of both.
//
// On each socket: header (size of the whole message, its number in the pipe), then this socket's share of the payload
// (stripe.h). Both are written by one system call and read by one. Payload goes from the registered source to the
// kernel and from the kernel to the registered destination; a receive in place goes through `landing_`, a ring of
// k_landing_bytes in which byte i of the message lies at i modulo its size. Only the oldest incomplete receive may
// use the ring. Nothing is read from a socket for which no receive is posted: the kernel then holds the sender back.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/tcp/stripe.h"
#include "transports/transport.h"

namespace gradrail {

class TcpTransport;

inline constexpr std::size_t k_tcp_depth = 64;
inline constexpr std::size_t k_landing_bytes = 256 << 10;

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
  Stripe stripe;
  bool may_read = true;   // not known to be empty: set by epoll, cleared by a read that found nothing more
  bool may_write = true;  // the same for room to write
  bool hung_up = false;   // the peer has closed its side; what it sent before may still be unread

  std::uint64_t sending = 0;    // number of the message being sent
  std::size_t sent = 0;         // its bytes gone, header included
  std::uint64_t receiving = 0;  // the same for receiving
  std::size_t received = 0;
  TcpHeader header;  // of the message being received
};

class TcpEndpoint final : public Endpoint {
 public:
  TcpEndpoint(TcpTransport& transport, const Peer& peer, std::vector<Fd> sockets);
  ~TcpEndpoint() override;

  [[nodiscard]] Result<void> send(Slice source) override;
  [[nodiscard]] Result<void> recv(Slice destination) override;
  [[nodiscard]] Result<void> recv_in_place(std::size_t bytes) override;
  [[nodiscard]] std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;

  // For the transport. True if anything moved. `look`: try every socket, not only those epoll has spoken of.
  bool progress(bool look);
  // True if a socket that may be read or written has something to read or write.
  [[nodiscard]] bool could_move() const;
  [[nodiscard]] bool expects() const { return recvs_done_ < recvs_posted_; }
  [[nodiscard]] bool busy() const { return sends_done_ < sends_posted_ || expects(); }
  // Finds the end of a connection on which nothing is expected, or whose other host has stopped answering.
  void notice_end(TcpStream& stream);
  void notice_silence();
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
  bool send_some(TcpStream& stream);
  bool recv_some(TcpStream& stream);
  void sent_bytes(TcpStream& stream, std::size_t count);
  [[nodiscard]] bool header_fits(const TcpStream& stream, const Incoming& incoming);
  void finish_sends();
  void finish_recvs();
  // Moves the cursors over messages in which the socket has no part.
  void skip_sends(TcpStream& stream) const;
  void skip_recvs(TcpStream& stream) const;
  [[nodiscard]] bool has_room(const TcpStream& stream) const;
  // True if the oldest incomplete receive is in place and has arrived, but is not consumed.
  [[nodiscard]] bool holds_whole_message() const;
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

  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> landing_;
  std::size_t consumed_ = 0;  // of the oldest incomplete receive, if it is one in place
};

}  // namespace gradrail
