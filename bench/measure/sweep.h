// The sweep: every combination of the axes, as blocks of cases measured against each other. All ranks run it together
// with the same options; the listener is rank 0's alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/block.h"
#include "bench/measure/buffers.h"
#include "bench/measure/link.h"
#include "bench/measure/placement.h"
#include "bench/measure/selectors.h"
#include "collectives/exec/communicator.h"
#include "collectives/select/table.h"
#include "results/record.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct Topology {
  int hosts = 0;  // 0: the real ones
  int ranks_per_host = 0;
};

struct TransportPair {
  std::string inner;  // between ranks of one host
  std::string outer;  // between hosts; empty: see CommunicatorOptions
};

struct SweepOptions {
  std::vector<Collective> collectives{Collective::allreduce};
  std::vector<std::string> algorithms{"all"};  // "all", "auto", or names as parse_algorithm() reads them
  std::vector<TransportPair> transports{{"shm", "tcp"}};
  std::vector<Topology> topologies{{}};
  std::vector<std::int64_t> sizes;  // bytes of the collective's data
  std::vector<Type> types{Type::f32};
  std::vector<ReduceOp> ops{ReduceOp::sum};
  std::vector<std::string> codecs{"none"};  // "none", "auto", or names as make_codec() reads them
  CodecWhere codec_where = CodecWhere::everywhere;
  double error_budget = 0;  // of codec "auto", one of `codecs`: what answers auto chooses one within it, or none
  int root = 0;
  bool in_place = false;
  BufferKind buffers = BufferKind::plain;
  bool registered_too = false;  // every case once more, in the same block, on registered buffers
  Cache cache = Cache::hot;
  int lanes = 0;  // 0: by the algorithm's tuning
  int pieces = 0;
  int connections = 1;  // tcp: sockets a pipe
  std::string verbs;    // Settings::verbs
  bool trace = false;
  std::vector<int> cores;            // of rank 0's host, for probing the machine; empty: those that rank 0 may use
  Bind bind = Bind::none;            // in force on rank 0
  std::vector<int> cpus;             // by rank, where the launcher's ranks are bound
  std::vector<std::string> against;  // other libraries to measure beside ours; ranks of one host only
  std::string runner_folder;         // where their programs lie
  MeasureRules rules;
  std::shared_ptr<const DecisionTable> table;  // for auto; null: the cost model, as everywhere the table says nothing
  TableTexts table_texts;
};

// Told of results as they come. An error ends the sweep.
class SweepListener {
 public:
  virtual ~SweepListener() = default;
  // There is memory for what was asked for; measuring begins.
  [[nodiscard]] virtual Result<void> begin() = 0;
  // All points of a block: one case by several algorithms. Those that could not be run carry an error.
  [[nodiscard]] virtual Result<void> block(std::span<const Point> points) = 0;
  // The steps of one call of the point, by rank, in microseconds since the call began.
  struct RankStep {
    int rank = 0;
    int lane = 0;
    std::string name;  // StepTime::name
    int phase = -1;    // StepTime::phase
    int step = -1;     // of a plan
    int peer = -1;
    std::int64_t bytes = 0;
    double start_us = 0;
    double duration_us = 0;
  };
  [[nodiscard]] virtual Result<void> steps(const Point& point, std::span<const RankStep> steps) = 0;
  // The ranks are connected by a pair of transports, the links are measured, and this is what answers auto.
  virtual void group(const Communicator& group, const LinkCalibration& links, const Selector& selector) = 0;
  // Another library's ranks were started, or why not.
  virtual void peer(const PeerRecord& peer) = 0;
  // What is measured next, and how much of the whole is done.
  virtual void next(double fraction_done, const std::string& what) = 0;
  // What bare sockets took, around the block of this case, for the bytes that it must send over sockets: `bytes` a
  // rank.
  virtual void bare_sockets(const Point& of, std::uint64_t bytes, double us) = 0;
  // What the machine could do around a block.
  virtual void limits(const Limits& limits) = 0;
};

// Errors: the first failure of a communicator, the bootstrap or the listener; everything told to the listener before
// stays true.
[[nodiscard]] Result<void> run_sweep(Bootstrap& bootstrap, const SweepOptions& options, SweepListener* listener);

// "1x4"
[[nodiscard]] std::string to_string(const Topology& topology);

}  // namespace gradrail
