// One end of a shared-memory pipe: what is posted, how far both directions are, and the peer's memory that is mapped.
// The protocol between the two ends, and who may touch which byte when, is in pipe.h. An endpoint belongs to the thread
// of its transport. Posting tries to send at once; everything else moves in progress(), readable() and writable().
//
// Messages are numbered from 0 in each direction. sends_issued_ messages are wholly handed over to the pipe; a viewed
// one among them completes only when the receiver has read it, so sends_done_ may lag behind.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/shm/mapping.h"
#include "transports/shm/pipe.h"
#include "transports/transport.h"

namespace gradrail::shm {

class ShmTransport;

struct Freed {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// The caller's own memory.
class PlainRegion final : public Region {
 public:
  PlainRegion(const Transport& owner, Buffer buffer) : Region(owner, buffer, false) {}

  // What the transport knows of its pages.
  mutable std::uint32_t looks = 0;
  mutable bool huge_pages = false;
};

// Memory in a memfd, which peers may map (allocate()).
class ShmRegion final : public Region {
 public:
  ShmRegion(ShmTransport& owner, Mapping mapping, std::size_t bytes, std::uint32_t number);
  ~ShmRegion() override;

  [[nodiscard]] std::uint32_t number() const { return number_; }
  [[nodiscard]] const Mapping& mapping() const { return mapping_; }

 private:
  ShmTransport& transport_;
  Mapping mapping_;
  std::uint32_t number_;  // from 1, never used twice by a transport
};

// The other end, as it introduced itself.
struct Identity {
  int rank = 0;
  int lane = 0;
  std::string host;
  std::int64_t pid = 0;  // as it calls itself
  std::uint64_t token = 0;
  std::int64_t reads_as = 0;  // its process, as we must call it to read its memory; 0: we cannot
  bool reads_us = false;      // it can read ours
};

class ShmEndpoint final : public Endpoint {
 public:
  // `side`: 0 for the lower rank, 1 for the higher.
  ShmEndpoint(ShmTransport& owner, Identity peer, int side, PipeLayout layout, Mapping pipe, Fd lifeline);
  ~ShmEndpoint() override;

  Result<void> send(Slice source) override;
  Result<void> send_copied(Slice source) override;
  Result<void> recv(Slice destination) override;
  Result<void> recv_in_place(std::size_t bytes) override;
  std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;
  Result<void> send_in_place(std::size_t bytes) override;
  std::span<std::byte> writable() override;
  void commit(std::size_t bytes) override;
  std::size_t offer(std::span<const std::byte> bytes) override;
  void withdraw() override;
  std::size_t departed(std::uint64_t send, std::size_t bytes) const override {
    if (sends_done_ >= send) return bytes;
    if (sends_issued_ >= send) return sends_[(send - 1) % k_depth].viewed ? 0 : bytes;
    return sends_issued_ + 1 == send ? issued_bytes_ : 0;
  }

  // True if anything moved. Inline, as it is what a waiting rank does all the time: one load where nothing is to be
  // done.
  bool progress() {
    bool moved = recvs_done_ < recvs_posted_ && (part_open_ || unread()) && receive();
    if (sends_issued_ < sends_posted_) moved |= transmit();
    if (sends_done_ < sends_issued_) moved |= settle();
    return moved;
  }
  [[nodiscard]] bool has_work() const {
    return !failure_ && (sends_done_ < sends_posted_ || recvs_done_ < recvs_posted_);
  }
  // Looks at the life line: reads notes, and fails once the peer is gone and all that it had sent was received.
  bool check_life();
  [[nodiscard]] int lifeline() const { return lifeline_.get(); }
  // A region of this transport ends: the peer is told to unmap it.
  void forget(std::uint32_t region);
  // Tells the peer of the board that this rank made; false if the life line is full.
  [[nodiscard]] Result<bool> offer_board(const Mapping& board);
  // The board of at least `bytes` that the peer made, if it has told of it.
  [[nodiscard]] Result<std::optional<Mapping>> take_board(std::size_t bytes);

  bool listed = false;  // in the transport's list of endpoints with work

 private:
  struct Send {
    const std::byte* data = nullptr;
    std::size_t size = 0;
    const ShmRegion* region = nullptr;  // set if peers can map the source
    std::size_t region_offset = 0;
    bool in_place = false;
    bool attached = false;  // the peer is to read it in our plain memory
    bool viewed = false;    // it was told where the message lies, and completes it
  };
  struct Recv {
    std::byte* data = nullptr;
    std::size_t size = 0;
    bool in_place = false;
    bool plain = false;  // advertised as Advert::k_plain
  };
  struct PeerRegion {
    std::uint32_t number = 0;
    std::shared_ptr<Mapping> mapping;
  };
  // Where the receiver wants the message that is being sent.
  struct Target {
    enum class Kind { unknown, closed, direct, foreign } kind = Kind::unknown;
    std::byte* data = nullptr;  // direct
    std::uint64_t address = 0;  // foreign: in the peer's memory, which the kernel writes
  };

  // Sending (send.cc)
  [[nodiscard]] Result<void> post(const Send& send);
  bool transmit();
  [[nodiscard]] bool transmit_part(Send& send);
  [[nodiscard]] bool line_free();
  [[nodiscard]] std::size_t ring_room(std::size_t wanted);
  [[nodiscard]] Target target(const Send& send);
  [[nodiscard]] std::size_t write_there(const Target& to, std::span<const std::byte> bytes);
  void publish_inline(const std::byte* data, std::size_t size);
  void publish_part(Part kind, std::size_t bytes, std::uint64_t offset, std::uint32_t region);
  void issued(std::size_t bytes, Path path);
  bool settle();
  [[nodiscard]] bool announce(const ShmRegion& region);

  // Receiving (receive.cc)
  [[nodiscard]] Result<void> post(const Recv& recv, const Slice* destination);
  void advertise(Recv& recv, const Slice* destination);
  bool receive();
  [[nodiscard]] bool open_part();
  [[nodiscard]] bool open_long_part(Part kind, const Line& line);
  [[nodiscard]] bool fetch(std::span<std::byte> to);
  [[nodiscard]] bool fetch_some();
  void take(std::size_t bytes);
  void close_part();
  void release_line();
  void complete_message();
  [[nodiscard]] bool unread() const {
    return has_lap(in_->lines[lines_read_ % k_lines].head.load(std::memory_order_acquire), lines_read_);
  }

  // Both (endpoint.cc)
  void list() {
    if (!listed) join_working();
  }
  void join_working();
  void break_off(Code code, std::string message);
  [[nodiscard]] std::string gone() const;
  void read_notes();
  [[nodiscard]] const Mapping* peer_region(std::uint32_t number);
  // Why a post with this slice cannot be: the slice, or this endpoint's failure.
  [[nodiscard]] Result<void> refuse(const Slice& slice) const;
  [[nodiscard]] static const ShmRegion* direct_region(const Slice& slice) {
    return slice.region->direct() ? static_cast<const ShmRegion*>(slice.region) : nullptr;
  }

  ShmTransport& owner_;
  PipeLayout layout_;
  Mapping pipe_;

  // Sending
  Half* out_;
  std::byte* out_ring_;
  std::uint64_t sends_posted_ = 0;
  std::uint64_t sends_issued_ = 0;
  std::size_t issued_bytes_ = 0;  // of message sends_issued_
  std::uint64_t lines_sent_ = 0;
  std::uint64_t lines_credit_ = 0;  // lines that the receiver has given back, as far as known
  std::uint64_t ring_sent_ = 0;
  std::uint64_t ring_credit_ = 0;
  std::uint64_t messages_credit_ = 0;
  std::uint32_t patience_ = 0;  // how often writable() found no advert of the present message
  std::span<std::byte> given_;  // by writable(), until commit()
  Part given_kind_ = Part::in_line;
  std::array<Send, k_depth> sends_;

  // Receiving
  Half* in_;
  std::byte* in_ring_;
  std::uint64_t recvs_posted_ = 0;
  std::size_t received_ = 0;  // bytes of message recvs_done_
  std::uint64_t lines_read_ = 0;
  std::uint64_t lines_returned_ = 0;
  std::uint64_t ring_read_ = 0;
  std::uint64_t ring_returned_ = 0;
  bool part_open_ = false;
  Part part_kind_ = Part::in_line;
  std::size_t part_bytes_ = 0;
  std::span<const std::byte> part_;            // what is left of it; of an attached one, of what was fetched
  std::uint64_t foreign_ = 0;                  // attached: where its bytes not fetched yet lie in the peer's memory,
  std::size_t foreign_bytes_ = 0;              // and how many they are
  std::unique_ptr<std::byte, Freed> landing_;  // what is fetched to be read in place; made at the first need
  std::size_t landing_bytes_;
  std::array<Recv, k_depth> recvs_;

  alignas(k_line_bytes) std::array<std::byte, k_line_bytes> small_{};  // a short message that is produced in place

  Fd lifeline_;
  bool peer_closed_ = false;
  Identity identity_;
  std::vector<std::uint32_t> announced_;  // regions of ours that the peer knows
  std::vector<PeerRegion> peer_regions_;
  Mapping board_;  // the peer's, until it is taken
};

}  // namespace gradrail::shm
