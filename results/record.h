// What is kept of a measurement: plain values, one for each kind of line in a results file (results/schema.json is the
// binding description; store.h writes and reads it). A file holds one Run first, then Points, Limits, Choices,
// PeerRecords and Comparisons in the order in which they came to be known. Everything is text and numbers: this header
// knows no transport, no algorithm and no JSON library. A key added later becomes a std::optional here, so that older
// files still read; readers skip keys and kinds that they do not know. Units are in the names; GB/s are decimal; sizes
// are bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace gradrail {

inline constexpr int k_record_schema = 1;

// Described from an allow-list: no environment, no addresses, no account names. Zero or empty: not known.
struct Machine {
  std::string hostname;
  std::string cpu_model;
  int cores = 0;  // that this process may run on
  int sockets = 0;
  int numa_nodes = 0;
  std::int64_t l1d_bytes = 0;  // one core's
  std::int64_t l2_bytes = 0;
  std::int64_t l3_bytes = 0;  // one cache, shared by its cores
  std::int64_t memory_bytes = 0;
  std::string kernel;
  std::string os;
  std::string virtualisation;  // "none", "kvm", "docker", ...
  std::string governor;        // of cpu0's frequency
  std::string thp;             // transparent huge pages: "always", "madvise", "never"
  std::string simd;            // the instruction set that the reduce kernels run with: "AVX3"
};

struct Library {
  std::string name;
  std::string version;
};

struct Build {
  std::string version;
  std::string commit;  // "-modified" at its end if the tree had changes
  std::string type;    // "Release"
  std::string compiler;
  std::string flags;
  std::string sanitize;  // empty if none; figures of a sanitized build say nothing about speed
  std::vector<Library> libraries;
};

struct Job {
  int ranks = 0;
  int hosts = 0;
  std::string origin;     // who started the ranks: "launcher", "pmix", "torchrun", "alone"
  std::vector<int> cpus;  // by rank, to which gradrail bound them; empty if it did not
};

struct Run {
  int schema = k_record_schema;
  Machine machine;  // rank 0's host
  Build build;
  Job job;
  std::vector<std::string> args;
  std::string started;  // ISO 8601 in UTC: "2025-01-31T12:00:00Z"
};

// Over samples_us, which hold per iteration the slowest rank's time (per operation, if a sample is a batch of them).
struct Timing {
  double median = 0;
  std::array<double, 2> ci = {0, 0};  // 95 % confidence interval of the median
  double p95 = 0;
  double p99 = 0;
  double min = 0;
  double max = 0;
  double cv = 0;           // standard deviation / mean, as a fraction
  std::int64_t n = 0;      // samples
  std::int64_t batch = 1;  // operations in one sample, which is their mean
};

// One case, measured. What ran is read from the run, not from the request.
struct Point {
  std::string library = "gradrail";
  std::string collective;                // "allreduce"
  std::string algorithm;                 // "ring"; what ran
  std::optional<std::string> requested;  // "auto" or an exchange, where that chose the algorithm
  std::string transport;                 // "shm"; "shm+tcp" when inside and between hosts differ
  std::string topology;                  // "1x4": hosts x ranks a host
  int ranks = 0;
  std::int64_t bytes = 0;
  std::int64_t count = 0;
  std::string type;  // "f32"
  std::string op;    // "sum"; empty where nothing is reduced
  int root = -1;     // -1 where there is none
  bool in_place = false;
  std::string buffers = "plain";      // "plain" or "registered"
  std::optional<std::string> memory;  // "huge"; none: ordinary memory of the host
  std::string cache = "hot";          // "hot", "rotate" or "flush"
  std::optional<std::string> bind;    // "core" or "none": whether each rank was bound to a core
  std::string path;                   // "zero-copy", "one-copy", ...
  std::optional<std::string> via;     // what rank 0's transports chose: "verbs: mlx5_0 port 1, GID 3 ..."
  int lanes = 1;
  int chunks = 1;
  std::optional<std::int64_t> wrong;     // elements that came out wrong; none if nothing was checked
  std::string phase;                     // the machine's, as probed around the block; only points of one phase compare
  std::optional<Timing> time_us;         // none if the point could not be run or was wrong
  double algbw_gbs = 0;                  // bytes / median
  double busbw_gbs = 0;                  // algbw x factor of the collective
  std::optional<double> model_us;        // what the cost model expected
  std::optional<double> expected_gbs;    // busbw that the path carries at best, computed
  std::optional<double> expected_share;  // busbw / expected_gbs
  std::vector<double> samples_us;
  std::optional<std::string> error;  // why the point has no time

  // Of points in a run that compares codecs.
  std::optional<std::string> codec;            // "int8"; "none" where data travels as it is
  std::optional<std::string> requested_codec;  // "auto" where the codec, or none, was chosen by an error budget
  std::optional<std::string> codec_where;      // "all" or "between-hosts"
  std::optional<std::int64_t> wire_bytes;      // that the rank that sends most sends for one operation
  std::optional<double> wire_ratio;            // the same messages in float32 / wire_bytes
  std::optional<double> encode_us;             // of the median, at the rank that encodes and decodes longest
  std::optional<double> wire_us;               // the rest of the median
  std::optional<double> decode_us;
  std::optional<double> rel_l2_error;    // of the result, against float64
  std::optional<double> max_error;       // of one element, as a share of the largest exact one
  std::optional<double> break_even_gbs;  // of a link at which encoding gains nothing and costs nothing (schema.json)
  std::optional<bool> non_finite;        // true: a value was no finite number when it was encoded, or came out so
};

[[nodiscard]] inline bool is_encoded(const Point& point) { return point.codec && *point.codec != "none"; }

// What the machine can do, measured beside the points.
struct Limits {
  std::string phase;
  double core_to_core_ns = 0;  // one way, one cache line
  double memory_gbs = 0;       // bytes read + written, all cores, far beyond the caches
};

// The winner of one size.
struct Choice {
  std::string collective;
  std::string transport;
  std::string topology;
  int ranks = 0;
  std::string type;
  std::string op;  // empty where nothing is reduced
  std::int64_t bytes = 0;
  std::string algorithm;
  double margin = 1;       // runner-up's median / winner's median; below 1 if a simpler algorithm won a tie
  bool confident = false;  // the intervals part; false is a tie (or a sole contender)
  std::string runner_up;   // empty if there was none
};

// Another library that was measured beside ours, in one configuration: its points have this library and, as their
// algorithm, this configuration.
struct PeerRecord {
  std::string library;
  std::string configuration;
  std::string transport;  // of ours that it is compared with
  int ranks = 0;
  std::string version;
  std::string command;               // how its ranks were started, names without folders
  std::string environment;           // what was set for them: "NAME=value NAME=value"
  std::optional<std::string> error;  // why it could not be started
};

// Ours under auto against the best of the others at one size.
struct Comparison {
  std::string collective;
  std::string transport;
  std::string topology;
  int ranks = 0;
  std::string type;
  std::string op;  // empty where nothing is reduced
  std::int64_t bytes = 0;
  bool in_place = false;
  std::string buffers;  // ours; the peer's are plain
  std::string cache;
  std::string phase;
  std::string algorithm;  // what auto chose
  double ours_us = 0;     // medians
  std::string peer;       // library
  std::string configuration;
  double peer_us = 0;
  double ratio = 1;                   // peer_us / ours_us: above 1 where ours is faster
  std::array<double, 2> ci = {0, 0};  // 95 % interval of the ratio
};

// One test between two ranks. time_us: for latency half the round trip (of a read the whole), a sample each; otherwise
// the time of all messages of a round divided by their number (each way), a sample a round.
struct P2pPoint {
  std::string test;                      // "latency", "bandwidth", "bidirectional" or "message-rate"
  std::string transport;                 // "verbs"
  std::optional<std::string> operation;  // "write", "send" or "read" of the device, instead of the transport's pipe
  int from = 0;
  int to = 0;
  std::string from_host;
  std::string to_host;
  std::int64_t bytes = 0;
  int depth = 1;  // messages outstanding on a lane
  int lanes = 1;
  std::string buffers;                        // "plain" or "registered"
  std::string memory = "host";                // of both; or "huge", "cuda:1 to cuda:0"
  std::optional<std::string> memory_path;     // by which way the sender's GPU is reached, and why not by a better one
  std::optional<std::string> to_memory_path;  // the same of the receiver's
  std::optional<std::string> bind;            // "core" or "none"
  std::string path;                           // "zero-copy", ...; how the timed messages went
  std::int64_t iterations = 0;                // timed, in all rounds
  int rounds = 0;
  std::optional<std::int64_t> wrong;  // bytes that came out wrong; none if nothing was checked
  std::optional<Timing> time_us;
  double average_us = 0;
  double stdev_us = 0;
  double p999_us = 0;
  double bandwidth_gbs = 0;              // by the median; both directions together in bidirectional
  double message_mpps = 0;               // million messages a second
  std::optional<double> expected_gbs;    // what the path carries at best, computed
  std::optional<double> expected_share;  // bandwidth_gbs / expected_gbs
  std::optional<double> z_score;         // robust, of the median among all pairs; above 0 is slower
  std::vector<double> samples_us;
  std::optional<std::string> error;
};

// "verbs", or "verbs write" where an operation took the place of the pipe.
[[nodiscard]] inline std::string way_of(const P2pPoint& point) {
  return point.operation ? point.transport + " " + *point.operation : point.transport;
}

using Record = std::variant<Run, Point, Limits, Choice, PeerRecord, Comparison, P2pPoint>;

}  // namespace gradrail
