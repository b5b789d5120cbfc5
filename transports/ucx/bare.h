// transports/bare.h over UCX, as ucx_perftest measures it: a worker and an endpoint of its own that are asked for no
// more than its tests ask for, memory that UCX allocated, whole messages of one tag. A send is ucp_tag_send_nbx()
// (tag_lat, tag_bw), a write ucp_put_nbx() (ucp_put_lat, ucp_put_bw), a read ucp_get_nbx() (ucp_get). There is one
// queue pair, UCX's endpoint.
//
// What the two say when they meet is the operation, its largest size, where the buffer lies that the peer's operations
// reach, UCX's key to it, and an Introduction (wire.h). Both are through once a flush is.
//
// As many receives are posted as sends may be outstanding, in poll(), all to the one buffer. UCX may move memory by
// messages that its progress answers, so that hear() polls while it waits.
#pragma once

#include <memory>
#include <vector>

#include "transports/bare.h"
#include "transports/ucx/library.h"
#include "transports/ucx/link.h"

namespace gradrail::ucx {

class UcxBare final : public Bare {
 public:
  // The worker and the buffers, not yet connected. Errors: those of Worker.
  [[nodiscard]] static Result<std::unique_ptr<UcxBare>> make(const Peer& peer, const BareOptions& options);
  ~UcxBare() override;

  // To be said to the peer, and what was agreed before is void; then what that said. Errors: refused, bad_usage, those
  // of Link::open().
  [[nodiscard]] Result<Bytes> introduce();
  [[nodiscard]] Result<void> connect(std::span<const std::byte> introduction);
  [[nodiscard]] Result<bool> reached();

  Result<void> post(std::size_t pair, std::size_t bytes, bool last) override;
  Result<void> poll() override;
  Result<void> poll_until(std::uint64_t received, unsigned looks) override;
  Result<void> poll_until_written(std::size_t bytes, std::byte value, unsigned looks) override;
  bool settled() override;
  Result<Bytes> hear(Deadline deadline) override;

 private:
  UcxBare(const Peer& peer, const BareOptions& options, std::unique_ptr<Worker> worker);
  [[nodiscard]] Result<void> create();
  [[nodiscard]] Result<void> post_receives();
  void cancel_receives();
  void drop();  // what was agreed with the peer
  [[nodiscard]] tl::unexpected<Error> broke(ucs_status_t status);
  struct Receive {
    UcxBare* of = nullptr;
    void* request = nullptr;  // UCX's, while it is posted
  };
  static void ended(void* request, ucs_status_t status, void* bare);
  static void took(void* request, ucs_status_t status, const ucp_tag_recv_info_t* info, void* receive);

  BareOptions options_;
  std::unique_ptr<Worker> worker_;
  ucp_mem_h out_ = nullptr, in_ = nullptr;
  Introduction own_;
  std::unique_ptr<Link> link_;
  ucp_rkey_h key_ = nullptr;
  std::uint64_t there_ = 0;  // the peer's buffer
  ucp_request_param_t sending_{}, receiving_{};
  std::vector<Receive> receives_;
  std::vector<Receive*> idle_;  // of them, those to be posted
  void* flush_ = nullptr;
  ucs_status_t failure_ = UCS_OK;
};

}  // namespace gradrail::ucx
