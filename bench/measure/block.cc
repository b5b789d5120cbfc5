#include "bench/measure/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "bench/measure/allowance.h"
#include "bench/measure/contender_turns.h"
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

// What a rank goes over on its own at most, between operations.
double touched_bytes(const Communicator& group, const std::vector<BlockCase>& cases) {
  std::uint64_t most = 0;
  for (const auto& [call, buffers] : cases)
    most = std::max(most, Buffers::in_bytes(call, group.rank(), group.ranks()) +
                              Buffers::out_bytes(call, group.rank(), group.ranks()));
  if (cases.front().buffers->flushes()) most += Buffers::k_flush_bytes;
  return static_cast<double>(most) * group.ranks_here();
}

// One rank's view of a block.
class Block {
 public:
  Block(Bootstrap& bootstrap, Communicator& communicator, const std::vector<BlockCase>& cases,
        const MeasureRules& rules, const Contenders& contenders)
      : bootstrap_(bootstrap),
        communicator_(communicator),
        cases_(cases),
        rules_(rules),
        entrants_(cases.size() + contenders.size()),
        patience_(control_wait(rules.timeout, touched_bytes(communicator, cases))),
        contenders_(bootstrap, communicator.ranks(), contenders, std::span(entrants_).subspan(cases.size()),
                    cases.front(), rules, patience_) {
    looks_.resize(cases.size());
    spent_.resize(cases.size());
    coded_ = std::any_of(cases.begin(), cases.end(),
                         [](const BlockCase& one) { return one.call.coding.asked() || one.call.coding.permitted(); }) &&
             Gradient::fits(cases.front().call);
  }

  Result<std::vector<Outcome>> run() {
    if (rules_.deal_out_ranks && communicator_.crowded()) deal_out_ranks(*rules_.deal_out_ranks);
    // What a codec remembers of other data would show as its error.
    communicator_.forget_encodings();
    GRADRAIL_TRY(prepare_cases());
    GRADRAIL_TRY(contenders_.prepare(data_seed(cases_.size())));
    GRADRAIL_TRY(agree());
    GRADRAIL_TRY(fill_with_gradients());
    GRADRAIL_TRY(take_samples());
    GRADRAIL_TRY(collect());
    std::vector<Outcome> outcomes;
    for (Entrant& one : entrants_) outcomes.push_back(std::move(one.outcome));
    return outcomes;
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
  [[nodiscard]] bool encoded(std::size_t index) const { return !entrants_[index].outcome.ran.codec.empty(); }
  // The input changes from sample to sample, so that the codecs' must be made anew; of all cases alike, too.
  [[nodiscard]] bool refills() const {
    return coded_ && (cases_.front().call.in_place || cases_.front().buffers->rotates());
  }
  // Of all cases alike.
  [[nodiscard]] bool flushes() const { return cases_.front().buffers->flushes(); }

  Result<void> prepare_cases() {
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      bool go_on = true;
      if (i > 0) {
        GRADRAIL_ASSIGN(go_on, there_is_time(k_share_for_preparing));
      }
      if (go_on)
        GRADRAIL_TRY(prepare(i));
      else
        for (; i < cases_.size(); ++i) entrants_[i].outcome = Outcome::without_time();
    }
    return {};
  }
  // By the clock of rank 0: whether this share of the block's time is left. Collective.
  Result<bool> there_is_time(double share) {
    if (rules_.most_time.count() <= 0) return true;
    ByteWriter writer;
    writer.put(static_cast<std::uint8_t>(elapsed() < share * rules_.most_time));
    GRADRAIL_ASSIGN(const Bytes told, bootstrap_.broadcast(std::move(writer).take(), Deadline::after(patience_)));
    ByteReader reader(told);
    const bool left = reader.get<std::uint8_t>() != 0;
    if (!reader.ok()) return fail(Code::malformed, "rank 0's word on what time is left is damaged", 0);
    return left;
  }
  [[nodiscard]] Seconds elapsed() const { return Clock::now() - begin_; }
  [[nodiscard]] int warmup() const { return std::max(1, std::min(rules_.warmup, rules_.pace.most_warmup)); }
  [[nodiscard]] std::uint64_t data_seed(std::size_t index) const { return rules_.seed * k_most_cases + index; }

  // Resolves, checks and warms up one case.
  Result<void> prepare(std::size_t index) {
    Entrant& entrant = entrants_[index];
    Outcome& outcome = entrant.outcome;
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
      const Payload payload(call.collective, call.count, call.type, call.op, ranks, call.root, data_seed(index));
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
    for (std::size_t path = 0; path < k_paths; ++path) entrant.sent[path] = after[path] - before[path];
    looks_[index].wire_bytes = std::accumulate(entrant.sent.begin(), entrant.sent.end(), std::uint64_t{0}) /
                               static_cast<std::uint64_t>(warmup());
    GRADRAIL_TRY(communicator_.barrier(soon()));
    // The shortest of a few: after others had the cores, the first ones tell more about the scheduler.
    entrant.estimate_us = rules_.pace.estimates > 0 ? std::numeric_limits<double>::infinity() : last_us;
    for (int i = 0; i < rules_.pace.estimates; ++i) {
      buffers.before_sample();
      begin = Clock::now();
      GRADRAIL_TRY(once(index));
      entrant.estimate_us = std::min(entrant.estimate_us, microseconds_since(begin));
    }
    return {};
  }

  // Runs the case on gradients, and sees how far from exact it comes out.
  Result<void> look(std::size_t index) {
    Call call = cases_[index].call;
    const int rank = communicator_.rank();
    const Gradient gradient(call, communicator_.ranks(), data_seed(index));
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
      GRADRAIL_ASSIGN(mine.error_of_one, gradient.error_of_one(entrants_[index].outcome.ran.codec, rank));
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
    for (std::size_t i = 0; i < entrants_.size(); ++i) {
      mine.put(entrants_[i].outcome.wrong);
      mine.put(entrants_[i].estimate_us);
      for (const std::uint64_t bytes : entrants_[i].sent) mine.put(bytes);
      if (coded_ && i < looks_.size()) looks_[i].put(mine);
    }
    GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(std::move(mine).take(), Deadline::after(patience_)));
    for (Entrant& one : entrants_) {
      one.outcome.wrong = 0;
      one.sent = {};
    }
    std::vector<std::vector<CodingLook>> looks(coded_ ? looks_.size() : 0);  // by case, by rank
    double shortest_us = std::max(k_shortest_sample_us, rules_.shortest_sample.count() * 1e6);
    double spent = 0;
    for (const Bytes& bytes : all) {
      ByteReader reader(bytes);
      if (reader.get<std::uint8_t>() != 0) shortest_us = std::max(shortest_us, k_shortest_crowded_us);
      spent = std::max(spent, reader.get<double>());
      for (std::size_t i = 0; i < entrants_.size(); ++i) {
        entrants_[i].outcome.wrong += reader.get<std::uint64_t>();
        entrants_[i].estimate_us = std::max(entrants_[i].estimate_us, reader.get<double>());
        for (std::uint64_t& total : entrants_[i].sent) total += reader.get<std::uint64_t>();
        if (coded_ && i < looks_.size()) looks.at(i).push_back(CodingLook::get(reader));
      }
      if (!reader.ok()) return fail(Code::malformed, "a rank's report of its checks is damaged");
    }
    for (std::size_t i = 0; i < looks.size(); ++i) {
      Outcome& outcome = entrants_[i].outcome;
      if (outcome.refused) continue;
      const Judgement judged = judge(cases_[i].call, outcome.ran, looks[i], data_seed(i));
      outcome.coding = judged.figures;
      outcome.why_wrong = rules_.check ? judged.why_wrong : "";
      if (!outcome.why_wrong.empty()) outcome.wrong = cases_[i].call.count;
    }
    for (std::size_t i = 0; i < cases_.size(); ++i)
      if (!entrants_[i].outcome.refused) entrants_[i].outcome.path = main_path(entrants_[i].sent);
    for (Entrant& one : entrants_) settle_samples(one, shortest_us);
    if (rules_.most_time.count() > 0) fit_into((rules_.most_time.count() - spent) * 1e6);
    return {};
  }

  // How many samples, of how many operations.
  void settle_samples(Entrant& one, double shortest_us) const {
    if (one.outcome.refused || one.outcome.wrong > 0) return;
    const double once_us = std::max(one.estimate_us, 0.01);
    // With flushed caches only the first call of a batch would find them so.
    if (synchronises(cases_.front().call.collective) && !flushes() && !refills())
      one.outcome.batch = static_cast<int>(std::clamp(std::ceil(shortest_us / once_us), 1.0, double{k_largest_batch}));
    const double fit = rules_.time_per_point.count() * 1e6 / (once_us * one.outcome.batch + one.barrier_us);
    one.wanted = rules_.samples > 0
                     ? rules_.samples
                     : static_cast<int>(std::clamp(fit, double(rules_.pace.fewest_samples), double{k_most_samples}));
    one.own_us.reserve(static_cast<std::size_t>(one.wanted));
  }

  void fit_into(double left_us) {
    std::vector<int> wanted;
    std::vector<double> sample_us;
    for (const Entrant& one : entrants_) {
      wanted.push_back(one.wanted);
      sample_us.push_back((refresh_ ? 2 : 1) * (one.estimate_us * one.outcome.batch + one.barrier_us));
    }
    refresh_ = !fit_samples(wanted, sample_us, left_us) && refresh_;
    for (std::size_t i = 0; i < entrants_.size(); ++i) entrants_[i].wanted = wanted[i];
  }

  Result<void> take_samples() {
    std::vector<std::size_t> order(entrants_.size());
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(rules_.seed);  // the same on all ranks
    bool begun = false;
    for (int round = 0; round < k_rounds; ++round) {
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t index : order) {
        // Something in the first round for all, if the time runs out.
        const int until = (entrants_[index].wanted * (round + 1) + k_rounds - 1) / k_rounds;
        if (index >= cases_.size()) {
          GRADRAIL_TRY(contenders_.give_turn(index - cases_.size(), until));
          continue;
        }
        const auto taken = [&] { return static_cast<int>(entrants_[index].own_us.size()); };
        if (taken() >= until) continue;
        bool go_on = true;
        if (begun) {
          GRADRAIL_ASSIGN(go_on, there_is_time(1));
        }
        if (!go_on) return {};
        begun = true;
        if (refresh_) GRADRAIL_TRY(once(index));  // its code and data come back into the caches
        while (taken() < until) GRADRAIL_TRY(take_sample(index));
      }
      if (round == 0) contenders_.drop_hopeless();
    }
    return {};
  }

  Result<void> take_sample(std::size_t index) {
    const int batch = entrants_[index].outcome.batch;
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
    entrants_[index].own_us.push_back(microseconds_since(begin) / batch);
    if (encoded(index)) {
      const Encoding& encoding = communicator_.encoding();
      spent_[index].encode += encoding.encode;
      spent_[index].decode += encoding.decode;
      spent_[index].all += encoding.encode + encoding.decode + encoding.wire;
    }
    return {};
  }

  Result<void> collect() {
    contenders_.release();
    for (std::size_t i = cases_.size(); i < entrants_.size(); ++i)
      entrants_[i].outcome.samples_us = std::move(entrants_[i].own_us);
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      const auto mine = std::as_bytes(std::span(entrants_[i].own_us));
      GRADRAIL_ASSIGN(const auto all, bootstrap_.all_gather(mine, Deadline::after(patience_)));
      std::vector<std::vector<double>> by_rank;
      for (const Bytes& bytes : all) {
        std::vector<double> samples(bytes.size() / sizeof(double));
        std::memcpy(samples.data(), bytes.data(), samples.size() * sizeof(double));
        by_rank.push_back(std::move(samples));
      }
      Outcome& outcome = entrants_[i].outcome;
      outcome.samples_us = slowest_rank(by_rank);
      if (outcome.samples_us.empty() && !outcome.refused && outcome.wrong == 0) outcome = Outcome::without_time();
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
        if (!entrants_[i].outcome.coding || !(whole > 0)) continue;
        CodingFigures& figures = *entrants_[i].outcome.coding;
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
  std::vector<Entrant> entrants_;  // our cases, then the contenders
  Seconds patience_{};             // with ranks that are busy on their own
  ContenderTurns contenders_;
  bool coded_ = false;             // some case's data is encoded
  std::vector<CodingLook> looks_;  // by case, as the next
  std::vector<CodingTime> spent_;  // over samples
  std::optional<Gradient> gradient_;
};

}  // namespace

Outcome Outcome::without_time() {
  Outcome outcome;
  outcome.refused = Error{Code::exhausted, "there was no time left for it"};
  outcome.no_time = true;
  return outcome;
}

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
