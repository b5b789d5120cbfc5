// The shm transport: between processes of one host, through memory that both map. Here is what belongs to the rank as a
// whole: its name in the abstract socket name space, the making of pipes, regions, and the mappings of peers' memory,
// which all lanes to a peer share.
//
// connect(): the lower rank connects to the higher, both prove the job's secret (handshake.h), then the lower passes
// the pipe's memfd. Each tries to read the other's memory (attach.h), and says whether it could. The socket stays open
// as the pipe's life line (lifeline.h).
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "transports/handshake.h"
#include "transports/settings.h"
#include "transports/shm/endpoint.h"
#include "transports/shm/lifeline.h"

namespace gradrail::shm {

class ShmTransport final : public Transport {
 public:
  explicit ShmTransport(const Settings& settings);
  ~ShmTransport() override;

  [[nodiscard]] static Result<void> available();

  const Traits& traits() const override;
  Result<Address> listen() override;
  Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers, Deadline deadline) override;
  Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override;
  Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override;
  Result<std::unique_ptr<Board>> open_board(std::span<const int> members, int lane, Deadline deadline) override;
  bool progress() override;
  void wait(Seconds at_most) override;

  // For endpoints and regions.
  [[nodiscard]] int ranks() const { return ranks_; }
  void list(ShmEndpoint* endpoint) { working_.push_back(endpoint); }
  void remove(ShmEndpoint* endpoint);
  void forget(std::uint32_t region);
  // Whether peers may read this plain memory of ours themselves.
  [[nodiscard]] bool attaches(const PlainRegion& region, std::span<const std::byte> message);
  // The mapping of a peer's region; made at first, then shared. Errors: those of Mapping::open.
  [[nodiscard]] Result<std::shared_ptr<Mapping>> share(std::uint64_t token, std::uint32_t region, const Fd& fd,
                                                       std::size_t bytes);

 private:
  struct Arrival {  // a peer that has proven itself and waits to be claimed by connect()
    Fd fd;
    Identity identity;
  };
  struct Opening;

  void take_arrivals_in(Bytes hello, Fd fd);
  [[nodiscard]] Result<void> take_arrivals();
  [[nodiscard]] Result<Opening> start(const Peer& peer) const;
  [[nodiscard]] Result<std::unique_ptr<ShmEndpoint>> advance(Opening& opening);
  [[nodiscard]] Result<std::unique_ptr<ShmEndpoint>> advance_lower(Opening& opening);
  [[nodiscard]] Result<std::unique_ptr<ShmEndpoint>> advance_higher(Opening& opening);
  [[nodiscard]] std::unique_ptr<ShmEndpoint> open(Opening& opening, int side);
  [[nodiscard]] Note introduction(NoteKind kind) const;
  void get_to_know(Opening& opening, const Note& note) const;
  bool look_at_lifelines();

  int rank_;
  int ranks_;
  Secret secret_;
  PipeLayout layout_;
  Attach attach_;
  Fd pages_;  // this process's page map, opened at the first need; not open where there is none
  bool pages_tried_ = false;
  std::uint64_t token_ = 0;
  std::optional<Acceptor> acceptor_;
  std::list<Arrival> arrivals_;
  std::vector<ShmEndpoint*> endpoints_;
  std::vector<ShmEndpoint*> working_;  // those with something outstanding; capacity for all
  std::uint32_t idle_ = 0;             // calls of progress() in a row that moved nothing
  Clock::time_point next_look_{};
  std::uint32_t regions_made_ = 0;
  std::map<std::pair<std::uint64_t, std::uint32_t>, std::weak_ptr<Mapping>> shared_;
};

}  // namespace gradrail::shm
