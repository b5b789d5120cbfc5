// Queue pairs connected by rdma_cm (the verbs setting connect=cm) instead of by what their ranks told each other. A
// CmPort is a rank's: one channel of events, and one listener for each of its devices. A CmLink is one queue pair's way
// to its peer, and stays as long as the queue pair does. Both on the transport's one thread; links go before the port,
// and the port before the devices.
//
// Two ranks still meet over a side channel on which both have proven the job's secret (transports/introductions.h), and
// tell each other there where they listen, and a fresh number each. Then, for each queue pair:
//
//   lower rank                                       higher rank
//   resolves the address, then the route
//   connect: rank, lane, index, proof           ->
//                                               <-   accept: proof, or a rejection
//   established                                 ->
//
// A proof is an HMAC with the job's secret over both fresh numbers, who says it, and its queue pair's number. So nobody
// else's request is accepted, and none of an earlier attempt.
#pragma once

#include <netinet/in.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transports/base/clock.h"
#include "transports/secret.h"
#include "transports/verbs/cm_calls.h"
#include "transports/verbs/queue_pair.h"

namespace gradrail::verbs {

// What a step that failed means, in words that a person can act on; `peer` is the address that was to be reached.
[[nodiscard]] std::string meaning_of(CmStep step, int status, std::string_view peer);

class CmLink;

class CmPort {
 public:
  // Listens on every device. Errors: unavailable (no rdma_cm here, a device without an IP address), system.
  [[nodiscard]] static Result<std::unique_ptr<CmPort>> make(CmCalls& calls, const Secret& secret,
                                                            std::span<const std::unique_ptr<Device>> devices,
                                                            const std::string& listen_host);
  CmPort(const CmPort&) = delete;
  CmPort& operator=(const CmPort&) = delete;
  ~CmPort();

  // Readable when there is something to take.
  [[nodiscard]] int fd() const { return calls_.channel_fd(channel_); }
  // Takes all events, and hands each to its link.
  void take_events();
  // Where the device of that rail is listened on, into `self`.
  void introduce(std::size_t rail, PairIntroduction& self) const;

 private:
  friend class CmLink;
  struct Listener {
    rdma_cm_id* id = nullptr;
    sockaddr_in6 address{};  // or a sockaddr_in
    std::uint16_t port = 0;
  };
  CmPort(CmCalls& calls, const Secret& secret) : calls_(calls), secret_(secret) {}

  CmCalls& calls_;
  Secret secret_;
  rdma_event_channel* channel_ = nullptr;
  std::vector<Listener> listeners_;  // one a rail
  std::vector<CmLink*> links_;
};

class CmLink {
 public:
  // Which queue pair of which pipe; both sides mean the same by lane and index.
  struct Name {
    int rank = 0;  // this side's
    int peer = 0;
    int lane = 0;
    std::size_t index = 0;
  };
  using Fresh = std::array<std::uint64_t, 2>;

  // Starts, or waits for the peer's start. The queue pair outlives the link's being reached, but not the link.
  CmLink(CmPort& port, QueuePair& pair, const Name& name, const PairIntroduction& peer, const Fresh& own,
         const Fresh& other);
  CmLink(const CmLink&) = delete;
  CmLink& operator=(const CmLink&) = delete;
  ~CmLink();

  // True once the queue pair is connected. Errors: what went wrong, or once the deadline has passed, what was missing.
  [[nodiscard]] Result<bool> reached(Deadline deadline);

 private:
  friend class CmPort;
  enum class Stage { resolving_address, resolving_route, connecting, waiting, accepted, reached };

  [[nodiscard]] bool lower() const { return name_.rank < name_.peer; }
  void resolve();
  void on_event(const CmEvent& event);
  [[nodiscard]] bool is_meant_by(const CmEvent& request) const;
  void accept(const CmEvent& request);
  [[nodiscard]] Result<void> check_device() const;
  [[nodiscard]] Result<void> ready_pair();
  [[nodiscard]] CmOffer offer() const;
  [[nodiscard]] Bytes signed_by(bool lower) const;
  [[nodiscard]] bool proven(std::span<const std::byte> proof) const;
  void take(Result<void> done);
  void failed(int error, std::string_view what);

  CmPort& port_;
  QueuePair& pair_;
  Name name_;
  PairIntroduction peer_;
  Fresh own_, other_;
  std::string peer_address_;
  rdma_cm_id* id_ = nullptr;
  Stage stage_ = Stage::waiting;
  int tries_ = 0;
  std::optional<Error> failure_;
};

}  // namespace gradrail::verbs
