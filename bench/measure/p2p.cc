#include "bench/measure/p2p.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include "bench/measure/p2p_bare.h"
#include "bench/measure/patience.h"
#include "bench/measure/statistics.h"
#include "transports/base/cores.h"
#include "transports/settings.h"

namespace gradrail {

namespace {

constexpr int k_visits = 3;  // to each pair of a matrix
constexpr std::int64_t k_trial_messages = 16;
constexpr std::int64_t k_least_round_trips = 10;
constexpr std::int64_t k_most_round_trips = 5000;  // a round: samples are gathered
constexpr std::int64_t k_most_messages = 1'000'000;
constexpr int k_ping_depth = 1;  // entries of a ping-pong's queues
constexpr int k_ping_receives = 32;
constexpr double k_slower = 20;  // than in the trial, and still waited for

struct PairOfRanks {
  int from = 0;
  int to = 0;
};

// Over a transport's pipe, or by one of its operations.
struct Way {
  std::size_t transport = 0;
  std::optional<Operation> operation;
};

// One way between two ranks, under one test and size; rank 0's.
struct Cell {
  std::size_t way = 0;
  PairOfRanks pair;
  P2pPoint point;
};

// What the first rank of a pair has to say.
struct Trial {
  std::int64_t wrong = 0;
  std::int64_t iterations = 0;
  double estimate_us = 0;  // of one
};

Bytes pack(const Trial& trial) {
  ByteWriter writer;
  writer.put(trial.wrong);
  writer.put(trial.iterations);
  writer.put(trial.estimate_us);
  return std::move(writer).take();
}

// What a round came to: the samples and traffic of the first of the two, and how its memory was reached.
Bytes pack(const std::vector<double>& samples, const Traffic& traffic, const std::string& memory_path) {
  ByteWriter writer;
  writer.put_string(memory_path);
  writer.put_bytes(std::as_bytes(std::span(traffic)));
  writer.put(static_cast<std::uint32_t>(samples.size()));
  for (const double sample : samples) writer.put(sample);
  return std::move(writer).take();
}

bool one_way_measures_both(P2pTest test) { return test == P2pTest::latency || test == P2pTest::bidirectional; }

std::string path_of(const Traffic& traffic) {
  std::string out;
  for (std::size_t path = 0; path < traffic.size(); ++path)
    if (traffic[path] > 0) out += fmt::format("{}{}", out.empty() ? "" : "+", to_string(static_cast<Path>(path)));
  return out;
}

void add_figures(P2pPoint& point, P2pTest test) {
  if (point.samples_us.empty()) return;
  std::vector<double> sorted = point.samples_us;
  std::sort(sorted.begin(), sorted.end());
  point.time_us = summarise(sorted, test == P2pTest::latency ? 1 : point.iterations / point.rounds);
  const auto n = static_cast<double>(sorted.size());
  point.average_us = std::accumulate(sorted.begin(), sorted.end(), 0.0) / n;
  point.stdev_us = point.time_us->cv * point.average_us;
  point.p999_us = quantile(sorted, 0.999);
  if (test == P2pTest::latency || point.time_us->median <= 0) return;
  const double both = test == P2pTest::bidirectional ? 2 : 1;
  point.bandwidth_gbs = both * static_cast<double>(point.bytes) / point.time_us->median * 1e-3;
  point.message_mpps = both / point.time_us->median;
}

class P2p {
 public:
  P2p(Bootstrap& bootstrap, const P2pOptions& options, P2pListener* listener)
      : bootstrap_(bootstrap), options_(options), listener_(listener) {}

  Result<void> run() {
    GRADRAIL_TRY(open());
    std::vector<PairOfRanks> pairs = pairs_of();
    double done = 0;
    double all = 0;
    for (const P2pTest test : options_.tests) all += static_cast<double>(sizes_of(test).size());
    for (const P2pTest test : options_.tests) {
      for (const std::int64_t bytes : sizes_of(test)) {
        GRADRAIL_TRY(measure(test, bytes, pairs, done, all));
        done += 1;
      }
    }
    close();
    // Nobody leaves while another still says good-bye.
    return bootstrap_.barrier(patience(0));
  }

  ~P2p() { close(); }
  P2p(const P2p&) = delete;
  P2p& operator=(const P2p&) = delete;

 private:
  [[nodiscard]] std::vector<std::int64_t> sizes_of(P2pTest test) const {
    return options_.sizes.empty() ? usual_sizes(test, options_.matrix) : options_.sizes;
  }
  [[nodiscard]] std::size_t most_bytes() const {
    std::int64_t most = 8;
    for (const P2pTest test : options_.tests)
      for (const std::int64_t bytes : sizes_of(test)) most = std::max(most, bytes);
    return static_cast<std::size_t>(most);
  }
  // How long a step may take that was estimated to take so long.
  [[nodiscard]] Deadline patience(double estimate_us) const {
    return Deadline::after(control_wait(options_.timeout) + Seconds(k_slower * estimate_us * 1e-6));
  }
  // Those that only listen wait a little longer, so that who failed is named by who knows why.
  [[nodiscard]] Deadline listeners_patience(double estimate_us) const {
    return Deadline::after(control_wait(options_.timeout) * 2 + Seconds(k_slower * estimate_us * 1e-6));
  }

  std::vector<PairOfRanks> pairs_of() const {
    if (!options_.matrix) return {{options_.from, options_.to}};
    std::vector<PairOfRanks> out;
    for (int from = 0; from < bootstrap_.ranks(); ++from)
      for (int to = 0; to < bootstrap_.ranks(); ++to)
        if (from != to) out.push_back({from, to});
    return out;
  }

  // Makes the transports, refuses what they cannot, and gathers their addresses.
  Result<void> open() {
    const auto& members = bootstrap_.members();
    const Member& self = members[static_cast<std::size_t>(bootstrap_.rank())];
    const auto before = std::count_if(members.begin(), members.begin() + bootstrap_.rank(),
                                      [&](const Member& other) { return other.host == self.host; });
    GRADRAIL_ASSIGN(memory_, with_gpu(options_.memory, static_cast<std::size_t>(before)));
    ByteWriter mine;
    mine.put_string(to_text(memory_));
    std::vector<std::string> described;
    for (const std::string& name : options_.transports) {
      Settings settings;
      settings.rank = bootstrap_.rank();
      settings.ranks = bootstrap_.ranks();
      settings.secret = bootstrap_.secret();
      settings.listen_host = self.listen_host;
      settings.verbs = options_.verbs;
      settings.connections = options_.connections;
      GRADRAIL_ASSIGN(auto transport, make_transport(name, settings));
      GRADRAIL_TRY(check_use(*transport));
      GRADRAIL_ASSIGN(transport, reaching(std::move(transport), memory_));
      GRADRAIL_ASSIGN(const Address address, transport->listen());
      mine.put_block(address);
      if (const std::string text = transport->describe(); !text.empty()) described.push_back(name + ": " + text);
      transports_.push_back(std::move(transport));
    }
    const std::vector<int> usable = usable_cores();
    mine.put_block(std::as_bytes(std::span(usable)));
    GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(std::move(mine).take(), patience(0)));
    std::set<int> cores;  // that the ranks of this host may use, all together
    std::ptrdiff_t here = 0;
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      ByteReader reader(all[rank]);
      memories_.emplace_back(reader.get_string());
      auto& addresses = addresses_.emplace_back();
      for (std::size_t t = 0; t < transports_.size(); ++t) {
        const auto block = reader.get_block();
        addresses.emplace_back(block.begin(), block.end());
      }
      const auto block = reader.get_block();
      if (members[rank].host == self.host) {
        std::vector<int> its(block.size() / sizeof(int));
        std::memcpy(its.data(), block.data(), its.size() * sizeof(int));
        cores.insert(its.begin(), its.end());
        ++here;
      }
      if (!reader.ok())
        return fail(Code::malformed, fmt::format("the addresses sent by rank {} are damaged", rank),
                    static_cast<int>(rank));
    }
    // Only two are awake at a time.
    crowded_ = std::ssize(cores) < std::min<std::ptrdiff_t>(here, 2);
    for (std::size_t t = 0; t < transports_.size(); ++t)
      for (const auto& operation : options_.operations) ways_.push_back({t, operation});
    ends_.resize(2 * ways_.size());
    return listener_ != nullptr ? listener_->begin(described) : Result<void>();
  }

  Result<void> check_use(const Transport& transport) const {
    const Traits& traits = transport.traits();
    const bool pipes = std::count(options_.operations.begin(), options_.operations.end(), std::nullopt) > 0;
    if (pipes && options_.depth > static_cast<int>(traits.depth))
      return fail(Code::bad_usage,
                  fmt::format("{} keeps at most {} messages outstanding on a lane; --queue-depth {} is more",
                              traits.name, traits.depth, options_.depth));
    if (!traits.same_host_only) return {};
    for (const PairOfRanks& pair : pairs_of()) {
      const Member& from = bootstrap_.members()[static_cast<std::size_t>(pair.from)];
      const Member& to = bootstrap_.members()[static_cast<std::size_t>(pair.to)];
      if (from.host != to.host)
        return fail(
            Code::bad_usage,
            fmt::format("transport {} reaches only ranks of one host, and ranks {} and {} are on {} and {}; name "
                        "another one (--transport tcp)",
                        traits.name, pair.from, pair.to, from.host, to.host));
    }
    return {};
  }

  [[nodiscard]] int depth_of(const Way& way) const {
    if (options_.depth > 0) return options_.depth;
    return way.operation ? k_bare_depth : static_cast<int>(transports_[way.transport]->traits().depth);
  }

  Result<void> measure(P2pTest test, std::int64_t bytes, std::vector<PairOfRanks> pairs, double done, double all) {
    if (one_way_measures_both(test))
      std::erase_if(pairs, [&](const PairOfRanks& pair) { return options_.matrix && pair.from > pair.to; });
    std::vector<Cell> cells;
    for (const PairOfRanks& pair : pairs)
      for (std::size_t w = 0; w < ways_.size(); ++w) cells.push_back({w, pair, point_of(test, bytes, pair, ways_[w])});
    const int visits = options_.matrix ? std::min(k_visits, options_.rounds) : 1;
    double visited = 0;
    for (int visit = 0; visit < visits; ++visit) {
      const int rounds = options_.rounds / visits + (visit < options_.rounds % visits ? 1 : 0);
      std::shuffle(pairs.begin(), pairs.end(), random_);
      for (const PairOfRanks& pair : pairs) {
        if (listener_ != nullptr)
          listener_->next((done + visited / static_cast<double>(pairs.size() * static_cast<std::size_t>(visits))) / all,
                          fmt::format("{} {} B, rank {} to {}", to_string(test), bytes, pair.from, pair.to));
        GRADRAIL_TRY(visit_pair(test, bytes, pair, rounds, cells));
        visited += 1;
      }
    }
    if (listener_ == nullptr) return {};
    std::vector<P2pPoint> points;
    for (Cell& cell : cells) {
      add_figures(cell.point, test);
      points.push_back(std::move(cell.point));
    }
    score_pairs(points);
    return listener_->results(points);
  }

  P2pPoint point_of(P2pTest test, std::int64_t bytes, const PairOfRanks& pair, const Way& way) const {
    P2pPoint point;
    point.test = to_string(test);
    point.transport = options_.transports[way.transport];
    if (way.operation) point.operation = to_string(*way.operation);
    point.from = pair.from;
    point.to = pair.to;
    point.from_host = bootstrap_.members()[static_cast<std::size_t>(pair.from)].host;
    point.to_host = bootstrap_.members()[static_cast<std::size_t>(pair.to)].host;
    point.bytes = bytes;
    point.depth = test == P2pTest::latency ? 1 : depth_of(way);
    point.lanes = test == P2pTest::latency ? 1 : options_.lanes;
    point.buffers = to_string(options_.buffers);
    const auto &from = memories_[static_cast<std::size_t>(pair.from)],
               &to = memories_[static_cast<std::size_t>(pair.to)];
    point.memory = from == to ? from : fmt::format("{} to {}", from, to);
    point.bind = to_string(options_.bind);
    return point;
  }

  Result<void> visit_pair(P2pTest test, std::int64_t bytes, const PairOfRanks& pair, int rounds,
                          std::vector<Cell>& cells) {
    std::vector<Trial> trials(ways_.size());
    for (std::size_t w = 0; w < ways_.size(); ++w) {
      GRADRAIL_ASSIGN(trials[w], try_out(test, bytes, pair, w));
      if (Cell* cell = cell_of(cells, pair, w)) {
        if (options_.check) cell->point.wrong = cell->point.wrong.value_or(0) + trials[w].wrong;
        if (trials[w].wrong > 0)
          cell->point.error = fmt::format("{} bytes came out wrong; this was not timed", trials[w].wrong);
      }
    }
    std::vector<std::size_t> order(ways_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (int round = 0; round < rounds; ++round) {
      std::shuffle(order.begin(), order.end(), random_);
      for (const std::size_t w : order)
        if (trials[w].wrong == 0) GRADRAIL_TRY(time_round(test, bytes, pair, w, trials[w], cell_of(cells, pair, w)));
    }
    if (options_.matrix) close();
    return {};
  }

  static Cell* cell_of(std::vector<Cell>& cells, const PairOfRanks& pair, std::size_t way) {
    const auto at = std::find_if(cells.begin(), cells.end(), [&](const Cell& cell) {
      return cell.way == way && cell.pair.from == pair.from && cell.pair.to == pair.to;
    });
    return at == cells.end() ? nullptr : &*at;
  }

  // This rank's end, connected if it was not yet; null if the rank is not of the pair. A ping-pong of operations has
  // queues of its own, as in perftest: short ones stay in cache.
  Result<PairEnd*> end_of(const PairOfRanks& pair, std::size_t w, P2pTest test) {
    const int self = bootstrap_.rank();
    if (self != pair.from && self != pair.to) return nullptr;
    const bool pings = ways_[w].operation && test == P2pTest::latency;
    auto& end = ends_[2 * w + (pings ? 1 : 0)];
    if (!end) {
      const int other = self == pair.from ? pair.to : pair.from;
      const Way& way = ways_[w];
      Transport& transport = *transports_[way.transport];
      Peer peer;
      peer.rank = other;
      peer.host = bootstrap_.members()[static_cast<std::size_t>(other)].host;
      peer.address = addresses_[static_cast<std::size_t>(other)][way.transport];
      if (way.operation) {
        BareOptions wish{*way.operation, options_.lanes, depth_of(way), most_bytes()};
        if (pings) wish.queue_pairs = 1, wish.depth = k_ping_depth, wish.receives = k_ping_receives;
        GRADRAIL_ASSIGN(auto bare, transport.open_bare(peer, wish, patience(0)));
        end = std::make_unique<BareEnd>(std::move(bare), *way.operation, peer, self == pair.from, crowded_);
      } else {
        GRADRAIL_ASSIGN(Pair made,
                        Pair::open(transport, peer, self == pair.from,
                                   {options_.lanes, most_bytes(), options_.buffers, crowded_, memory_}, patience(0)));
        end = std::make_unique<Pair>(std::move(made));
      }
    }
    return end.get();
  }

  // Checks, warms up, and estimates how many fit into the time.
  Result<Trial> try_out(P2pTest test, std::int64_t bytes, const PairOfRanks& pair, std::size_t w) {
    GRADRAIL_ASSIGN(PairEnd* const end, end_of(pair, w, test));
    Trial trial;
    const std::uint64_t seed = ++checks_ << 32;
    if (end != nullptr) {
      const auto size = static_cast<std::size_t>(bytes);
      if (options_.check) {
        GRADRAIL_ASSIGN(trial.wrong, end->check(size, seed, patience(0)));
      }
      PairEnd::Load load{test, size, std::max<std::int64_t>(1, options_.warmup), depth_of(ways_[w])};
      GRADRAIL_TRY(end->run(load, patience(0)));
      load.messages =
          test == P2pTest::latency ? k_trial_messages : std::max<std::int64_t>(k_trial_messages, load.depth);
      GRADRAIL_ASSIGN(const auto samples, end->run(load, patience(0)));
      if (!samples.empty())
        trial.estimate_us =
            median(samples) * (test == P2pTest::latency && ways_[w].operation != Operation::read ? 2 : 1);
      if (options_.check && bytes > 0) {
        GRADRAIL_ASSIGN(const auto again, end->check(size, seed + 1, patience(0)));  // after a full queue
        trial.wrong += again;
      }
      const double round_us = options_.time_per_point.count() * 1e6 / options_.rounds;
      const double fit = round_us / std::max(trial.estimate_us, 1e-3);
      trial.iterations = options_.iterations;
      if (trial.iterations == 0)
        trial.iterations =
            test == P2pTest::latency
                ? std::clamp(static_cast<std::int64_t>(fit), k_least_round_trips, k_most_round_trips)
                : std::clamp(static_cast<std::int64_t>(fit), static_cast<std::int64_t>(load.depth), k_most_messages);
    }
    GRADRAIL_ASSIGN(const auto said, bootstrap_.all_gather(pack(trial), listeners_patience(0)));
    const auto unpack = [&](int rank) -> Result<Trial> {
      ByteReader reader(said[static_cast<std::size_t>(rank)]);
      Trial out;
      out.wrong = reader.get<std::int64_t>();
      out.iterations = reader.get<std::int64_t>();
      out.estimate_us = reader.get<double>();
      if (!reader.ok()) return fail(Code::malformed, fmt::format("what rank {} said is damaged", rank), rank);
      return out;
    };
    GRADRAIL_ASSIGN(Trial first, unpack(pair.from));
    GRADRAIL_ASSIGN(const Trial second, unpack(pair.to));
    first.wrong += second.wrong;
    return first;
  }

  Result<void> time_round(P2pTest test, std::int64_t bytes, const PairOfRanks& pair, std::size_t w, const Trial& trial,
                          Cell* cell) {
    const double estimate = trial.estimate_us * static_cast<double>(trial.iterations);
    Bytes mine;
    GRADRAIL_ASSIGN(PairEnd* const end, end_of(pair, w, test));
    if (end != nullptr) {
      const Traffic before = end->traffic();
      GRADRAIL_ASSIGN(
          const auto samples,
          end->run({test, static_cast<std::size_t>(bytes), trial.iterations, depth_of(ways_[w])}, patience(estimate)));
      Traffic traffic = end->traffic();
      for (std::size_t path = 0; path < traffic.size(); ++path) traffic[path] -= before[path];
      mine = pack(samples, traffic, end->memory_path());
    }
    GRADRAIL_ASSIGN(const auto said, bootstrap_.all_gather(mine, listeners_patience(estimate)));
    if (cell == nullptr || bootstrap_.rank() != 0) return {};
    ByteReader reader(said[static_cast<std::size_t>(pair.from)]);
    ByteReader other(said[static_cast<std::size_t>(pair.to)]);
    if (const auto how = reader.get_string(); !how.empty()) cell->point.memory_path = how;
    if (const auto how = other.get_string(); !how.empty()) cell->point.to_memory_path = how;
    Traffic traffic{};
    for (std::uint64_t& path : traffic) path = reader.get<std::uint64_t>();
    const auto count = reader.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && reader.ok(); ++i) cell->point.samples_us.push_back(reader.get<double>());
    if (!reader.ok()) return fail(Code::malformed, fmt::format("rank {}'s samples are damaged", pair.from), pair.from);
    if (!other.ok()) return fail(Code::malformed, fmt::format("what rank {} said is damaged", pair.to), pair.to);
    cell->point.path = path_without_notes(traffic, bytes, trial.iterations);
    cell->point.iterations += trial.iterations;
    ++cell->point.rounds;
    return {};
  }

  // The notes with which two ranks meet are no part of what was measured: a path that carried no more than they take.
  static std::string path_without_notes(Traffic traffic, std::int64_t bytes, std::int64_t messages) {
    const std::uint64_t all = std::accumulate(traffic.begin(), traffic.end(), std::uint64_t{0});
    const auto payload = static_cast<std::uint64_t>(bytes) * static_cast<std::uint64_t>(messages);
    const std::uint64_t notes = all - std::min(all, payload);
    if (payload > notes)
      for (std::uint64_t& path : traffic)
        if (path <= notes) path = 0;
    return path_of(traffic);
  }

  void close() {
    for (auto& end : ends_) end.reset();
  }

  Bootstrap& bootstrap_;
  const P2pOptions& options_;
  P2pListener* listener_;
  std::mt19937_64 random_{20250131};  // the same on all ranks
  std::uint64_t checks_ = 0;
  bool crowded_ = false;
  MemoryWish memory_;                  // this rank's
  std::vector<std::string> memories_;  // by rank, in words
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::vector<Address>> addresses_;  // by rank and transport
  std::vector<Way> ways_;
  std::vector<std::unique_ptr<PairEnd>> ends_;  // two a way: to the rank that is measured with
};

}  // namespace

std::vector<std::int64_t> usual_sizes(P2pTest test, bool matrix) {
  switch (test) {
    case P2pTest::latency:
      return matrix ? std::vector<std::int64_t>{8} : std::vector<std::int64_t>{8, 64, 1 << 10, 8 << 10};
    case P2pTest::message_rate: return {8};
    case P2pTest::bandwidth:
    case P2pTest::bidirectional: break;
  }
  return matrix ? std::vector<std::int64_t>{1 << 20} : std::vector<std::int64_t>{64 << 10, 1 << 20, 4 << 20};
}

void score_pairs(std::vector<P2pPoint>& points) {
  std::vector<std::string> ways;
  for (const P2pPoint& point : points)
    if (std::find(ways.begin(), ways.end(), way_of(point)) == ways.end()) ways.push_back(way_of(point));
  for (const std::string& way : ways) {
    std::vector<double> values;
    std::vector<P2pPoint*> scored;
    for (P2pPoint& point : points) {
      if (way_of(point) != way || !point.time_us) continue;
      values.push_back(point.time_us->median);
      scored.push_back(&point);
    }
    if (scored.size() < k_least_for_outliers) continue;
    const std::vector<double> scores = robust_z_scores(values);
    for (std::size_t i = 0; i < scored.size(); ++i) scored[i]->z_score = scores[i];
  }
}

Result<void> run_p2p(Bootstrap& bootstrap, const P2pOptions& options, P2pListener* listener) {
  return P2p(bootstrap, options, listener).run();
}

}  // namespace gradrail
