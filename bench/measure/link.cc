#include "bench/measure/link.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "bench/measure/block.h"
#include "bench/measure/patience.h"
#include "bench/measure/statistics.h"

namespace gradrail {

namespace {

constexpr int k_most_ranks_for_pairs = 16;  // beyond, exchanges between all pairs are left out
constexpr std::uint64_t k_small = 8;
constexpr std::uint64_t k_short = 4 << 10;
constexpr std::uint64_t k_middle = 32 << 10;
constexpr std::uint64_t k_large = 1 << 20;
// Between hosts a switch or a shaper may let the first few hundred KiB pass faster than it can go on.
constexpr std::uint64_t k_beyond_bursts = 4 << 20;
constexpr int k_samples = 40;
constexpr int k_samples_beyond_bursts = 8;
constexpr double k_share_beyond_bursts = 0.4;  // of the time

struct Trial {
  Collective collective;
  Selection selection;
  std::uint64_t bytes;
};

std::vector<Trial> trials(const Communicator& group) {
  const auto n = static_cast<std::uint64_t>(group.ranks());
  std::vector<Trial> list;
  for (const std::uint64_t bytes : {k_small, k_short, k_middle, k_large}) {
    list.push_back({Collective::send_recv, {"direct", 1, 1}, bytes});
    list.push_back({Collective::broadcast, {"binomial", 1, 1}, bytes});
    list.push_back({Collective::allreduce, {"recursive_doubling", 1, 1}, bytes});
    list.push_back({Collective::allreduce, {"ring", 1, 1}, std::max(bytes, 8 * n)});
    if (group.ranks() <= k_most_ranks_for_pairs) {
      list.push_back({Collective::allreduce, {"two_shot", 1, 1}, std::max(bytes, 8 * n)});
      list.push_back({Collective::all_gather, {"direct", 1, 1}, std::max(bytes, 8 * n)});
    }
  }
  list.push_back({Collective::allreduce, {"ring", 1, 4}, k_large});
  list.push_back({Collective::broadcast, {"chain", 1, 16}, k_large});
  if (group.ranks_per_host() > 1 && group.ranks() > group.ranks_per_host())
    for (const std::uint64_t bytes : {k_small, k_large, k_beyond_bursts})
      list.push_back({Collective::allreduce, {"hierarchical", 1, 1}, std::max(bytes, 8 * n)});
  if (group.hosts() > 1)
    for (const char* name : {"recursive_doubling", "ring"})
      list.push_back({Collective::allreduce, {name, 1, 1}, k_beyond_bursts});
  return list;
}

Call call_of(const Trial& trial, int ranks) {
  Call call;
  call.collective = trial.collective;
  const auto unit = size_of(call.type) * (is_blocked(trial.collective) ? static_cast<std::uint64_t>(ranks) : 1);
  call.count = std::max<std::uint64_t>(1, trial.bytes / unit);
  call.algorithm = trial.selection.algorithm;
  call.lanes = trial.selection.lanes;
  call.pieces = trial.selection.pieces;
  return call;
}

// A trial is over within milliseconds, which one neighbour's burst may cover; the lower quartile is what the links do
// when left alone.
double undisturbed(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  return quantile(samples, 0.25);
}

Bytes pack(const LinkCalibration& calibration) {
  ByteWriter writer;
  const CostModel& m = calibration.model;
  for (const double value : {m.inside.alpha, m.inside.beta, m.between.alpha, m.between.beta, m.gamma, m.step,
                             m.oversubscription, calibration.error})
    writer.put(value);
  writer.put(m.credits);
  writer.put(static_cast<std::uint8_t>(m.shared_medium));
  writer.put(calibration.observations);
  return std::move(writer).take();
}

Result<LinkCalibration> unpack(const Bytes& bytes) {
  ByteReader reader(bytes);
  LinkCalibration calibration;
  CostModel& m = calibration.model;
  for (double* value : {&m.inside.alpha, &m.inside.beta, &m.between.alpha, &m.between.beta, &m.gamma, &m.step,
                        &m.oversubscription, &calibration.error})
    *value = reader.get<double>();
  m.credits = reader.get<int>();
  m.shared_medium = reader.get<std::uint8_t>() != 0;
  calibration.observations = reader.get<int>();
  if (!reader.ok()) return fail(Code::malformed, "rank 0's measurement of the links is damaged", 0);
  return calibration;
}

}  // namespace

Result<LinkCalibration> calibrate(Bootstrap& bootstrap, Communicator& communicator, BufferKind kind, int cores,
                                  Seconds timeout, Seconds most_time) {
  LinkCalibration calibration;
  const int n = communicator.ranks();
  std::vector<Observation> observations;  // rank 0's
  calibration.model.oversubscription =
      std::max(1.0, static_cast<double>(communicator.ranks_here()) / std::max(1, cores));
  if (n > 1) {
    auto list = trials(communicator);
    // The longest come last, and fewer times: there may be no time left for them.
    std::stable_sort(list.begin(), list.end(), [](const Trial& a, const Trial& b) { return a.bytes < b.bytes; });
    const auto split = std::stable_partition(list.begin(), list.end(),
                                             [](const Trial& trial) { return trial.bytes < k_beyond_bursts; });
    std::vector<Call> calls;
    for (const Trial& trial : list) calls.push_back(call_of(trial, n));
    const auto few = calls.begin() + (split - list.begin());
    const std::uint64_t largest = communicator.hosts() > 1 ? k_beyond_bursts : k_large;
    GRADRAIL_ASSIGN(Buffers buffers, Buffers::make(communicator, largest, kind, Cache::hot));
    MeasureRules rules;
    rules.warmup = 2;
    rules.check = false;
    rules.timeout = timeout;
    std::vector<Outcome> outcomes;
    for (const bool beyond_bursts : {false, true}) {
      const std::vector<Call> block(beyond_bursts ? few : calls.begin(), beyond_bursts ? calls.end() : few);
      if (block.empty()) continue;
      rules.samples = beyond_bursts ? k_samples_beyond_bursts : k_samples;
      rules.most_time = most_time;
      if (communicator.hosts() > 1) {
        rules.pace = k_brisk;
        rules.most_time = most_time * (beyond_bursts ? k_share_beyond_bursts : 1 - k_share_beyond_bursts);
      }
      GRADRAIL_ASSIGN(auto some, measure_block(bootstrap, communicator, buffers, block, rules));
      std::move(some.begin(), some.end(), std::back_inserter(outcomes));
    }
    if (bootstrap.rank() == 0) {
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (outcomes[i].refused || outcomes[i].samples_us.empty()) continue;
        const auto blocks = is_blocked(list[i].collective) ? static_cast<std::uint64_t>(n) : 1;
        observations.push_back({list[i].collective, list[i].selection, calls[i].count * size_of(calls[i].type) * blocks,
                                undisturbed(outcomes[i].samples_us) * 1e-6});
      }
    }
  }
  // Fitting simulates plans over and over, which takes seconds where there are many ranks.
  GRADRAIL_ASSIGN(const Bytes same, broadcast_work(bootstrap, timeout, [&] {
                    if (!observations.empty()) {
                      const ModelFit fit = fit_model(observations, n, communicator.ranks_per_host(), calibration.model);
                      calibration.model = fit.model;
                      calibration.error = fit.error;
                      calibration.observations = static_cast<int>(observations.size());
                    }
                    return pack(calibration);
                  }));
  return unpack(same);
}

std::string to_string(const CostModel& model, bool several_hosts) {
  const auto link = [](const Link& l) { return fmt::format("{:.3g} us + {:.3g} ns/B", l.alpha * 1e6, l.beta * 1e9); };
  std::string text = fmt::format("inside {}", link(model.inside));
  if (several_hosts) text += fmt::format(", between {}", link(model.between));
  return text + fmt::format(", reduce {:.3g} ns/B, step {:.3g} ns{}", model.gamma * 1e9, model.step * 1e9,
                            model.shared_medium ? ", one memory" : "");
}

}  // namespace gradrail
