// The front door: a group of ranks that runs collectives together. It owns one transport for peers inside the host and
// one for those on other hosts, the channels opened over them, the plans bound so far, and scratch memory.
//
// A call is started, then tested or waited for; several may be in flight. All ranks start the same calls in the same
// order, with the same collective, count, type, operation, root and algorithm, and where that is "auto" with memory of
// the same kind. Nothing is allocated and no connection is made once a call of the same kind has run before. Every wait
// has a deadline. After one failure the communicator is poisoned: every later call is refused with the first failure.
//
// Belongs to one thread. Memory made by it must be gone before it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/exec/coding.h"
#include "collectives/exec/execution.h"
#include "collectives/exec/memory.h"
#include "collectives/plan/planner.h"
#include "collectives/select/selector.h"
#include "transports/bootstrap.h"
#include "transports/settings.h"

namespace gradrail {

struct CommunicatorOptions {
  std::string inner = "shm";  // transport between ranks of one host
  // Transport between hosts; not opened where there is one host. Empty: the one inside, or tcp where that reaches no
  // other host and there really are several.
  std::string outer;
  int ranks_per_host = 0;  // groups ranks into hosts of so many (a topology to try out); 0: the real hosts
  Settings settings;       // rank, ranks, secret and listen_host are filled in by create()
  int in_flight = 1;       // calls that may be in flight at once, 1..4; each has channels of its own
  std::shared_ptr<const Selector> selector;  // answers "auto"; null: the cost model's defaults
  // Put around every transport that is made, where it is given: tests make transports fail with it.
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)> around;
};

struct Call {
  Collective collective = Collective::allreduce;
  MemoryView in;  // in place: the same memory as `out`, on the collective's data coordinates (program.h)
  MemoryView out;
  // Elements: of the data for allreduce, broadcast, reduce and send-recv; of one rank's block for the others.
  std::uint64_t count = 0;
  Type type = Type::f32;
  ReduceOp op = ReduceOp::sum;
  int root = 0;
  bool in_place = false;
  std::string_view algorithm = "auto";
  int lanes = 0;  // 0: what the selector or the defaults say
  int pieces = 0;
  // float32 data of allreduce, reduce-scatter and all-gather, summed or averaged, may be encoded; never, unless this
  // names a codec or an error that the result may have.
  Coding coding = {};
};

class Communicator {
 public:
  struct Operation {
    std::uint64_t number = 0;
  };

  // Two halves, for callers that carry the addresses themselves: open() makes this rank reachable, meet() takes
  // everyone's address(), by rank. create() does both over the bootstrap.
  [[nodiscard]] static Result<std::unique_ptr<Communicator>> open(const CommunicatorOptions& options,
                                                                  std::span<const Member> members, int rank);
  [[nodiscard]] const Bytes& address() const { return address_; }
  [[nodiscard]] Result<void> meet(std::span<const Bytes> addresses);
  [[nodiscard]] static Result<std::unique_ptr<Communicator>> create(Bootstrap& bootstrap, CommunicatorOptions options,
                                                                    Deadline deadline);
  ~Communicator();

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int ranks() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] int hosts() const { return hosts_; }
  // 1 where hosts are not equal blocks of consecutive ranks: plans then see no hosts.
  [[nodiscard]] int ranks_per_host() const { return ranks_per_host_; }
  [[nodiscard]] const std::string& transport_name() const { return transport_name_; }  // "shm", "shm+tcp"
  // For people: what the transports chose on this rank and why, a line for each that had a choice.
  [[nodiscard]] std::vector<std::string> describe_transports() const;
  [[nodiscard]] int ranks_here() const { return static_cast<int>(neighbours_.size()); }  // on this real host
  [[nodiscard]] int cores() const { return cores_; }       // that the ranks of this host may use, all together
  [[nodiscard]] bool crowded() const { return crowded_; }  // they are more than these cores

  // Zeroed memory, in the form that the transports move best.
  [[nodiscard]] Result<Memory> allocate(std::size_t bytes);
  // Memory of the caller's, which must stay as long as the result.
  [[nodiscard]] Result<Memory> adopt(std::span<std::byte> bytes);

  // Errors: bad_usage (unknown algorithm, memory too small), unsupported (the algorithm's own refusal), and whatever
  // opening a channel for the first time may meet. `deadline` bounds that, and waiting for a free place in flight.
  [[nodiscard]] Result<Operation> start(const Call& call, Deadline deadline);
  // Drives everything in flight a little; true once the operation is complete.
  [[nodiscard]] Result<bool> test(Operation operation);
  [[nodiscard]] Result<void> wait(Operation operation, Deadline deadline);
  // start and wait.
  [[nodiscard]] Result<void> run(const Call& call, Deadline deadline);
  // Everyone waits for everyone, over the transports.
  [[nodiscard]] Result<void> barrier(Deadline deadline);

  // Calls that are bound: a bounded number, of which those not called for longest are dropped, to be bound anew.
  [[nodiscard]] std::size_t bindings() const;
  // What a selector would be asked about the call, but for its error budget.
  [[nodiscard]] Question question_of(const Call& call) const;
  // What the call comes to, binding it if it was not yet. Errors as start().
  [[nodiscard]] Result<Ran> resolve(const Call& call, Deadline deadline);
  // Of the last call that ended of those whose data was encoded.
  [[nodiscard]] const Encoding& encoding() const { return encoding_; }
  // Drops what codecs remember of earlier calls, and the bindings of calls whose data is encoded; none may be in
  // flight.
  void forget_encodings();
  // Payload bytes sent by this rank so far, by path.
  [[nodiscard]] Traffic traffic() const;
  // Records the step times of the calls that are started from now on, with enough room reserved; null ends it.
  void trace(std::vector<StepTime>* times) { times_ = times; }

 private:
  static constexpr int k_lanes_a_place = k_max_lanes / 4;  // each of up to 4 calls in flight has lanes of its own
  struct Bound;
  struct Bindings;   // everything bound so far, by what calls must share to share it
  struct Encodings;  // the same of calls whose data is encoded

  Communicator();
  [[nodiscard]] Reach reach_of(int peer) const;
  [[nodiscard]] bool spans_hosts(std::size_t real_hosts, bool has_outer) const;
  [[nodiscard]] Transport& transport_of(Reach reach) const { return *transports_[static_cast<std::size_t>(reach)]; }
  [[nodiscard]] static bool direct_out(const Call& call);
  // The call's plan but for its root. Errors: bad_usage (more lanes or pieces than are possible).
  [[nodiscard]] Result<Shape> shape_of(const Call& call, const Selection& choice) const;
  [[nodiscard]] Result<Bound*> bound_for(const Call& call, std::size_t place, Deadline deadline);
  // The same for a call whose data is encoded: communicator_coding.cc.
  [[nodiscard]] Result<Bound*> bound_encoded(const Call& call, std::size_t place, Deadline deadline);
  // And of one that bears an error: with the codec that the selector names, if any.
  [[nodiscard]] Result<Bound*> bound_within_error(const Call& call, std::size_t place, Deadline deadline);
  [[nodiscard]] Result<std::unique_ptr<Bound>> bind_encoded(const Call& call, std::size_t place, Deadline deadline);
  [[nodiscard]] static const Error* failure_of(const Bound& bound);
  // bound_for() where an error that parts the ranks poisons, as one of starting does.
  [[nodiscard]] Result<Bound*> bound_or_poisoned(const Call& call, std::size_t place, Deadline deadline);
  void drop_oldest_binding();
  [[nodiscard]] Result<void> open_channels(std::span<const ChannelKey> keys, Deadline deadline);
  // The board of this place in flight, if the program can be carried out on one.
  [[nodiscard]] Result<Board*> board_for(const Program& program, std::uint64_t bytes, std::size_t place,
                                         Deadline deadline);
  [[nodiscard]] Result<void> finish_calls(Deadline deadline);
  [[nodiscard]] Result<void> check_memory(const Call& call, const BoundProgram& program) const;
  bool progress();
  [[nodiscard]] Result<void> wait_for(std::size_t place, Deadline deadline);
  void complete(std::size_t place);
  // Whether all that the call waits for now have other cores than this rank, and so may be running.
  [[nodiscard]] bool awaits_other_cores(const Bound& bound) const;
  [[nodiscard]] tl::unexpected<Error> poison(Error error);
  [[nodiscard]] Error overdue(std::size_t place) const;
  [[nodiscard]] std::string who(int peer) const;

  struct Place {             // a call in flight
    Bound* bound = nullptr;  // null when free
    std::uint64_t number = 0;
    std::byte* out = nullptr;
    Memory scratch;
    std::unique_ptr<Board> board;  // opened at the first need
  };

  int rank_ = 0;
  int hosts_ = 1;
  int ranks_per_host_ = 1;
  int in_flight_ = 1;
  std::uint64_t cache_bytes_ = 0;  // of the last cache of the core we run on, 0 if unknown
  bool crowded_ = false;  // more ranks than cores on this host: give the core away as soon as there is nothing to do
  std::vector<Member> members_;
  std::vector<int> host_of_;
  std::vector<int> neighbours_;  // ranks on this real host, this one included
  int cores_ = 1;
  std::vector<int> core_of_;  // by rank: the one that it is bound to; -1 if it is not, or is on another host
  std::string transport_name_;
  Bytes address_;
  std::shared_ptr<const Selector> selector_;
  std::array<std::unique_ptr<Transport>, k_reaches> transports_;
  std::vector<std::array<Address, k_reaches>> addresses_;
  std::map<ChannelKey, std::unique_ptr<Channel>> channels_;
  std::unique_ptr<Bindings> bindings_;
  std::unique_ptr<Encodings> encodings_;
  Encoding encoding_;
  std::vector<Place> places_;
  std::uint64_t started_ = 0;
  std::vector<StepTime>* times_ = nullptr;
  Memory barrier_memory_;
  std::optional<Error> failure_;
};

}  // namespace gradrail
