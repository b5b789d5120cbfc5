#include "bench/measure/tuning_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "bench/measure/allowance.h"
#include "bench/measure/codec_choice.h"
#include "bench/measure/gradient.h"
#include "bench/measure/patience.h"
#include "bench/measure/phase_watch.h"
#include "bench/measure/selectors.h"
#include "bench/measure/survey_needs.h"
#include "bench/measure/tuning_command.h"
#include "collectives/compress/codec.h"
#include "collectives/select/candidates.h"
#include "collectives/select/cost_selector.h"
#include "results/size.h"

namespace gradrail {

namespace {

constexpr int k_block_tries = 3;
constexpr double k_share_for_fitting = 0.52;        // of a case's time
constexpr double k_share_for_fitting_again = 0.13;  // where the phase changed meanwhile; the rest is for judging
constexpr double k_share_for_survey = 0.15;         // of a case's time, out of what is for judging
constexpr double k_share_for_waiting = 0.15;        // of what is for judging: for the phase of fitting to come back
constexpr double k_share_for_links = 0.15;          // of the budget, for all pairs of transports
constexpr double k_share_for_links_of_a_host = 0.06;
constexpr double k_usual_judgement = 0.5;    // seconds a size, before one was judged
constexpr double k_fitting_again = 0.6;      // of the seconds of a judgement, a size
constexpr double k_share_for_codecs = 0.35;  // of a case's time, where they are tried; the others share the rest
constexpr double k_for_crossings = 0.3;      // of the time for the coarse grid, kept for sizes between
constexpr Seconds k_least_time_per_point{0.01};
constexpr double k_least_left_by_a_codec = 0.1;  // of an operation's time, whatever it leaves of the bytes
constexpr double k_points_at_held_out = 12;      // that are worth measuring at a size, about

std::vector<std::int64_t> whole_multiples(const std::vector<std::int64_t>& sizes, std::int64_t unit) {
  std::vector<std::int64_t> out;
  for (const std::int64_t size : sizes) {
    const std::int64_t whole = std::max<std::int64_t>(1, size / unit) * unit;
    if (out.empty() || whole > out.back()) out.push_back(whole);
  }
  return out;
}

class TuningJob {
 public:
  TuningJob(Bootstrap& bootstrap, const TuneOptions& options, TuneListener* listener)
      : bootstrap_(bootstrap),
        options_(options),
        axes_(options.axes),
        listener_(listener),
        watch_(bootstrap, options.axes.cores, options.axes.rules.timeout) {}

  Result<void> run() {
    const std::size_t groups = axes_.topologies.size() * axes_.transports.size();
    cases_ = groups * axes_.collectives.size();
    begin_ = Clock::now();
    for (const Topology& topology : axes_.topologies)
      for (const TransportPair& pair : axes_.transports) {
        CommunicatorOptions group_options;
        group_options.inner = pair.inner;
        group_options.outer = pair.outer;
        group_options.ranks_per_host = topology.ranks_per_host;
        group_options.settings.connections = axes_.connections;
        group_options.settings.verbs = axes_.verbs;
        GRADRAIL_ASSIGN(auto group, Communicator::create(bootstrap_, group_options, soon()));
        const auto largest = static_cast<std::uint64_t>(
            std::max<std::int64_t>(axes_.sizes.back(), static_cast<std::int64_t>(sizeof(double)) * group->ranks()));
        GRADRAIL_ASSIGN(Buffers buffers, Buffers::make(*group, largest, axes_.buffers, axes_.cache));
        // Memory touched for the first time takes longest; operations have only the timeout.
        GRADRAIL_TRY(bootstrap_.barrier(
            soon(static_cast<double>(Buffers::bytes_needed(largest, axes_.cache)) * group->ranks_here())));
        const auto links_begin = Clock::now();
        GRADRAIL_ASSIGN(links_, calibrate(bootstrap_, *group, axes_.buffers, group->cores(), axes_.rules.timeout,
                                          (group->hosts() > 1 ? k_share_for_links : k_share_for_links_of_a_host) *
                                              options_.budget / static_cast<double>(groups)));
        links_seconds_ = Seconds(Clock::now() - links_begin).count();
        for (const Collective collective : axes_.collectives) {
          GRADRAIL_TRY(bootstrap_.rank() == 0 ? lead(*group, buffers, collective)
                                              : follow(*group, buffers, collective));
          ++done_cases_;
        }
      }
    return {};
  }

 private:
  [[nodiscard]] Deadline soon(double touched_bytes = 0) const {
    return Deadline::after(control_wait(axes_.rules.timeout, touched_bytes));
  }
  [[nodiscard]] double spent() const { return Seconds(Clock::now() - begin_).count(); }

  Call call_of(Collective collective, std::int64_t count, const Selection& selection) const {
    Call call;
    call.collective = collective;
    call.count = static_cast<std::uint64_t>(count);
    call.type = axes_.types.front();
    call.op = axes_.ops.front();
    call.root = axes_.root;
    call.in_place = axes_.in_place;
    carry(call, selection);
    return call;
  }

  std::vector<Call> calls_of(Collective collective, const TuningCommand& command) const {
    std::vector<Call> calls;
    for (const Selection& selection : command.selections)
      calls.push_back(call_of(collective, command.count, selection));
    return calls;
  }

  Result<std::vector<Outcome>> obey(Communicator& group, Buffers& buffers, const std::vector<Call>& calls,
                                    const TuningCommand& command) {
    MeasureRules rules = axes_.rules;
    rules.time_per_point = Seconds(command.time_per_point);
    rules.pace = command.pace;
    rules.most_time = Seconds(command.most_time);
    rules.seed = command.seed;
    rules.deal_out_ranks = command.seed;
    return measure_block(bootstrap_, group, buffers, calls, rules);
  }

  // Collective. Right before the model is judged, as it would be asked.
  Result<std::shared_ptr<CostSelector>> survey_algorithms(Communicator& group, Buffers& buffers, Collective collective,
                                                          const TuningCommand& command) {
    SurveyOptions needs;
    needs.most_time = std::min(needs.most_time, Seconds(command.most_time));
    if (command.largest > 0) needs.collectives = {collective};
    needs.smallest = command.smallest;
    needs.largest = command.largest;
    needs.in_place = axes_.in_place;
    needs.buffers = axes_.buffers;
    if (axes_.cache == Cache::hot) needs.memory = &buffers;
    needs.timeout = axes_.rules.timeout;
    return make_model(bootstrap_, group, needs, links_.model);
  }

  Result<void> follow(Communicator& group, Buffers& buffers, Collective collective) {
    while (true) {
      GRADRAIL_ASSIGN(const Bytes bytes, hear(bootstrap_, axes_.rules.timeout));
      GRADRAIL_ASSIGN(const TuningCommand command, unpack_tuning_command(bytes));
      if (command.order == TuningOrder::end) return {};
      if (command.order == TuningOrder::survey)
        GRADRAIL_TRY(survey_algorithms(group, buffers, collective, command));
      else
        GRADRAIL_TRY(obey(group, buffers, calls_of(collective, command), command));
    }
  }

  // A case as rank 0 leads it.
  struct Case {
    Communicator& group;
    Buffers& buffers;
    Question question;
    std::int64_t unit = 0;
    std::vector<std::int64_t> grid;
    // When the stages end, by spent().
    double fitted = 0;
    double fitted_again = 0;
    double judged = 0;
    double end = 0;

    TuneListener::For what = TuneListener::For::fitting;
    double per_point = 0;
    TuneRules rules{};
    MeasureSize measure{};
    double left_for_waiting = 0;
    TunedCase done{};
    std::shared_ptr<const Selector> by_model{};
    LateSelector by_table{};
  };

  Result<void> lead(Communicator& group, Buffers& buffers, Collective collective) {
    Call placed = call_of(collective, 1, {});  // the choice goes by the memory, too
    buffers.place(placed, group.rank(), group.ranks());
    const Question question = group.question_of(placed);
    const auto unit =
        static_cast<std::int64_t>(size_of(axes_.types.front())) * (is_blocked(collective) ? group.ranks() : 1);
    Case at_hand{group, buffers, question, unit, whole_multiples(axes_.sizes, unit)};
    GRADRAIL_TRY(listener_->begin_case(question, links_));

    // What is left of the budget is shared by the cases that are left.
    const double begin = spent();
    at_hand.end = begin + std::max(1.0, options_.budget.count() - begin) / static_cast<double>(cases_ - done_cases_);
    const bool codecs = axes_.error_budget > 0 && Gradient::fits(call_of(collective, 1, {}));
    at_hand.judged = at_hand.end - (codecs ? k_share_for_codecs * (at_hand.end - begin) : 0);
    const double share = at_hand.judged - begin;
    at_hand.fitted = begin + k_share_for_fitting * share;
    at_hand.fitted_again = at_hand.fitted + k_share_for_fitting_again * share;
    at_hand.per_point = time_per_point(question, at_hand.grid, share);
    at_hand.measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
      return measure(at_hand, bytes, selections, effort);
    };
    at_hand.rules.say = [&](const std::string& text) { listener_->note(text); };
    at_hand.rules.phase = [&] { return watch_.of_blocks(); };
    at_hand.rules.phase_now = [&] { return watch_.now(); };
    at_hand.rules.await_phase = [&](const std::string& wanted) {
      return watch_.await(wanted, at_hand.left_for_waiting);
    };
    at_hand.rules.out_of_time = [&] { return spent() > at_hand.fitted; };
    TunedCase& done = at_hand.done;
    done.links = links_;
    done.links_seconds = links_seconds_;
    done.entry = {collective, question.transport, question.ranks, question.ranks_per_host, {}, {}};
    Allowance allowance([&] { return spent(); },
                        [&](const Selection& selection, std::int64_t bytes) {
                          return expected(question, selection, bytes, done.tuned);
                        });
    allowance_ = &allowance;

    GRADRAIL_TRY(fit(at_hand));
    const auto judged_on = held_out_sizes(at_hand.grid, unit, done.tuned);
    const TuningCommand model_wanted = survey_for(question, judged_on, k_share_for_survey * share);
    GRADRAIL_TRY(bootstrap_.broadcast(pack(model_wanted), soon()));
    GRADRAIL_ASSIGN(at_hand.by_model, survey_algorithms(group, buffers, collective, model_wanted));
    GRADRAIL_TRY(judge(at_hand, judged_on));
    if (codecs) GRADRAIL_TRY(tune_codecs(at_hand));
    done.left_out = allowance.left_out();
    GRADRAIL_TRY(bootstrap_.broadcast(pack(TuningCommand{}), soon()));
    return listener_->end_case(done);
  }

  Result<void> fit(Case& at_hand) {
    allowance_->begin("fitting", at_hand.fitted, parts_of(at_hand.grid), k_for_crossings);
    GRADRAIL_ASSIGN(at_hand.done.tuned,
                    tune_sizes(at_hand.question, at_hand.grid, at_hand.unit, at_hand.measure, at_hand.rules));
    return fit_once_more(at_hand, at_hand.fitted_again);
  }

  // Brings the table into the phase that the machine is in.
  Result<void> fit_once_more(Case& at_hand, double until) {
    TunedCase& done = at_hand.done;
    std::vector<std::int64_t> sizes;
    for (const TunedSize& size : done.tuned.sizes) sizes.push_back(size.bytes);
    allowance_->begin("fitting again in the machine's phase", until, parts_of(sizes));
    at_hand.what = TuneListener::For::fitting;
    GRADRAIL_TRY(fit_again(done.tuned, at_hand.measure, at_hand.rules));
    done.entry.ranges = done.tuned.ranges;
    done.phase = phase_of(done.tuned);
    done.entry.core_to_core_ns = watch_.core_to_core_ns(done.phase);
    return {};
  }

  static void take_table(Case& at_hand) {
    DecisionTable table;
    if (!at_hand.done.entry.ranges.empty()) table.entries.push_back(at_hand.done.entry);
    at_hand.by_table.set(std::make_shared<TableSelector>(std::move(table), "tuned", at_hand.by_model));
  }

  Result<void> judge(Case& at_hand, const std::vector<std::int64_t>& sizes) {
    const double begin = spent();
    judgements_ = 0;
    at_hand.left_for_waiting = k_share_for_waiting * (at_hand.judged - begin);
    // Whatever is left is for judging: half of it for measuring, the rest for checks and warming up.
    const double points = k_points_at_held_out * static_cast<double>(std::max<std::size_t>(sizes.size(), 1));
    at_hand.per_point = std::clamp((at_hand.judged - begin) / (2 * points), at_hand.per_point,
                                   std::max(at_hand.per_point, axes_.rules.time_per_point.count()));
    const auto go_on = [&] {
      take_table(at_hand);
      at_hand.what = TuneListener::For::judging;
      allowance_->begin("judging", at_hand.judged, parts_of(sizes));
    };
    // Where there is time for that, and for judging all sizes afterwards.
    const FitAgain again = [&]() -> Result<bool> {
      const auto& fitted = at_hand.done.tuned.sizes;
      const auto others = std::count_if(fitted.begin(), fitted.end(),
                                        [&](const TunedSize& size) { return size.phase != watch_.now(); });
      const double a_judgement = judgements_ > 0 ? (spent() - begin) / judgements_ : k_usual_judgement;
      const double fitting = k_fitting_again * a_judgement * static_cast<double>(others);
      if (spent() + fitting + a_judgement * static_cast<double>(sizes.size()) > at_hand.judged) return false;
      GRADRAIL_TRY(fit_once_more(at_hand, spent() + 2 * fitting));
      go_on();
      return true;
    };
    go_on();
    GRADRAIL_ASSIGN(at_hand.done.regret, measure_regret(at_hand.question, at_hand.done.tuned, sizes, at_hand.by_table,
                                                        *at_hand.by_model, at_hand.measure, at_hand.rules, again));
    return {};
  }

  // Without what the table and the model say nothing can be judged.
  Result<SelectionSamples> measure(Case& at_hand, std::int64_t bytes, std::span<const Selection> selections,
                                   double effort) {
    Question here = at_hand.question;
    here.bytes = static_cast<std::uint64_t>(bytes);
    std::vector<Selection> keep;
    if (at_hand.by_model != nullptr) keep = {at_hand.by_table.choose(here), at_hand.by_model->choose(here)};
    GRADRAIL_ASSIGN(auto outcomes,
                    measure_in_one_phase(at_hand.group, at_hand.buffers, at_hand.question, bytes, at_hand.unit,
                                         at_hand.what, selections, keep, at_hand.per_point * effort));
    SelectionSamples samples;
    for (Outcome& outcome : outcomes) samples.push_back(samples_of(outcome));
    return samples;
  }

  // What a choice without a table needs at these sizes.
  static TuningCommand survey_for(Question question, std::span<const std::int64_t> sizes, double most_time) {
    std::vector<Question> asked;
    for (const std::int64_t bytes : sizes) {
      question.bytes = static_cast<std::uint64_t>(bytes);
      asked.push_back(question);
    }
    SurveyOptions needs;
    add_needs(needs, asked, nullptr);
    TuningCommand command;
    command.order = TuningOrder::survey;
    command.most_time = most_time;
    command.smallest = needs.smallest;
    command.largest = needs.largest;
    return command;
  }

  // Rank 0: at each size each codec first by the algorithm that it gets anyway, and where any pays, those that do by
  // all algorithms. The last block decides, in which everything is measured against the best without a codec.
  Result<void> tune_codecs(Case& at_hand) {
    const Question& question = at_hand.question;
    GRADRAIL_ASSIGN(const auto codecs, codecs_within(axes_.codecs, axes_.error_budget));
    const auto places = places_to_encode(axes_.codec_where, question.ranks, question.ranks_per_host);
    const auto sizes = static_cast<double>(std::max<std::size_t>(1, at_hand.grid.size()));
    const double per_point = std::clamp(
        std::max(0.0, at_hand.end - spent()) / (sizes * static_cast<double>(1 + codecs.size() * places.size())),
        k_least_time_per_point.count(), std::max(k_least_time_per_point.count(), axes_.rules.time_per_point.count()));
    std::vector<std::int64_t> worth_encoding = at_hand.grid;
    std::erase_if(worth_encoding,
                  [](std::int64_t bytes) { return bytes < static_cast<std::int64_t>(k_least_coded_bytes); });
    if (codecs.empty()) return {};
    allowance_->begin("codecs", at_hand.end, parts_of(worth_encoding));
    for (const std::int64_t bytes : worth_encoding) {
      Question here = question;
      here.bytes = static_cast<std::uint64_t>(bytes);
      std::vector<Selection> selections{at_hand.by_table.choose(here)};
      for (const CodecWhere where : places)
        for (const std::string& codec : codecs) selections.push_back({"auto", 0, 0, codec, where});
      const auto measured = [&]() -> Result<CodedSize> {
        GRADRAIL_ASSIGN(const auto outcomes, measure_in_one_phase(at_hand.group, at_hand.buffers, question, bytes,
                                                                  at_hand.unit, TuneListener::For::codecs, selections,
                                                                  std::span(selections).first(1), per_point));
        return what_pays(here, selections, outcomes);
      };
      GRADRAIL_ASSIGN(CodedSize size, measured());
      if (size.dense_us == 0) continue;  // there was no time
      if (!size.choices.empty()) {
        selections.resize(1);
        for (const CodedChoice& choice : size.choices) add_ways_to_carry(selections, choice.selection, here);
        GRADRAIL_ASSIGN(CodedSize again, measured());
        if (again.dense_us > 0) size = std::move(again);
      }
      at_hand.done.entry.codecs.push_back(std::move(size));
    }
    return {};
  }

  // The choice, and its codec on every plan, as far as it may travel on plans.
  static void add_ways_to_carry(std::vector<Selection>& selections, const Selection& choice, const Question& here) {
    selections.push_back(choice);
    const auto codec = make_codec(choice.codec);
    if (!codec || !(*codec)->traits().fixed_size) return;
    for (const Selection& plain : candidates(here, {.lanes = false, .pieces = 0})) {
      const bool levels = plain.algorithm.starts_with("hierarchical");
      if (plain.algorithm == choice.algorithm || (choice.where == CodecWhere::between_hosts && !levels)) continue;
      selections.push_back({plain.algorithm, 0, 0, choice.codec, choice.where});
    }
  }

  // Of most of its sizes.
  static std::string phase_of(const Tuned& tuned) {
    std::map<std::string, int> sizes;
    for (const TunedSize& size : tuned.sizes) ++sizes[size.phase];
    const auto most =
        std::max_element(sizes.begin(), sizes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == sizes.end() ? "" : most->first;
  }

  // Seconds of an operation, before it was measured.
  double expected(const Question& question, const Selection& selection, std::int64_t bytes, const Tuned& tuned) const {
    Question here = question;
    here.bytes = static_cast<std::uint64_t>(bytes);
    if (selection.codec.empty() || selection.codec == "none")
      return predict(selection, here, links_.model).value_or(rough_operation(links_.model, static_cast<double>(bytes)));
    // Of what it takes without a codec, as much as there are bytes left to send.
    double plain = rough_operation(links_.model, static_cast<double>(bytes));
    for (const TunedSize& size : tuned.sizes) {
      const auto times = medians(size.samples_us);
      const auto ratio = static_cast<double>(bytes) / static_cast<double>(size.bytes);
      if (ratio >= 1 || &size == &tuned.sizes.front()) plain = times[best_of(times)] * 1e-6 * ratio;
    }
    const auto codec = make_codec(selection.codec);
    const auto values = static_cast<std::size_t>(bytes) / sizeof(float);
    if (!codec || values == 0) return plain;
    const double left = static_cast<double>((*codec)->max_bytes(values)) / static_cast<double>(bytes);
    return plain * std::clamp(left, k_least_left_by_a_codec, 1.0);
  }

  std::vector<Allowance::Part> parts_of(std::span<const std::int64_t> sizes) const {
    std::vector<Allowance::Part> parts;
    for (const std::int64_t bytes : sizes)
      parts.push_back({bytes, rough_operation(links_.model, static_cast<double>(bytes))});
    return parts;
  }

  static std::vector<double> samples_of(const Outcome& outcome) {
    return outcome.refused || outcome.wrong > 0 ? std::vector<double>() : outcome.samples_us;
  }

  // As many of the selections as there is time for, `keep` before others; the outcomes of the rest say so. The machine
  // is looked at before and after.
  Result<std::vector<Outcome>> measure_in_one_phase(Communicator& group, Buffers& buffers, const Question& question,
                                                    std::int64_t bytes, std::int64_t unit, TuneListener::For what,
                                                    std::span<const Selection> selections,
                                                    std::span<const Selection> keep, double seconds) {
    Allowance::Plan plan;
    // Simulating many ranks takes its time.
    GRADRAIL_TRY(work_while_heard(bootstrap_, axes_.rules.timeout, [&] {
      plan = allowance_->plan(bytes, selections, std::max(k_least_time_per_point.count(), seconds), keep);
    }));
    std::vector<Outcome> all(selections.size(), Outcome::without_time());
    if (plan.which.empty()) return all;
    listener_->next(std::min(1.0, spent() / options_.budget.count()),
                    fmt::format("{} {} {}{}", to_string(question.collective), question.transport, format_size(bytes),
                                what == TuneListener::For::judging  ? " (held out)"
                                : what == TuneListener::For::codecs ? " (codecs)"
                                                                    : ""));
    TuningCommand command;
    command.order = TuningOrder::measure;
    command.count = bytes / unit;
    command.time_per_point = plan.time_per_point;
    command.pace = plan.pace;
    command.most_time = plan.most_time;
    for (const std::size_t i : plan.which) command.selections.push_back(selections[i]);
    const std::vector<Call> calls = calls_of(question.collective, command);
    std::vector<Outcome> outcomes;
    std::string phase;
    double attempt_begin = 0;
    for (int attempt = 0; attempt < k_block_tries; ++attempt) {
      if (!watch_.seen()) GRADRAIL_TRY(watch_.look());
      const Phase before = *watch_.seen();
      attempt_begin = spent();
      command.seed = ++seed_;
      GRADRAIL_TRY(bootstrap_.broadcast(pack(command), soon()));
      GRADRAIL_ASSIGN(outcomes, obey(group, buffers, calls, command));
      GRADRAIL_TRY(watch_.look());
      phase = watch_.between(before, *watch_.seen());
      if (same_phase(before, *watch_.seen()) || !allowance_->again(spent() - attempt_begin)) break;
    }
    watch_.measured(bytes, phase);
    if (bytes != last_bytes_ && what == TuneListener::For::judging) ++judgements_;
    last_bytes_ = bytes;
    SelectionSamples samples;
    std::size_t too_late = 0;
    for (const Outcome& outcome : outcomes) {
      samples.push_back(samples_of(outcome));
      too_late += outcome.no_time;
    }
    allowance_->learn(bytes, command.selections, samples);
    allowance_->leave_out(bytes, too_late, selections.size());
    allowance_->took(spent() - attempt_begin);
    const Setting setting{
        question.transport, to_string(Topology{question.ranks / question.ranks_per_host, question.ranks_per_host}),
        question.ranks,     question.ranks_per_host,
        axes_.buffers,      axes_.cache,
        axes_.rules.check,  axes_.bind,
        links_.model};
    GRADRAIL_TRY(listener_->block({setting, bytes, what, phase, command.selections, calls, outcomes}));
    for (std::size_t k = 0; k < outcomes.size(); ++k) all[plan.which[k]] = std::move(outcomes[k]);
    return all;
  }

  // So that all points of a case fit into its share of the budget, about; what bisection will add is guessed.
  double time_per_point(const Question& question, const std::vector<std::int64_t>& grid, double share) const {
    std::size_t points = 0;
    for (const std::int64_t bytes : grid) {
      Question here = question;
      here.bytes = static_cast<std::uint64_t>(bytes);
      points += candidates(here).size();
    }
    // Each size of the grid has one held out beside it; checks, warming up and bisection take more time than
    // measuring does.
    const double fit = share / (5.0 * static_cast<double>(std::max<std::size_t>(points, 1)));
    return std::clamp(fit, k_least_time_per_point.count(),
                      std::max(k_least_time_per_point.count(), axes_.rules.time_per_point.count()));
  }

  Bootstrap& bootstrap_;
  const TuneOptions& options_;
  const SweepOptions& axes_;
  TuneListener* listener_;
  PhaseWatch watch_;  // rank 0
  std::int64_t last_bytes_ = 0;
  int judgements_ = 0;              // sizes judged, of the case at hand
  LinkCalibration links_;           // of the group at hand
  Allowance* allowance_ = nullptr;  // rank 0: of the case at hand
  Clock::time_point begin_;
  std::size_t cases_ = 0;
  std::size_t done_cases_ = 0;
  double links_seconds_ = 0;
  std::uint64_t seed_ = 0;
};

}  // namespace

Result<void> run_tuning(Bootstrap& bootstrap, const TuneOptions& options, TuneListener* listener) {
  return TuningJob(bootstrap, options, listener).run();
}

}  // namespace gradrail
