// A program bound to a count, a type and the endpoints of this rank: chunks have become byte offsets, peers channels,
// and `after` indices counts of completed steps. No addresses: the same binding serves any buffers.
//
// Binding is where fusion happens. Consecutive steps that receive into one run (each adding to it) and then send that
// run become one stream: block by block, while it is in cache, all inputs are combined straight from where they arrived
// and written to the result and into the outgoing messages. A lone recv_reduce is a stream without outputs.
//
// What is sent is fused only where that saves traffic. From plain memory it does where the bytes must be copied out of
// it anyhow, not where the peer will read them there (Endpoint::attached_from()). From memory that peers reach
// themselves it costs a write for nothing. But where a sum goes back to just those who gave to it, they want it in
// memory of their own, have long posted it, and we may be able to write it there while it is in cache.
//
// A message from plain memory that its receiver answers with what it computed from it (Planner::answers), over a
// transport that copies plain memory anyhow, is staged: copied into scratch, which peers reach, sent from there, and
// its answer received there and copied out. So the peer reads and overwrites the same lines of memory, as if the
// caller's had been reached itself; through slots they would be others each way, which are fetched to be written. A few
// pieces of scratch serve in turn, so that they stay in cache. It is up to each rank: the messages are the same either
// way.
//
// Two ranks that each send all they have and add what they get, in place, need scratch where the peer reads our memory
// itself: neither may write what the other has not read. Where what is sent is copied out first, they need none: the
// send, the recv_reduce into scratch and the copy back become one exchange, which takes what comes as far as its own
// has left. That ends because the other side, by its plan, receives without waiting for its sends.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "collectives/exec/channel.h"
#include "collectives/exec/kernels/reduce.h"
#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

inline constexpr std::size_t k_not_staged = SIZE_MAX;

struct BoundStep {
  enum class Kind : std::uint8_t { send, recv, stream, exchange, reduce, copy };
  Kind kind = Kind::send;
  bool reduces = false;     // stream: combines (else it forwards a copy)
  bool writes_all = false;  // stream: writes the outputs in the pass that makes the result (else copies it to them)
  Store from_store = Store::in;
  Store to_store = Store::out;
  std::uint16_t inputs = 0;    // stream: channels it receives from; recv: 1
  std::uint16_t outputs = 0;   // stream: channels it sends to; send: 1
  std::size_t around = 0;      // stream: of the result and then its outputs, so many are written around the caches
  std::uint32_t channels = 0;  // index of the first of them in BoundProgram::channels, inputs first
  std::uint32_t state = 0;     // stream: index into an execution's stream states
  std::uint32_t outs = 0;      // stream: index of its first output in an execution's output states
  std::size_t from = 0;        // byte offsets into the stores
  std::size_t to = 0;
  std::size_t bytes = 0;              // of the run, never 0
  std::size_t staged = k_not_staged;  // send, recv: where in scratch the message is copied to first, or out of at last
  std::uint32_t need_done = 0;        // receives and local steps of the lane that must be complete before this starts
  std::uint32_t need_sent = 0;        // sends of the lane likewise
  std::int32_t step = 0;              // first program step it stands for
};

struct BoundProgram {
  std::vector<std::vector<BoundStep>> lanes;
  std::vector<Channel*> channels;      // by use, see BoundStep
  std::vector<Channel*> each_channel;  // once
  std::size_t elements = 0;            // of the data
  std::size_t element_bytes = 0;
  std::size_t out_bytes = 0;  // of this rank's output, 0 if it has none
  std::size_t in_bytes = 0;
  std::size_t scratch_bytes = 0;
  bool stages = false;        // there are staged messages; what streams pass on goes where the peers staged theirs
  std::uint32_t streams = 0;  // stream states an execution needs
  std::uint32_t stream_outputs = 0;
  std::uint32_t widest = 0;  // most inputs + outputs of a stream
  int divide_by = 0;         // avg: what the output is divided by at the end, else 0
  ReduceFn reduce = nullptr;
  ReduceManyFn reduce_many = nullptr;
  DivideFn divide = nullptr;
  Op op_of(std::int32_t step) const { return ops[static_cast<std::size_t>(step)]; }
  std::vector<Op> ops;  // of the program's steps, for traces
};

// Channels that a program talks on; the communicator opens them before binding.
struct ChannelKey {
  int peer = 0;
  int lane = 0;
  friend auto operator<=>(const ChannelKey&, const ChannelKey&) = default;
};
[[nodiscard]] std::vector<ChannelKey> channels_of(const Program& program);

// What a binding goes by besides the program.
struct BindOptions {
  bool direct_out = false;  // peers reach the output's memory themselves (Region::direct()); scratch's they always do
  bool answers = false;     // Planner::answers
  bool past_cache = false;  // all ranks' buffers of the call together are more than the host's last cache holds
};

// `count`: elements of the data for allreduce, broadcast, reduce and send-recv; of one rank's block for the others.
[[nodiscard]] BoundProgram bind(const Program& program, std::uint64_t count, Type type, ReduceOp op,
                                const BindOptions& options, const std::function<Channel*(ChannelKey)>& channel);

}  // namespace gradrail
