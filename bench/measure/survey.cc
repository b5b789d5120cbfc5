#include "bench/measure/survey.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "bench/measure/allowance.h"
#include "bench/measure/block.h"
#include "bench/measure/patience.h"
#include "bench/measure/selection_bytes.h"
#include "bench/measure/statistics.h"
#include "collectives/select/candidates.h"

namespace gradrail {

namespace {

// Where the bytes decide they are near each other: what fits into which cache, by which path messages go, and with it
// who is fastest, changes there from one power of two to the next and back again.
constexpr std::uint64_t k_sizes[] = {8,         256,     2 << 10, 8 << 10, 32 << 10, 128 << 10, 256 << 10,
                                     512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20,  16 << 20};
// Links know no caches, and an operation on the largest would take longer than all the rest. Nor may it be small: a
// switch or a shaper may let the first few hundred KiB pass faster than it can go on.
constexpr std::uint64_t k_sizes_between_hosts[] = {8,         256,       2 << 10, 8 << 10, 32 << 10,
                                                   128 << 10, 512 << 10, 2 << 20, 4 << 20};
constexpr std::uint64_t k_long_bytes = 256 << 10;  // from here on the bytes decide, and an operation takes its time
// All that are plausible are measured for a short time, and those that may be the best so many times again.
constexpr Seconds k_first_time{0.006};
constexpr Seconds k_second_time{0.01};
constexpr int k_rounds = 3;
constexpr Seconds k_again_at_a_size{0.25};  // fewer rounds where they would take longer, none where one would
constexpr double k_share_of_first_pass = 0.6;
constexpr std::size_t k_most_finalists = 5;
constexpr double k_least_operations = 15;        // of each in a block, with warming up and estimates
constexpr double k_may_be_best = 1.3;            // times the best, in the short time
constexpr double k_implausible = 4;              // times slower than the best by the model alone
constexpr double k_hopeless = 3;                 // by the times at the size before, where the bytes decide
constexpr std::uint64_t k_dear_bytes = 4 << 20;  // from here on an operation takes milliseconds
constexpr double k_hopeless_and_dear = 1.5;
constexpr double k_worth_pieces = 1.5;
constexpr std::size_t k_most_at_a_size = 16;

std::vector<std::uint64_t> sizes_around(const SurveyOptions& options, bool several_hosts) {
  const auto ladder = several_hosts ? std::span<const std::uint64_t>(k_sizes_between_hosts) : k_sizes;
  std::vector<std::uint64_t> sizes;
  for (std::size_t i = 0; i < ladder.size(); ++i) {
    const bool below = i + 1 < ladder.size() && ladder[i + 1] <= options.smallest;
    const bool above = i > 0 && ladder[i - 1] >= options.largest;
    if (!below && !above) sizes.push_back(std::min(ladder[i], options.largest));
  }
  return sizes;
}

// A block, as rank 0 has it measured.
struct Blueprint {
  std::vector<Selection> selections;
  Seconds each{};
  Pace pace{};
  Seconds most_time{0};
  int times = 1;
};

Bytes pack(const Blueprint& block) {
  ByteWriter writer;
  put(writer, block.selections);
  writer.put(block.each.count());
  put(writer, block.pace);
  writer.put(block.most_time.count());
  writer.put(block.times);
  return std::move(writer).take();
}

Result<Blueprint> unpack_blueprint(const Bytes& bytes) {
  ByteReader reader(bytes);
  Blueprint block;
  block.selections = get_selections(reader);
  block.each = Seconds(reader.get<double>());
  block.pace = get_pace(reader);
  block.most_time = Seconds(reader.get<double>());
  block.times = reader.get<int>();
  if (!reader.ok()) return fail(Code::malformed, "rank 0's list of what to measure is damaged", 0);
  return block;
}

class Survey {
 public:
  Survey(Bootstrap& bootstrap, Communicator& group, const CostModel& model, const SurveyOptions& options)
      : bootstrap_(bootstrap), group_(group), model_(model), options_(options) {}

  Result<GroupTimes> run() {
    GroupTimes times{group_.ranks(), group_.ranks_per_host(), {}, options_.in_place};
    const auto sizes = sizes_around(options_, group_.hosts() > 1);
    if (group_.ranks() < 2 || options_.collectives.empty() || sizes.empty()) return times;
    std::optional<Buffers> own;
    if (options_.memory == nullptr) {
      GRADRAIL_ASSIGN(own, Buffers::make(group_, largest_of(sizes), options_.buffers, Cache::hot));
    }
    Buffers& buffers = own ? *own : *options_.memory;
    for (const Collective collective : options_.collectives) {
      last_.clear();
      std::vector<SizeTimes> measured;
      Allowance allowance = first_allowance(collective, sizes);
      for (const std::uint64_t bytes : sizes) {
        GRADRAIL_ASSIGN(measured.emplace_back(), first_pass(buffers, collective, bytes, allowance));
      }
      GRADRAIL_TRY(measure_again(buffers, collective, measured));
      for (const SizeTimes& size : measured)
        for (const auto& [selection, seconds] : size.seconds)
          times.observations.push_back(
              {collective, selection, bytes_of(call_of(collective, size.bytes, selection)), seconds});
    }
    // Ranks other than 0 know only their own times.
    GRADRAIL_ASSIGN(const Bytes same, bootstrap_.broadcast(pack_observations(times.observations), soon()));
    GRADRAIL_ASSIGN(times.observations, unpack_observations(same));
    return times;
  }

 private:
  using Times = std::vector<std::pair<Selection, double>>;  // seconds
  struct SizeTimes {
    std::uint64_t bytes = 0;
    Times seconds;
  };

  [[nodiscard]] Deadline soon() const { return Deadline::after(control_wait(options_.timeout)); }
  [[nodiscard]] std::uint64_t largest_of(const std::vector<std::uint64_t>& sizes) const {
    return std::max(sizes.back(), sizeof(double) * static_cast<std::uint64_t>(group_.ranks()));
  }

  Call call_of(Collective collective, std::uint64_t bytes, const Selection& selection) const {
    Call call;
    call.collective = collective;
    const auto unit = size_of(call.type) * (is_blocked(collective) ? static_cast<std::uint64_t>(group_.ranks()) : 1);
    call.count = std::max<std::uint64_t>(1, bytes / unit);
    call.in_place = options_.in_place;
    call.algorithm = selection.algorithm;
    call.lanes = selection.lanes;
    call.pieces = selection.pieces;
    return call;
  }
  std::uint64_t bytes_of(const Call& call) const {
    return call.count * size_of(call.type) *
           (is_blocked(call.collective) ? static_cast<std::uint64_t>(group_.ranks()) : 1);
  }

  Question question_of(Collective collective, std::uint64_t bytes) const {
    Question question;
    question.collective = collective;
    question.bytes = bytes;
    question.ranks = group_.ranks();
    question.ranks_per_host = group_.ranks_per_host();
    question.transport = group_.transport_name();
    question.in_place = options_.in_place;
    return question;
  }

  // Rank 0's.
  Allowance first_allowance(Collective collective, const std::vector<std::uint64_t>& sizes) const {
    const auto now = [begin = Clock::now()] { return Seconds(Clock::now() - begin).count(); };
    Allowance allowance(now, [this, collective](const Selection& selection, std::int64_t bytes) {
      return predict(selection, question_of(collective, static_cast<std::uint64_t>(bytes)), model_).value_or(0);
    });
    std::vector<Allowance::Part> parts;
    for (const std::uint64_t bytes : sizes)
      parts.push_back({static_cast<std::int64_t>(bytes), rough_operation(model_, static_cast<double>(bytes))});
    allowance.begin("survey", k_share_of_first_pass * options_.most_time.count(), std::move(parts));
    return allowance;
  }

  // Rank 0's. Plain algorithms unless they are far behind; their pieces where the algorithm is near the best.
  std::vector<Selection> worth_measuring(Collective collective, std::uint64_t bytes) const {
    const Question question = question_of(collective, bytes);
    const auto list = candidates(question, {.lanes = false});
    std::vector<double> expected;
    for (const Selection& selection : list) {
      const auto seconds = predict(selection, question, model_);
      expected.push_back(seconds ? *seconds : std::numeric_limits<double>::infinity());
    }
    const double least = *std::min_element(expected.begin(), expected.end());
    std::vector<Selection> chosen;
    for (std::size_t i = 0; i < list.size() && chosen.size() < k_most_at_a_size; ++i) {
      const double before = behind({list[i].algorithm, 1, 1});
      const double hopeless = bytes >= k_dear_bytes ? k_hopeless_and_dear : k_hopeless;
      const bool plausible =
          before > 0 ? before < hopeless || bytes < k_long_bytes : expected[i] < k_implausible * least;
      const bool worth_it = list[i].pieces == 1 || (before > 0 && before < k_worth_pieces);
      if (plausible && worth_it) chosen.push_back(list[i]);
    }
    return chosen;
  }

  // Its time over the best one's at the size before; 0 if it was not measured there.
  double behind(const Selection& selection) const {
    double least = std::numeric_limits<double>::infinity();
    double own = 0;
    for (const auto& [other, seconds] : last_) {
      least = std::min(least, seconds);
      if (other == selection) own = seconds;
    }
    return own / least;
  }

  // All that are plausible at this size.
  Result<SizeTimes> first_pass(Buffers& buffers, Collective collective, std::uint64_t bytes, Allowance& allowance) {
    const auto size_bytes = static_cast<std::int64_t>(bytes);
    // Simulating many ranks takes its time.
    GRADRAIL_ASSIGN(const Bytes told, broadcast_work(bootstrap_, options_.timeout, [&] {
                      const auto all = worth_measuring(collective, bytes);
                      const auto plan = allowance.plan(size_bytes, all, k_first_time.count());
                      Blueprint block{{}, Seconds(plan.time_per_point), plan.pace, Seconds(plan.most_time)};
                      for (const std::size_t i : plan.which) block.selections.push_back(all[i]);
                      return pack(block);
                    }));
    GRADRAIL_ASSIGN(const Blueprint block, unpack_blueprint(told));
    SizeTimes size{bytes, {}};
    if (block.selections.empty()) return size;
    const auto begin = Clock::now();
    GRADRAIL_ASSIGN(size.seconds, measure(buffers, collective, bytes, block, blocks_));
    if (!size.seconds.empty()) last_ = size.seconds;
    if (bootstrap_.rank() != 0) return size;
    for (const auto& [selection, seconds] : size.seconds)
      allowance.learn(size_bytes, std::span(&selection, 1), {{seconds * 1e6}});
    allowance.took(Seconds(Clock::now() - begin).count());
    return size;
  }

  // How ranks that share cores lie on them favours one or another throughout a block, by as much as a third, and of
  // many that are about as fast the luckiest would be taken for the best. So what may be the best is measured again, in
  // blocks some time apart, and only these count.
  Result<void> measure_again(Buffers& buffers, Collective collective, std::vector<SizeTimes>& sizes) {
    const Seconds share = (1 - k_share_of_first_pass) * options_.most_time / static_cast<double>(sizes.size());
    std::vector<Blueprint> again;
    for (const SizeTimes& size : sizes) {
      // Ranks other than 0 know only their own times.
      GRADRAIL_ASSIGN(const Bytes told,
                      bootstrap_.broadcast(pack(finalists(size, std::min(k_again_at_a_size, share))), soon()));
      GRADRAIL_ASSIGN(again.emplace_back(), unpack_blueprint(told));
    }
    std::vector<std::map<std::size_t, double>> logs(sizes.size());  // of a size: sums of ln of seconds, by finalist
    for (int round = 0; round < k_rounds; ++round)
      for (std::size_t s = 0; s < sizes.size(); ++s) {
        if (round >= again[s].times) continue;
        GRADRAIL_ASSIGN(const Times times,
                        measure(buffers, collective, sizes[s].bytes, again[s], s + static_cast<std::size_t>(round)));
        for (const auto& [selection, seconds] : times) {
          const auto& all = again[s].selections;
          const auto place = std::find(all.begin(), all.end(), selection) - all.begin();
          logs[s][static_cast<std::size_t>(place)] += std::log(seconds) / again[s].times;
        }
      }
    for (std::size_t s = 0; s < sizes.size(); ++s) take_the_later(sizes[s].seconds, again[s].selections, logs[s]);
    return {};
  }

  // Times of those that were not measured again are brought to the machine as it was then.
  static void take_the_later(Times& times, const std::vector<Selection>& finalists,
                             const std::map<std::size_t, double>& logs) {
    if (logs.size() != finalists.size()) return;
    double drift = 0;
    std::map<std::size_t, double> later;  // by place in `times`
    for (const auto& [finalist, log_seconds] : logs) {
      const auto at =
          std::find_if(times.begin(), times.end(), [&](const auto& one) { return one.first == finalists[finalist]; });
      if (at == times.end()) return;
      drift += (log_seconds - std::log(at->second)) / static_cast<double>(logs.size());
      later[static_cast<std::size_t>(at - times.begin())] = std::exp(log_seconds);
    }
    for (auto& [selection, seconds] : times) seconds *= std::exp(drift);
    for (const auto& [place, seconds] : later) times[place].second = seconds;
  }

  // One block.
  Result<Times> measure(Buffers& buffers, Collective collective, std::uint64_t bytes, const Blueprint& block,
                        std::uint64_t way) {
    std::vector<Call> calls;
    for (const Selection& selection : block.selections) calls.push_back(call_of(collective, bytes, selection));
    MeasureRules rules;
    rules.time_per_point = block.each;
    rules.pace = block.pace;
    rules.most_time = block.most_time;
    rules.warmup = 2;
    rules.check = false;
    rules.timeout = options_.timeout;
    rules.seed = ++blocks_;
    rules.deal_out_ranks = way;
    GRADRAIL_ASSIGN(const auto outcomes, measure_block(bootstrap_, group_, buffers, calls, rules));
    Times times;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      if (outcomes[i].refused || outcomes[i].samples_us.empty()) continue;
      if (const double seconds = median(outcomes[i].samples_us) * 1e-6; seconds > 0)
        times.emplace_back(block.selections[i], seconds);
    }
    return times;
  }

  // Rank 0's: what may be the best, as often as there is time for.
  static Blueprint finalists(const SizeTimes& size, Seconds time) {
    Times order = size.seconds;
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    Blueprint again{{}, k_second_time};
    double once = 0;  // seconds, about
    for (const auto& [selection, seconds] : order) {
      if (again.selections.size() == k_most_finalists || seconds > k_may_be_best * order.front().second) break;
      again.selections.push_back(selection);
      once += std::max(k_second_time.count(), k_least_operations * seconds);
    }
    const bool rivals = again.selections.size() >= 2;
    again.times = rivals ? static_cast<int>(std::min<double>(k_rounds, time.count() / once)) : 0;
    return again;
  }

  static Bytes pack_observations(const std::vector<Observation>& observations) {
    ByteWriter writer;
    writer.put(static_cast<std::uint32_t>(observations.size()));
    for (const Observation& one : observations) {
      writer.put(static_cast<std::uint8_t>(one.collective));
      put(writer, one.selection);
      writer.put(one.bytes);
      writer.put(one.seconds);
    }
    return std::move(writer).take();
  }
  static Result<std::vector<Observation>> unpack_observations(const Bytes& bytes) {
    ByteReader reader(bytes);
    std::vector<Observation> observations;
    const auto count = reader.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
      Observation one;
      one.collective = static_cast<Collective>(reader.get<std::uint8_t>());
      one.selection = get_selection(reader);
      one.bytes = reader.get<std::uint64_t>();
      one.seconds = reader.get<double>();
      observations.push_back(std::move(one));
    }
    if (!reader.ok()) return fail(Code::malformed, "rank 0's times of algorithms are damaged", 0);
    return observations;
  }

  Bootstrap& bootstrap_;
  Communicator& group_;
  const CostModel& model_;
  const SurveyOptions& options_;
  Times last_;  // rank 0's, at the size measured last
  std::uint64_t blocks_ = 0;
};

}  // namespace

Result<GroupTimes> survey(Bootstrap& bootstrap, Communicator& communicator, const CostModel& model,
                          const SurveyOptions& options) {
  return Survey(bootstrap, communicator, model, options).run();
}

}  // namespace gradrail
