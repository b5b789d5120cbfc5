// One end of a pipe over one queue pair, or several that long messages are striped over. The protocol is in wire.h.
// Owned by its user, known to the transport that made it, on the one thread of both. If one queue pair fails, the pipe
// has.
//
// Messages are numbered from 0 in each direction. Of the sends, issued_ have been handed to the device; one that went
// in line is done then, another once the device says that its last write was acknowledged (it may have to send again
// until then), on every queue pair that it took. What arrives on the first is queued in `arrived_` (bounded by the
// sender's credit) and taken by the oldest receive; ring bytes are credited as they are taken. A note that finds the
// send queue full waits: adverts_sent_ lags behind posted receives, uncredited parts stay uncredited.
//
// The side channel over which the two met stays open: its end is how the death of a peer's process is noticed at once,
// instead of after the device's retries. The destructor waits, for a short time, until the peer's device has
// everything.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/transport.h"
#include "transports/verbs/cause.h"
#include "transports/verbs/cm.h"
#include "transports/verbs/landing_area.h"
#include "transports/verbs/registrations.h"
#include "transports/verbs/staging.h"

namespace gradrail::verbs {

class VerbsTransport;

// Registered with every rail, unless some do not reach it: then it is not direct(), and staged.
class VerbsRegion final : public ChosenRegion {
 public:
  VerbsRegion(const Transport& owner, Buffer buffer, Registrations::Use use)
      : ChosenRegion(owner, buffer, true), use_(std::move(use)) {}
  VerbsRegion(const Transport& owner, Buffer buffer, bool direct, Registrations::Use use, Gpu& gpu, std::string how)
      : ChosenRegion(owner, buffer, direct), use_(std::move(use)), gpu_(&gpu), how_(std::move(how)) {}

  [[nodiscard]] std::uint32_t local_key(std::size_t rail) const { return use_.local_key(rail); }
  [[nodiscard]] std::uint32_t remote_key(std::size_t rail) const { return use_.remote_key(rail); }
  // Whose memory it is, so that the CPU cannot touch it; null for the host's.
  [[nodiscard]] Gpu* gpu() const { return gpu_; }
  [[nodiscard]] std::string how() const override { return how_; }

 private:
  Registrations::Use use_;
  Gpu* gpu_ = nullptr;
  std::string how_;
};

// What two ranks agreed on for one pipe: what they said of themselves, and what they made.
struct Connection {
  Introduction own, other;
  std::optional<LandingArea> landing;
  std::vector<std::unique_ptr<CmLink>> links;     // one a queue pair, if by rdma_cm
  std::vector<std::unique_ptr<QueuePair>> pairs;  // go first
};

class VerbsEndpoint final : public Endpoint {
 public:
  // The queue pairs are connected.
  VerbsEndpoint(VerbsTransport& owner, const Peer& peer, Connection connection, Fd lifeline);
  ~VerbsEndpoint() override;

  Result<void> send(Slice source) override;
  Result<void> recv(Slice destination) override;
  Result<void> recv_in_place(std::size_t bytes) override;
  std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;

  // For the transport. True if anything moved.
  bool progress();
  [[nodiscard]] bool busy() const {
    return !failure_ && (sends_done_ < sends_posted_ || recvs_done_ < recvs_posted_ || adverts_sent_ < recvs_posted_ ||
                         owes_credit());
  }
  // Before a sleep: asks to be woken by the next completion; true if there is something to do right now.
  bool prepare_to_sleep();
  // Looks for the end of the side channel, and for failures of the device that no completion was waited for.
  void check_life();
  // Of one of its queue pairs, or a device that it uses.
  void on_event(ibv_event_type event, const Device& device);
  [[nodiscard]] bool has(const ibv_qp* pair) const;
  [[nodiscard]] bool uses(const Device& device) const;
  [[nodiscard]] int lifeline() const { return lifeline_.get(); }

 private:
  struct Send {
    const std::byte* data = nullptr;
    std::size_t size = 0;
    const VerbsRegion* region = nullptr;
    Outgoing* staging = nullptr;   // how it gets to where the device reads it; none: it is there
    std::uint64_t last_write = 0;  // on the first queue pair; 0: done as soon as it is issued
    std::size_t stripes = 1;       // once it is issued
  };
  struct Recv {
    std::byte* data = nullptr;
    std::size_t size = 0;
    const VerbsRegion* region = nullptr;  // none: in place
    Incoming* copies = nullptr;           // how bytes of the ring get there; none: by the CPU
    [[nodiscard]] bool in_place() const { return region == nullptr; }
    [[nodiscard]] bool by_ring() const { return region == nullptr || !region->direct(); }
  };
  struct Arrived {
    Note note = Note::part;
    std::uint32_t value = 0;
  };

  // Sending (send.cc)
  bool transmit();
  [[nodiscard]] bool transmit_part(Send& send);
  [[nodiscard]] bool place(Send& send, const Advert& advert);
  [[nodiscard]] bool place_stripe(const Send& send, const Advert& advert, std::size_t index, std::size_t stripes);
  void placed(Send& send, std::size_t stripes, Path path);
  [[nodiscard]] bool acknowledged(const Send& send) const;
  void ask(const Send& send);
  bool settle();
  bool post(QueuePair& pair, const QueuePair::Write& write);
  bool send_notes();
  [[nodiscard]] bool send_advert(std::uint64_t number);
  [[nodiscard]] bool owes_credit() const { return parts_owed_ >= window_ / 4 || ring_owed_ >= ring_bytes_ / 4; }

  // Receiving (receive.cc)
  [[nodiscard]] Result<void> post(const Recv& recv);
  bool poll();
  void on_arrival(std::uint32_t immediate);
  void on_stripe(std::size_t pair, std::uint32_t immediate);
  [[nodiscard]] bool stripes_arrived(std::size_t bytes) const;
  bool receive();
  [[nodiscard]] bool fits(const Arrived& part, std::size_t ahead = 0);
  void take(std::size_t bytes);
  void answer_question();
  void give_back(std::uint64_t ring_taken);
  void wrong_size(std::uint64_t sent, std::size_t expected);

  // To and from GPUs (gpu_messages.cc)
  struct OfGpu {
    Gpu* gpu = nullptr;
    std::unique_ptr<Incoming> in;
    std::unique_ptr<Outgoing> out;
  };
  [[nodiscard]] OfGpu& of_gpu(Gpu& gpu);
  [[nodiscard]] Result<Outgoing*> outgoing(Gpu& gpu);
  [[nodiscard]] Result<Incoming*> incoming(Gpu& gpu);
  [[nodiscard]] bool copying() const;
  bool copy_broke(const Error& error);  // false
  bool stage();
  [[nodiscard]] bool place_staged(Send& send, const Advert& advert);
  [[nodiscard]] bool copy_in(const Recv& recv);
  [[nodiscard]] bool flush(Gpu& gpu);

  // Both (endpoint.cc)
  [[nodiscard]] Result<void> refuse(const Slice& slice) const;
  void break_off(Code code, std::string message);
  void broke(const QueuePair& pair, const ibv_wc& completion);
  void drain();
  [[nodiscard]] const Advert& advert_of(std::uint64_t number) const {
    return reinterpret_cast<const Advert*>(landing_.data())[number % k_depth];
  }
  [[nodiscard]] QueuePair& first() const { return *pairs_.front(); }

  VerbsTransport& owner_;
  std::string who_;  // "rank 3 on host b"
  LandingArea landing_;
  std::vector<std::unique_ptr<CmLink>> links_;
  std::vector<std::unique_ptr<QueuePair>> pairs_;
  Introduction other_;
  std::size_t window_;      // parts that the peer may send
  std::size_t ring_bytes_;  // of this side's ring
  std::size_t eager_bytes_;
  std::size_t part_bytes_;
  Fd lifeline_;
  bool peer_closed_ = false;

  // Sending
  std::uint64_t sends_posted_ = 0;
  std::uint64_t sends_issued_ = 0;
  std::size_t issued_bytes_ = 0;   // of message sends_issued_, if it goes in parts
  std::uint64_t ring_sent_ = 0;    // positions in the peer's ring, growing only
  std::uint64_t ring_credit_ = 0;  // read by the peer
  std::uint64_t parts_sent_ = 0;
  std::uint64_t parts_credit_ = 0;
  std::uint64_t asked_for_ = 0;  // number, plus 1, of the message that was last asked about
  std::uint32_t patience_ = 0;
  Clock::time_point waiting_since_;
  std::array<Send, k_depth> sends_;
  std::array<std::uint32_t, k_depth> advert_here_{};  // low bits of number plus 1 of the advert that has arrived
  // Of each queue pair: bytes of its stripe of message sends_issued_ that were posted, and by message, the last write.
  struct Stripe {
    std::size_t placed_bytes = 0;
    std::array<std::uint64_t, k_depth> last_write{};
    std::uint64_t arrived = 0;  // stripes of the other direction, and those of messages that are complete
    std::uint64_t taken = 0;
  };
  std::vector<Stripe> stripes_;

  // Staging of what is sent: how far the messages have been copied from GPUs.
  std::vector<OfGpu> gpus_;  // that messages came from or went to
  std::uint64_t staged_ = 0;
  std::size_t staged_bytes_ = 0;  // of message staged_

  // Receiving
  std::uint64_t recvs_posted_ = 0;
  std::uint64_t adverts_sent_ = 0;  // receives up to this one are advertised, or need no advert
  std::size_t received_ = 0;        // bytes of message recvs_done_
  std::size_t taken_ = 0;           // bytes of the oldest part
  std::uint64_t ring_read_ = 0;
  std::uint64_t parts_owed_ = 0;
  std::uint64_t ring_owed_ = 0;
  struct Copying {  // parts of the oldest message that are on their way to a GPU
    std::size_t parts = 0;
    std::size_t bytes = 0;
    std::uint64_t ring = 0;  // position behind them
    bool whole = false;      // the last part is among them
  } copying_;
  std::optional<Question> question_;
  std::array<Recv, k_depth> recvs_;
  std::array<Arrived, k_parts> arrived_;
  std::uint64_t arrived_head_ = 0;
  std::uint64_t arrived_tail_ = 0;

  // Where notes wait for the device, if it cannot take them in line.
  struct Notes {
    std::array<Advert, k_depth> adverts;
    Question question;
  };
  std::unique_ptr<Notes> notes_ = std::make_unique<Notes>();
  Registered notes_region_;
};

}  // namespace gradrail::verbs
