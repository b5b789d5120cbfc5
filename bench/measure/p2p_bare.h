// One end of a pair that is measured over bare operations (transports/bare.h), as perftest and ucx_perftest do:
//
// latency    write: a ping-pong in which each side polls the last byte of its memory (ib_write_lat, ucp_put_lat); send:
//            one in which each polls its completion queue (ib_send_lat, tag_lat); a sample is half the time from one
//            ping to the next. read: one read after the other, and a sample is a whole one (ib_read_lat, ucp_get)
// bandwidth  the first rank keeps `depth` operations outstanding on each queue pair; from the first post to the
//            completion of the last, which says that the peer's device has it, or a flush after it (ib_write_bw,
//            ib_send_bw, ib_read_bw, tag_bw, ucp_put_bw)
// bidirectional: the same both ways at once, and the slower side's time.
//
// Nobody gives its core away while it waits, unless the ranks are more than the cores: a device of software works on
// the sender's core. What the two have to say besides goes over a socket.
#pragma once

#include <memory>
#include <string>

#include "bench/measure/p2p_pair.h"
#include "transports/bare.h"

namespace gradrail {

class BareEnd final : public PairEnd {
 public:
  // Collective of the two. `bare` was opened by both with the same options.
  BareEnd(std::unique_ptr<Bare> bare, Operation operation, const Peer& peer, bool first, bool crowded);

  Result<std::vector<double>> run(const Load& load, Deadline deadline) override;
  Result<std::int64_t> check(std::size_t bytes, std::uint64_t seed, Deadline deadline) override;
  [[nodiscard]] Traffic traffic() const override;

 private:
  [[nodiscard]] Result<void> meet(Deadline deadline);
  // Says a number and hears the peer's.
  [[nodiscard]] Result<double> exchange(double mine, Deadline deadline);
  template <class Done>
  [[nodiscard]] Result<void> until(Deadline deadline, bool polls, const Done& done);
  [[nodiscard]] Result<void> post(std::size_t pair, std::size_t bytes, bool last, Deadline deadline);
  [[nodiscard]] Result<void> drain(Deadline deadline);
  [[nodiscard]] Result<void> settle(Deadline deadline);
  [[nodiscard]] Result<void> await(std::uint64_t received, Deadline deadline);
  [[nodiscard]] bool all_done() const;
  [[nodiscard]] Result<std::vector<double>> ping(const Load& load, Deadline deadline);
  [[nodiscard]] Result<std::vector<double>> reads(const Load& load, Deadline deadline);
  [[nodiscard]] Result<std::vector<double>> stream(const Load& load, bool sends, bool receives, Deadline deadline);
  [[nodiscard]] Result<std::int64_t> check_one(std::size_t pair, std::size_t bytes, std::uint64_t seed, bool from_here,
                                               Deadline deadline);

  std::unique_ptr<Bare> bare_;
  Operation operation_;
  std::string who_;
  int peer_;
  bool first_;
  bool crowded_;
  Traffic traffic_{};
};

}  // namespace gradrail
