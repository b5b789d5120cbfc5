#include "bench/measure/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "bench/measure/allowance.h"
#include "bench/measure/gradient.h"
#include "bench/measure/patience.h"
#include "bench/measure/payload.h"
#include "bench/measure/statistics.h"
#include "transports/base/cores.h"
#include "transports/bootstrap/capacity.h"

namespace gradrail {

namespace {

// A sample shorter than this would measure the clock and the barrier's exit.
constexpr double k_shortest_sample_us = 50;
// Ranks that share cores leave a barrier one after the other, many microseconds apart.
constexpr double k_shortest_crowded_us = 500;
constexpr int k_largest_batch = 2000;
constexpr double k_share_for_preparing = 0.4;  // of a block's time; as much as its operations have of the least
constexpr int k_most_samples = 1000;
constexpr int k_rounds = 8;
// What a contender's rank holds, as a multiple of its data: input, output, and what libraries take for sums and keep.
constexpr std::uint64_t k_contender_copies = 5;
constexpr Seconds k_longest_turn{60};         // of a contender, beyond what every operation may take
constexpr std::uint64_t k_most_cases = 4096;  // of a block, as far as the seeds of their data go

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// Whether no rank can end a call before every rank has begun it. Of others, a batch would show the rate at which calls
// follow each other, not the time that one takes: a broadcast's root is done as soon as its bytes are on their way.
bool synchronises(Collective collective) {
  return collective == Collective::allreduce || collective == Collective::reduce_scatter ||
         collective == Collective::all_gather || collective == Collective::all_to_all;
}

std::string main_path(const Traffic& sent) {
  const auto most = std::max_element(sent.begin(), sent.end());
  if (*most == 0) return "-";
  return std::string(to_string(static_cast<Path>(most - sent.begin())));
}

// One rank's view of a block.
class Block {
 public:
  Block(Bootstrap& bootstrap, Communicator& communicator, const std::vector<BlockCase>& cases,
        const MeasureRules& rules, const Contenders& contenders)
      : bootstrap_(bootstrap), communicator_(communicator), cases_(cases), rules_(rules), contenders_(contenders) {
    const std::size_t all = cases.size() + contenders.size();
    outcomes_.resize(all);
    estimates_us_.resize(all);
    barriers_us_.resize(all);
    sent_.resize(all);
    samples_.resize(all);
    wanted_.resize(all);
    looks_.resize(cases.size());
    spent_.resize(cases.size());
    coded_ = std::any_of(cases.begin(), cases.end(),
                         [](const BlockCase& one) { return one.call.coding.asked() || one.call.coding.permitted(); }) &&
             Gradient::fits(cases.front().call);
    double touched = 0;
    for (const auto& [call, buffers] : cases)
      touched =
          std::max(touched, static_cast<double>(Buffers::in_bytes(call, communicator.rank(), communicator.ranks()) +
                                                Buffers::out_bytes(call, communicator.rank(), communicator.ranks())));
    if (flushes()) touched += static_cast<double>(Buffers::k_flush_bytes);
    patience_ = control_wait(rules.timeout, touched * communicator.ranks_here());
  }

  Result<std::vector<Outcome>> run() {
    if (rules_.deal_out_ranks && communicator_.crowded()) deal_out_ranks(*rules_.deal_out_ranks);
    // What a codec remembers of other data would show as its error.
    communicator_.forget_encodings();
    GRADRAIL_TRY(prepare_cases());
    GRADRAIL_TRY(prepare_contenders());
    GRADRAIL_TRY(agree());
    GRADRAIL_TRY(fill_with_gradients());
    GRADRAIL_TRY(take_samples());
    GRADRAIL_TRY(collect());
    return std::move(outcomes_);
  }

 private:
  [[nodiscard]] Deadline soon() const { return Deadline::after(rules_.timeout); }
  // From way to way all but the first move on by one, so that each comes to share a core with each other.
  void deal_out_ranks(std::uint64_t way) const {
    const auto cores = usable_cores();
    const auto ranks = static_cast<std::size_t>(communicator_.ranks_here());
    const std::size_t me = static_cast<std::size_t>(communicator_.rank()) % ranks;
    const std::size_t place = me == 0 ? 0 : 1 + (me - 1 + way) % (ranks - 1);
    move_to_core(cores[place * cores.size() / ranks]);
  }
  [[nodiscard]] Result<void> once(std::size_t index) {
    Call call = cases_[index].call;
    cases_[index].buffers->place(call, communicator_.rank(), communicator_.ranks());
    return communicator_.run(call, soon());
  }
  // As it came to be: auto may have chosen to.
  [[nodiscard]] bool encoded(std::size_t index) const { return !outcomes_[index].ran.codec.empty(); }
  // The input changes from sample to sample, so that the codecs' must be made anew; of all cases alike, too.
  [[nodiscard]] bool refills() const {
    return coded_ && (cases_.front().call.in_place || cases_.front().buffers->rotates());
  }
  // Of all cases alike.
  [[nodiscard]] bool flushes() const { return cases_.front().buffers->flushes(); }

  // The clock of rank 0 says how many there is time for.
  Result<void> prepare_cases() {
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      if (i > 0 && rules_.most_time.count() > 0) {
        ByteWriter writer;
        writer.put(static_cast<std::uint8_t>(elapsed() < k_share_for_preparing * rules_.most_time));
        GRADRAIL_ASSIGN(const Bytes told, bootstrap_.broadcast(std::move(writer).take(), Deadline::after(patience_)));
        ByteReader reader(told);
        if (reader.get<std::uint8_t>() == 0) {
          for (; i < cases_.size(); ++i) outcomes_[i].refused = Error{Code::exhausted, "there was no time left for it"};
          return {};
        }
      }
      GRADRAIL_TRY(prepare(i));
    }
    return {};
  }
  [[nodiscard]] Seconds elapsed() const { return Clock::now() - begin_; }
  [[nodiscard]] int warmup() const { return std::max(1, std::min(rules_.warmup, rules_.pace.most_warmup)); }

  // Resolves, checks and warms up one case.
  Result<void> prepare(std::size_t index) {
    Outcome& outcome = outcomes_[index];
    Call call = cases_[index].call;
    Buffers& buffers = *cases_[index].buffers;
    const int rank = communicator_.rank();
    const int ranks = communicator_.ranks();
    buffers.place(call, rank, ranks);  // the choice goes by the memory, too
    auto ran = communicator_.resolve(call, soon());
    if (!ran) {
      const Code code = ran.error().code;
      if (code != Code::unsupported && code != Code::bad_usage) return tl::unexpected<Error>(std::move(ran).error());
      outcome.refused = std::move(ran).error();
      return {};
    }
    outcome.ran = *ran;
    if (coded_) GRADRAIL_TRY(look(index));
    if (rules_.check && !encoded(index)) {
      const Payload payload(call.collective, call.count, call.type, call.op, ranks, call.root,
                            rules_.seed * k_most_cases + index);
      buffers.place(call, rank, ranks);
      const auto in = Buffers::in_bytes(call, rank, ranks);
      const auto out = Buffers::out_bytes(call, rank, ranks);
      // Whatever an earlier call left there must not pass for an answer.
      if (out > 0) std::memset(call.out.data(), 0xA5, out);
      if (in > 0) payload.fill(rank, {call.in.data(), in});
      GRADRAIL_TRY(everyone_is_here());
      GRADRAIL_TRY(communicator_.run(call, soon()));
      outcome.wrong = payload.count_wrong(rank, {call.out.data(), out});
      // Nobody overwrites an input that a peer still reads.
      GRADRAIL_TRY(everyone_is_here());
    }
    const Traffic before = communicator_.traffic();
    auto begin = Clock::now();
    for (int i = 0; i < warmup(); ++i) {
      begin = Clock::now();
      GRADRAIL_TRY(once(index));
    }
    const double last_us = microseconds_since(begin);
    const Traffic after = communicator_.traffic();
    for (std::size_t path = 0; path < k_paths; ++path) sent_[index][path] = after[path] - before[path];
    looks_[index].wire_bytes = std::accumulate(sent_[index].begin(), sent_[index].end(), std::uint64_t{0}) /
                               static_cast<std::uint64_t>(warmup());
    GRADRAIL_TRY(communicator_.barrier(soon()));
    // The shortest of a few: after others had the cores, the first ones tell more about the scheduler.
    estimates_us_[index] = rules_.pace.estimates > 0 ? std::numeric_limits<double>::infinity() : last_us;
    for (int i = 0; i < rules_.pace.estimates; ++i) {
      buffers.before_sample();
      begin = Clock::now();
      GRADRAIL_TRY(once(index));
      estimates_us_[index] = std::min(estimates_us_[index], microseconds_since(begin));
    }
    return {};
  }

  // Runs the case on gradients, and sees how far from exact it comes out.
  Result<void> look(std::size_t index) {
    Call call = cases_[index].call;
    const int rank = communicator_.rank();
    const Gradient gradient(call, communicator_.ranks(), rules_.seed * k_most_cases + index);
    cases_[index].buffers->place(call, rank, communicator_.ranks());
    const auto in = Buffers::in_bytes(call, rank, communicator_.ranks());
    const auto out = Buffers::out_bytes(call, rank, communicator_.ranks());
    if (out > 0) std::memset(call.out.data(), 0xA5, out);
    gradient.fill(rank, {call.in.data(), in});
    GRADRAIL_TRY(everyone_is_here());
    GRADRAIL_TRY(communicator_.run(call, soon()));
    CodingLook& mine = looks_[index];
    mine.seen = gradient.look(rank, {call.out.data(), out});
    if (encoded(index)) {
      GRADRAIL_ASSIGN(mine.error_of_one, gradient.error_of_one(outcomes_[index].ran.codec, rank));
      mine.dense_bytes = communicator_.encoding().dense_bytes;
      mine.seen.non_finite |= communicator_.encoding().non_finite;
    }
    return everyone_is_here();
  }

  // So that codecs are timed on what they are for. An input that is the output too is filled for every sample.
  Result<void> fill_with_gradients() {
    if (!coded_) return {};
    for (std::size_t i = 0; i < cases_.size(); ++i) fill_input(i);
    return everyone_is_here();
  }
  void fill_input(std::size_t index) {
    Call call = cases_[index].call;
    cases_[index].buffers->place(call, communicator_.rank(), communicator_.ranks());
    fill_input(call);
  }
  void fill_input(const Call& call) {
    if (!gradient_) gradient_.emplace(call, communicator_.ranks(), rules_.seed);
    gradient_->fill(communicator_.rank(),
                    {call.in.data(), Buffers::in_bytes(call, communicator_.rank(), communicator_.ranks())});
  }

  // Ranks fill, compare and flush at their own pace; an operation's deadline begins when all are back.
  Result<void> everyone_is_here() { return communicator_.barrier(Deadline::after(patience_)); }

  // Everyone learns how many elements were wrong anywhere, by which paths bytes went, how long an operation takes at
  // the slowest rank, and from that the same batch and number of samples.
  Result<void> agree() {
    ByteWriter mine;
    mine.put(static_cast<std::uint8_t>(communicator_.crowded()));
    mine.put(elapsed().count());
    for (std::size_t i = 0; i < outcomes_.size(); ++i) {
      mine.put(outcomes_[i].wrong);
      mine.put(estimates_us_[i]);
      for (const std::uint64_t bytes : sent_[i]) mine.put(bytes);
      if (coded_ && i < looks_.size()) looks_[i].put(mine);
    }
    GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(std::move(mine).take(), Deadline::after(patience_)));
    for (Outcome& outcome : outcomes_) outcome.wrong = 0;
    std::fill(sent_.begin(), sent_.end(), Traffic{});
    std::vector<std::vector<CodingLook>> looks(coded_ ? looks_.size() : 0);  // by case, by rank
    double shortest_us = k_shortest_sample_us;
    double spent = 0;
    for (const Bytes& bytes : all) {
      ByteReader reader(bytes);
      if (reader.get<std::uint8_t>() != 0) shortest_us = k_shortest_crowded_us;
      spent = std::max(spent, reader.get<double>());
      for (std::size_t i = 0; i < outcomes_.size(); ++i) {
        outcomes_[i].wrong += reader.get<std::uint64_t>();
        estimates_us_[i] = std::max(estimates_us_[i], reader.get<double>());
        for (std::uint64_t& total : sent_[i]) total += reader.get<std::uint64_t>();
        if (coded_ && i < looks_.size()) looks.at(i).push_back(CodingLook::get(reader));
      }
      if (!reader.ok()) return fail(Code::malformed, "a rank's report of its checks is damaged");
    }
    for (std::size_t i = 0; i < looks.size(); ++i)
      if (!outcomes_[i].refused) {
        const Judgement judged = judge(cases_[i].call, outcomes_[i].ran, looks[i], rules_.seed * k_most_cases + i);
        outcomes_[i].coding = judged.figures;
        outcomes_[i].why_wrong = rules_.check ? judged.why_wrong : "";
        if (!outcomes_[i].why_wrong.empty()) outcomes_[i].wrong = cases_[i].call.count;
      }
    for (std::size_t i = 0; i < outcomes_.size(); ++i) {
      if (outcomes_[i].refused || outcomes_[i].wrong > 0) continue;
      if (!is_contender(i)) outcomes_[i].path = main_path(sent_[i]);
      const double once_us = std::max(estimates_us_[i], 0.01);
      // With flushed caches only the first call of a batch would find them so.
      if (synchronises(cases_.front().call.collective) && !flushes() && !refills())
        outcomes_[i].batch = static_cast<int>(std::clamp(shortest_us / once_us, 1.0, double{k_largest_batch}));
      const double sample_us = once_us * outcomes_[i].batch + barriers_us_[i];
      const double fit = rules_.time_per_point.count() * 1e6 / sample_us;
      wanted_[i] = rules_.samples > 0
                       ? rules_.samples
                       : static_cast<int>(std::clamp(fit, double(rules_.pace.fewest_samples), double{k_most_samples}));
      samples_[i].reserve(static_cast<std::size_t>(wanted_[i]));
    }
    if (rules_.most_time.count() > 0) fit_into((rules_.most_time.count() - spent) * 1e6);
    return {};
  }

  void fit_into(double left_us) {
    std::vector<double> sample_us;
    for (std::size_t i = 0; i < outcomes_.size(); ++i)
      sample_us.push_back((refresh_ ? 2 : 1) * (estimates_us_[i] * outcomes_[i].batch + barriers_us_[i]));
    refresh_ = !fit_samples(wanted_, sample_us, left_us) && refresh_;
  }

  Result<void> take_samples() {
    std::vector<std::size_t> order(outcomes_.size());
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(rules_.seed);  // the same on all ranks
    for (int round = 0; round < k_rounds; ++round) {
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t index : order) {
        const int until = wanted_[index] * (round + 1) / k_rounds;
        if (is_contender(index)) {
          GRADRAIL_TRY(give_turn(index, until));
          continue;
        }
        if (static_cast<int>(samples_[index].size()) >= until) continue;
        if (refresh_) GRADRAIL_TRY(once(index));  // its code and data come back into the caches
        while (static_cast<int>(samples_[index].size()) < until) GRADRAIL_TRY(take_sample(index));
      }
      if (round == 0) drop_hopeless();
    }
    return {};
  }

  Result<void> take_sample(std::size_t index) {
    const int batch = outcomes_[index].batch;
    Buffers& buffers = *cases_[index].buffers;
    buffers.before_sample();
    GRADRAIL_TRY(buffers.flushes() ? everyone_is_here() : communicator_.barrier(soon()));
    // What is the harness's own is done once a sample, not once an operation: a look at the clock for a deadline takes
    // half as long as a cache line takes to another core.
    Call call = cases_[index].call;
    buffers.place(call, communicator_.rank(), communicator_.ranks());
    if (refills()) {
      fill_input(call);
      GRADRAIL_TRY(everyone_is_here());
    }
    const Deadline deadline = soon();
    const auto begin = Clock::now();
    for (int i = 0; i < batch; ++i) {
      if (i > 0 && buffers.rotates()) buffers.place(call, communicator_.rank(), communicator_.ranks());
      GRADRAIL_TRY(communicator_.run(call, deadline));
    }
    samples_[index].push_back(microseconds_since(begin) / batch);
    if (encoded(index)) {
      const Encoding& encoding = communicator_.encoding();
      spent_[index].encode += encoding.encode;
      spent_[index].decode += encoding.decode;
      spent_[index].all += encoding.encode + encoding.decode + encoding.wire;
    }
    return {};
  }

  [[nodiscard]] bool is_contender(std::size_t index) const { return index >= cases_.size(); }
  [[nodiscard]] Contender* contender(std::size_t index) const { return contenders_[index - cases_.size()]; }
  // What a contender may take for work that we expect to take so long.
  [[nodiscard]] Seconds patience(double expected_us) const {
    return patience_ + Seconds(std::min(3 * expected_us * 1e-6, k_longest_turn.count()));
  }

  // Rank 0 has its contenders check and warm up, one after the other, while the others wait; what they say reaches all
  // in agree().
  Result<void> prepare_contenders() {
    for (std::size_t i = cases_.size(); i < outcomes_.size(); ++i) {
      if (contender(i) != nullptr) {
        make_room(i);
        const auto trial =
            contender(i)->prepare(cases_.front().call, cases_.front().buffers->cache(), rules_.warmup, rules_.check,
                                  rules_.seed * k_most_cases + i, Deadline::after(patience(0)));
        if (trial) {
          outcomes_[i].wrong = trial->wrong;
          estimates_us_[i] = trial->operation_us;
          barriers_us_[i] = trial->barrier_us;
        } else {
          outcomes_[i].refused = trial.error();
        }
      }
      GRADRAIL_TRY(everyone_has_waited());
    }
    return {};
  }

  // For the contender that comes next, on rank 0. Without it the kernel would end some process.
  void make_room(std::size_t next) {
    const Call& call = cases_.front().call;
    const std::uint64_t wanted =
        k_contender_copies * static_cast<std::uint64_t>(communicator_.ranks()) *
        std::max(Buffers::in_bytes(call, 0, communicator_.ranks()), Buffers::out_bytes(call, 0, communicator_.ranks()));
    for (std::uint64_t free = rules_.free_memory(); free > 0 && free < wanted; free = rules_.free_memory()) {
      std::size_t slowest = next;
      for (std::size_t i = cases_.size(); i < next; ++i)
        if (!outcomes_[i].refused && (slowest == next || estimates_us_[i] > estimates_us_[slowest])) slowest = i;
      if (slowest == next) return;
      contender(slowest)->release(Deadline::after(patience_));
      outcomes_[slowest].refused = Error{
          Code::exhausted,
          fmt::format("left out after a trial of {:.0f} us, as there is no memory for the ranks of all libraries; "
                      "measure fewer of them (--against) or smaller messages (-e)",
                      estimates_us_[slowest]),
          Error::k_no_peer, 0};
    }
  }

  // Our ranks sleep in this until rank 0 comes. Rank 0's end is noticed at once; the deadline is for one that was
  // stopped.
  Result<void> everyone_has_waited() { return bootstrap_.barrier(Deadline::after(patience_ * 2 + k_longest_turn)); }

  // The contender takes samples until it has so many. What goes wrong there is its own affair, and ends its part.
  Result<void> give_turn(std::size_t index, int until) {
    Contender* const it = contender(index);
    Outcome& outcome = outcomes_[index];
    const int more = until - static_cast<int>(samples_[index].size());
    if (it != nullptr && !outcome.refused && outcome.wrong == 0 && more > 0) {
      const double expected_us = (estimates_us_[index] * outcome.batch + barriers_us_[index]) * more;
      auto taken = it->measure(more, outcome.batch, Deadline::after(patience(expected_us)));
      if (taken)
        samples_[index].insert(samples_[index].end(), taken->begin(), taken->end());
      else
        outcome.refused = std::move(taken).error();
    }
    return everyone_has_waited();
  }

  // On rank 0, which alone knows; the others wait for it all the same.
  void drop_hopeless() {
    double best = 0;
    for (std::size_t i = cases_.size(); i < outcomes_.size(); ++i)
      if (!samples_[i].empty() && (best == 0 || median(samples_[i]) < best)) best = median(samples_[i]);
    for (std::size_t i = cases_.size(); i < outcomes_.size(); ++i) {
      if (samples_[i].empty() || median(samples_[i]) <= k_hopeless * best) continue;
      wanted_[i] = 0;
      contender(i)->release(Deadline::after(patience_));
    }
  }

  Result<void> collect() {
    for (std::size_t i = cases_.size(); i < outcomes_.size(); ++i) {
      outcomes_[i].samples_us = std::move(samples_[i]);
      if (contender(i) != nullptr) contender(i)->release(Deadline::after(patience_));
    }
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      const auto mine = std::as_bytes(std::span(samples_[i]));
      GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(mine, Deadline::after(patience_)));
      std::vector<std::vector<double>> by_rank;
      for (const Bytes& bytes : all) {
        std::vector<double> samples(bytes.size() / sizeof(double));
        std::memcpy(samples.data(), bytes.data(), samples.size() * sizeof(double));
        by_rank.push_back(std::move(samples));
      }
      outcomes_[i].samples_us = slowest_rank(by_rank);
    }
    return collect_shares();
  }

  // The rank that encodes and decodes longest speaks for all.
  Result<void> collect_shares() {
    if (!coded_) return {};
    ByteWriter mine;
    for (const CodingTime& spent : spent_) {
      mine.put(spent.encode.count());
      mine.put(spent.decode.count());
      mine.put(spent.all.count());
    }
    GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(std::move(mine).take(), Deadline::after(patience_)));
    for (const Bytes& bytes : all) {
      ByteReader reader(bytes);
      for (std::size_t i = 0; i < spent_.size(); ++i) {
        const auto encode = reader.get<double>(), decode = reader.get<double>(), whole = reader.get<double>();
        if (!outcomes_[i].coding || !(whole > 0)) continue;
        CodingFigures& figures = *outcomes_[i].coding;
        if ((encode + decode) / whole < figures.encode_share + figures.decode_share) continue;
        figures.encode_share = encode / whole;
        figures.decode_share = decode / whole;
      }
      if (!reader.ok()) return fail(Code::malformed, "a rank's report of its times is damaged");
    }
    return {};
  }

  Bootstrap& bootstrap_;
  Communicator& communicator_;
  const std::vector<BlockCase>& cases_;
  const MeasureRules& rules_;
  Clock::time_point begin_ = Clock::now();
  bool refresh_ = rules_.pace.refresh;
  Seconds patience_{};  // with ranks that are busy on their own
  const Contenders& contenders_;
  std::vector<Outcome> outcomes_;  // of our cases, then of the contenders; so are all below
  std::vector<double> estimates_us_;
  std::vector<double> barriers_us_;  // contenders only, whose barriers may cost more than what they enclose
  std::vector<Traffic> sent_;        // by the warm-up; all ranks' once agreed
  std::vector<int> wanted_;
  std::vector<std::vector<double>> samples_;
  bool coded_ = false;             // some case's data is encoded
  std::vector<CodingLook> looks_;  // by case, as the next
  std::vector<CodingTime> spent_;  // over samples
  std::optional<Gradient> gradient_;
};

}  // namespace

std::uint64_t available_memory() {
  const auto capacity = read_capacity();
  return capacity ? capacity->free_memory_bytes : 0;
}

Result<std::vector<Outcome>> measure_block(Bootstrap& bootstrap, Communicator& communicator,
                                           const std::vector<BlockCase>& cases, const MeasureRules& rules,
                                           const Contenders& contenders) {
  if (cases.empty()) return std::vector<Outcome>();
  return Block(bootstrap, communicator, cases, rules, contenders).run();
}

Result<std::vector<Outcome>> measure_block(Bootstrap& bootstrap, Communicator& communicator, Buffers& buffers,
                                           const std::vector<Call>& cases, const MeasureRules& rules) {
  std::vector<BlockCase> with_buffers;
  for (const Call& call : cases) with_buffers.push_back({call, &buffers});
  return measure_block(bootstrap, communicator, with_buffers, rules);
}

}  // namespace gradrail
