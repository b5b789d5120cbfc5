#include "bench/measure/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "bench/measure/against.h"
#include "bench/measure/bare_sockets.h"
#include "bench/measure/cases.h"
#include "bench/measure/codec_choice.h"
#include "bench/measure/patience.h"
#include "bench/measure/point.h"
#include "bench/measure/probe.h"
#include "bench/measure/survey_needs.h"
#include "results/size.h"
#include "transports/bootstrap/capacity.h"

namespace gradrail {

namespace {

constexpr int k_block_tries = 3;  // a block in which the machine's phase changed is measured again
constexpr std::size_t k_most_traced_steps = 1 << 16;
// What shapes a link, or deals out a device to virtual machines, lets a burst pass at once after a pause: of libraries
// beside each other, whoever paused longer between samples would win. The half millisecond of scripts/namespace-lab is
// one part in forty of this. Our own algorithms pause alike, and keep the spread of short samples.
constexpr Seconds k_shortest_between_hosts{0.02};

class Sweep {
 public:
  Sweep(Bootstrap& bootstrap, const SweepOptions& options, SweepListener* listener)
      : bootstrap_(bootstrap), options_(options), listener_(listener) {}

  Result<void> run() {
    for (const SweepCase& c : cases_of(options_, bootstrap_.ranks())) total_weight_ += weight(c);
    total_weight_ *= static_cast<double>(options_.topologies.size() * options_.transports.size());
    GRADRAIL_TRY(room_for_buffers());
    if (listener_ != nullptr) GRADRAIL_TRY(listener_->begin());
    GRADRAIL_TRY(look_at_machine());
    table_ = without_other_phases(options_.table, options_.table_texts, phase_.core_to_core_ns, bootstrap_.rank() == 0);
    for (const Topology& topology : options_.topologies)
      for (const TransportPair& pair : options_.transports) GRADRAIL_TRY(sweep_group(topology, pair));
    return {};
  }

 private:
  // Expected time of a block, in no particular unit.
  static double weight(const SweepCase& c) { return 1 + static_cast<double>(c.bytes) / 4e6; }

  // Buffers that the machine has no memory for would be promised all the same, and then cost a rank its life.
  Result<void> room_for_buffers() {
    GRADRAIL_ASSIGN(const Capacity capacity, read_capacity());
    std::int64_t largest = 0;
    std::int64_t scratch = 0;
    for (const SweepCase& c : cases_of(options_, bootstrap_.ranks())) {
      largest = std::max(largest, c.bytes);
      scratch = std::max(scratch, c.bytes * planes_of(c.collective));
    }
    const auto& members = bootstrap_.members();
    const std::string& host = members[static_cast<std::size_t>(bootstrap_.rank())].host;
    const auto here = std::count_if(members.begin(), members.end(), [&](const Member& m) { return m.host == host; });
    const auto one = static_cast<double>(Buffers::bytes_needed(static_cast<std::uint64_t>(largest), options_.cache)) +
                     static_cast<double>(scratch);
    if (const double all = one * static_cast<double>(here) * (options_.registered_too ? 2 : 1);
        capacity.free_memory_bytes > 0 && all > static_cast<double>(capacity.free_memory_bytes))
      return fail(Code::exhausted,
                  fmt::format("buffers for {} take {:.1f} GB on {} ranks, and {} has {:.1f} GB free; choose a smaller "
                              "largest size (-e) or fewer ranks (-n)",
                              format_size(largest), all * 1e-9, here, host,
                              static_cast<double>(capacity.free_memory_bytes) * 1e-9));
    // Nobody allocates while others still look.
    return bootstrap_.barrier(Deadline::after(control_wait(options_.rules.timeout)));
  }

  // The most scratch planes, each as large as the data, of any algorithm that may run. The flat shape stands for all.
  int planes_of(Collective collective) const {
    int planes = 0;
    for (const Planner* planner : planners()) {
      const auto& wanted = options_.algorithms;
      const bool chosen = std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
        return name == "all" || name == "auto" || name.starts_with(planner->name);
      });
      if (planner->collective != collective || !chosen) continue;
      Shape shape;
      shape.collective = collective;
      shape.ranks = bootstrap_.ranks();
      shape.root = options_.root;
      shape.in_place = options_.in_place;
      if (const auto program = plan(*planner, shape, bootstrap_.rank()))
        planes = std::max<int>(planes, program->planes);
    }
    return planes;
  }

  Result<void> sweep_group(const Topology& topology, const TransportPair& pair) {
    CommunicatorOptions group_options;
    group_options.inner = pair.inner;
    group_options.outer = pair.outer;
    group_options.ranks_per_host = topology.ranks_per_host;
    group_options.settings.connections = options_.connections;
    group_options.settings.verbs = options_.verbs;
    const auto selector = std::make_shared<LateSelector>();
    group_options.selector = selector;
    GRADRAIL_ASSIGN(auto group, Communicator::create(bootstrap_, group_options,
                                                     Deadline::after(control_wait(options_.rules.timeout))));
    const auto cases = cases_of(options_, group->ranks());
    std::int64_t largest = 0;
    for (const SweepCase& c : cases) largest = std::max(largest, c.bytes);
    GRADRAIL_ASSIGN(Buffers buffers,
                    Buffers::make(*group, static_cast<std::uint64_t>(largest), options_.buffers, options_.cache));
    std::optional<Buffers> registered;
    if (options_.registered_too) {
      GRADRAIL_ASSIGN(registered, Buffers::make(*group, static_cast<std::uint64_t>(largest), BufferKind::registered,
                                                options_.cache));
    }
    // Memory touched for the first time takes longest; operations have only the timeout.
    const auto touched =
        static_cast<double>(Buffers::bytes_needed(static_cast<std::uint64_t>(largest), options_.cache));
    GRADRAIL_TRY(
        bootstrap_.barrier(Deadline::after(control_wait(options_.rules.timeout, touched * group->ranks_here()))));
    GRADRAIL_ASSIGN(SurveyOptions needs, needs_of(cases, *group, buffers, registered ? &*registered : nullptr));
    if (options_.cache == Cache::hot && needs.largest >= sizeof(double) * static_cast<std::uint64_t>(group->ranks()))
      needs.memory = &buffers;
    GRADRAIL_ASSIGN(const Selectors selectors,
                    make_selectors(bootstrap_, *group, needs, table_, options_.table_texts.path));
    selector->set(selectors.selector);
    links_ = selectors.links;
    if (listener_ != nullptr) listener_->group(*group, links_, *selectors.selector);
    pairing_ = BareSockets::pairing_of(*group);
    bare_.reset();
    if (pairing_) {
      GRADRAIL_ASSIGN(bare_,
                      BareSockets::make(bootstrap_, *pairing_, Deadline::after(control_wait(options_.rules.timeout))));
    }
    GRADRAIL_ASSIGN(const Rivals rivals, meet_rivals(*group));
    for (const SweepCase& c : cases) {
      GRADRAIL_TRY(sweep_case(*group, buffers, registered ? &*registered : nullptr, c, rivals));
      done_weight_ += weight(c);
    }
    return {};
  }

  // What has to be known of algorithms and codecs: nothing, unless auto is to choose.
  Result<SurveyOptions> needs_of(const std::vector<SweepCase>& cases, Communicator& group, Buffers& buffers,
                                 Buffers* registered) const {
    SurveyOptions needs;
    needs.buffers = options_.buffers;
    needs.in_place = options_.in_place;
    needs.timeout = options_.rules.timeout;
    needs.codec_where = options_.codec_where;
    const auto names_auto = [](const std::vector<std::string>& names) {
      return std::find(names.begin(), names.end(), "auto") != names.end();
    };
    std::vector<std::string> codecs;
    if (names_auto(options_.codecs)) {
      GRADRAIL_ASSIGN(codecs, codecs_within(options_.codecs, options_.error_budget));
    } else if (!names_auto(options_.algorithms)) {
      return needs;
    }
    std::vector<Question> asked;
    for (const SweepCase& c : cases)
      for (Buffers* const memory : {&buffers, registered}) {
        if (memory == nullptr) continue;
        Call call = call_of(c);
        memory->place(call, group.rank(), group.ranks());  // the choice goes by the memory, too
        asked.push_back(group.question_of(call));
      }
    add_needs(needs, asked, table_.get(), codecs);
    return needs;
  }
  [[nodiscard]] Call call_of(const SweepCase& c) const {
    Call call;
    call.collective = c.collective;
    call.count = static_cast<std::uint64_t>(c.count);
    call.type = c.type;
    call.op = c.op;
    call.root = options_.root;
    call.in_place = options_.in_place;
    return call;
  }

  // Rank 0 starts the other libraries' ranks; the rest learn how many there will be.
  Result<Rivals> meet_rivals(const Communicator& group) {
    AgainstOptions against;
    against.libraries = options_.against;
    against.runner_folder = options_.runner_folder;
    against.transport = group.transport_name();
    against.ranks = group.ranks();
    against.cores = options_.cores;
    against.cpus = options_.cpus;
    against.collectives = options_.collectives;
    against.start_wait = std::min(against.start_wait, control_wait(options_.rules.timeout));
    const std::size_t count = count_rivals(against);
    Rivals rivals;
    if (options_.against.empty()) return rivals;
    if (bootstrap_.rank() == 0) {
      if (listener_ != nullptr)
        listener_->next(done_weight_ / total_weight_, fmt::format("starting {} other libraries' ranks", count));
      rivals = start_rivals(against);
      if (listener_ != nullptr)
        for (const PeerRecord& record : rivals.records) listener_->peer(record);
    } else {
      rivals.contenders.resize(count);
    }
    GRADRAIL_TRY(bootstrap_.barrier(Deadline::after(control_wait(options_.rules.timeout) +
                                                    against.start_wait * (2.0 * static_cast<double>(count)))));
    return rivals;
  }

  // `registered`: for every case once more; null if that was not asked for.
  Result<void> sweep_case(Communicator& group, Buffers& buffers, Buffers* registered, const SweepCase& c,
                          const Rivals& rivals) {
    GRADRAIL_ASSIGN(const SweepCalls made, calls_of(options_, c, group));
    const std::vector<Call>& calls = made.calls;
    if (calls.empty()) return {};
    if (listener_ != nullptr)
      listener_->next(done_weight_ / total_weight_,
                      fmt::format("{} {} {}", to_string(c.collective), group.transport_name(), c.bytes));

    std::vector<BlockCase> measured;
    for (const Call& call : calls) measured.push_back({call, &buffers});
    for (std::size_t i = 0; i < calls.size() && registered != nullptr; ++i) measured.push_back({calls[i], registered});
    Contenders contenders;
    for (const auto& contender : rivals.contenders) contenders.push_back(contender.get());
    std::vector<Outcome> outcomes;
    std::string phase;
    MeasureRules rules = options_.rules;
    if (on_several_hosts() && !contenders.empty()) rules.shortest_sample = k_shortest_between_hosts;
    for (int attempt = 0; attempt < k_block_tries; ++attempt) {
      rules.seed = ++seed_;
      GRADRAIL_TRY(look_at_sockets(group, buffers, calls.front(), c, rules));
      GRADRAIL_ASSIGN(outcomes, measure_block(bootstrap_, group, measured, rules, contenders));
      GRADRAIL_TRY(look_at_sockets(group, buffers, calls.front(), c, rules));
      const Phase before = phase_;
      GRADRAIL_TRY(look_at_machine());
      const bool settled = same_phase(before, phase_);
      phase = settled ? names_.name(phase_) : "unsettled";
      if (settled) break;
    }
    double bare_us = 0;
    if (held_against_sockets(c)) {
      GRADRAIL_ASSIGN(bare_us, bare_->take_us(bootstrap_, Deadline::after(control_wait(options_.rules.timeout))));
    }
    if (listener_ == nullptr && !options_.trace) return {};

    const Setting setting = setting_of(group);
    std::vector<Point> points;
    for (std::size_t i = 0; i < calls.size(); ++i) points.push_back(point_of(setting, calls[i], outcomes[i]));
    Setting on_registered = setting;
    on_registered.buffers = BufferKind::registered;
    for (std::size_t i = calls.size(); i < measured.size(); ++i)
      points.push_back(point_of(on_registered, measured[i].call, outcomes[i]));
    for (std::size_t i = 0; i < contenders.size() && listener_ != nullptr; ++i)
      points.push_back(point_of(setting, calls.front(), outcomes[measured.size() + i], *contenders[i]));
    for (Point& point : points) point.phase = phase;
    say_where_encoding_pays(points);
    if (listener_ != nullptr) GRADRAIL_TRY(listener_->block(points));
    if (listener_ != nullptr && bare_us > 0)
      listener_->bare_sockets(points.front(), pairing_->share(static_cast<std::uint64_t>(c.bytes), group.ranks()),
                              bare_us);
    if (options_.trace)
      for (std::size_t i = 0; i < calls.size(); ++i)
        if (!outcomes[i].refused) GRADRAIL_TRY(trace(group, buffers, calls[i], points[i]));
    return {};
  }

  [[nodiscard]] bool on_several_hosts() const {
    const auto& members = bootstrap_.members();
    return std::any_of(members.begin(), members.end(), [&](const Member& m) { return m.host != members[0].host; });
  }

  [[nodiscard]] Setting setting_of(const Communicator& group) const {
    const auto chosen = group.describe_transports();
    return {group.transport_name(),
            group.hosts() * group.ranks_per_host() == group.ranks()
                ? to_string(Topology{group.hosts(), group.ranks_per_host()})
                : fmt::format("{}xuneven", group.hosts()),
            group.ranks(),
            group.ranks_per_host(),
            options_.buffers,
            options_.cache,
            options_.rules.check,
            options_.bind,
            links_.model,
            chosen.empty() ? std::nullopt : std::optional(fmt::format("{}", fmt::join(chosen, "; ")))};
  }

  // Below, messages are too few and too short for bandwidth to matter.
  bool held_against_sockets(const SweepCase& c) const {
    constexpr std::int64_t k_least_bytes = 1 << 20;
    return bare_ && c.collective == Collective::allreduce && c.bytes >= k_least_bytes;
  }
  Result<void> look_at_sockets(Communicator& group, Buffers& buffers, Call call, const SweepCase& c,
                               const MeasureRules& rules) {
    if (!held_against_sockets(c)) return {};
    buffers.place(call, group.rank(), group.ranks());
    const auto size = static_cast<std::size_t>(c.bytes);
    const BareSockets::Load load{{call.in.data(), size}, {call.out.data(), size}, pairing_->share(size, group.ranks())};
    return bare_->measure(bootstrap_, group, load, {rules.time_per_point / 4, rules.shortest_sample, rules.timeout});
  }

  // Rank 0 probes the machine while the others wait, asleep.
  Result<void> look_at_machine() {
    Result<void> made;
    GRADRAIL_ASSIGN(const Bytes bytes, broadcast_work(bootstrap_, options_.rules.timeout, [&] {
                      if (!probe_) made = make_probe();
                      const Phase now = probe_ ? probe_->phase() : Phase{};
                      ByteWriter writer;
                      writer.put(now.core_to_core_ns);
                      writer.put(now.memory_gbs);
                      return std::move(writer).take();
                    }));
    GRADRAIL_TRY(made);
    ByteReader reader(bytes);
    phase_.core_to_core_ns = reader.get<double>();
    phase_.memory_gbs = reader.get<double>();
    if (!reader.ok()) return fail(Code::malformed, "rank 0's description of the machine is damaged", 0);
    if (listener_ != nullptr) listener_->limits({names_.name(phase_), phase_.core_to_core_ns, phase_.memory_gbs});
    return {};
  }

  Result<void> make_probe() {
    ProbeOptions probe;
    probe.cpus = options_.cores;
    GRADRAIL_ASSIGN(probe_, Probe::create(probe));
    return {};
  }

  // One more call, with every rank's steps recorded.
  Result<void> trace(Communicator& group, Buffers& buffers, Call call, const Point& point) {
    std::vector<StepTime> times;
    times.reserve(k_most_traced_steps);
    buffers.place(call, group.rank(), group.ranks());
    GRADRAIL_TRY(group.barrier(Deadline::after(options_.rules.timeout)));
    const auto begin = Clock::now();
    group.trace(&times);
    const auto ran = group.run(call, Deadline::after(options_.rules.timeout));
    group.trace(nullptr);
    GRADRAIL_TRY(ran);
    ByteWriter mine;
    const auto since = [&](Clock::time_point when) {
      return std::chrono::duration<double, std::micro>(when - begin).count();
    };
    for (const StepTime& time : times) {
      mine.put(time.lane);
      mine.put_string(std::string(time.name));
      mine.put(time.phase);
      mine.put(time.step);
      mine.put(time.peer);
      mine.put(static_cast<std::uint64_t>(time.bytes));
      mine.put(since(time.begin));
      mine.put(since(time.end));
    }
    GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(std::move(mine).take(),
                                                          Deadline::after(control_wait(options_.rules.timeout))));
    if (listener_ == nullptr) return {};
    std::vector<SweepListener::RankStep> steps;
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      for (ByteReader reader(all[rank]); reader.left() > 0;) {
        SweepListener::RankStep step;
        step.rank = static_cast<int>(rank);
        step.lane = reader.get<std::uint8_t>();
        step.name = reader.get_string();
        step.phase = reader.get<int>();
        step.step = reader.get<std::int32_t>();
        step.peer = reader.get<int>();
        step.bytes = static_cast<std::int64_t>(reader.get<std::uint64_t>());
        step.start_us = reader.get<double>();
        step.duration_us = reader.get<double>() - step.start_us;
        if (!reader.ok()) return fail(Code::malformed, "a rank's trace is damaged", static_cast<int>(rank));
        steps.push_back(step);
      }
    return listener_->steps(point, steps);
  }

  Bootstrap& bootstrap_;
  const SweepOptions& options_;
  SweepListener* listener_;
  std::optional<Probe> probe_;                   // rank 0
  std::optional<BareSockets::Pairing> pairing_;  // of the group at hand
  std::optional<BareSockets> bare_;
  Phase phase_;
  PhaseNames names_;
  std::shared_ptr<const DecisionTable> table_;  // as far as it is of the phase in which the sweep began
  LinkCalibration links_;                       // of the group at hand
  double done_weight_ = 0;
  double total_weight_ = 0;
  std::uint64_t seed_ = 0;
};

}  // namespace

std::string to_string(const Topology& topology) {
  return fmt::format("{}x{}", topology.hosts, topology.ranks_per_host);
}

Result<void> run_sweep(Bootstrap& bootstrap, const SweepOptions& options, SweepListener* listener) {
  return Sweep(bootstrap, options, listener).run();
}

}  // namespace gradrail
