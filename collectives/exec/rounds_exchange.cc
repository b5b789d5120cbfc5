// Codecs that all ranks make together: two sums over the ranks, each an ordinary allreduce of what the codec gives, and
// from them everyone makes the same result. For PowerSGD, the sums of P and of Q: Vogels, Karimireddy, Jaggi,
// "PowerSGD: practical low-rank gradient compression for distributed optimization" (NeurIPS 2019), algorithm 1.
//
// Rounds and bytes: those of the two plans, which are chosen as for any data of that size.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "collectives/exec/exchange.h"
#include "collectives/exec/step_trace.h"
#include "collectives/plan/planner.h"
#include "collectives/select/selector.h"

namespace gradrail {
namespace {

// What the codec gives in each round, in values; from a codec of its own, as it depends on the count alone.
Result<std::array<std::size_t, 2>> lengths_of(const ExchangeSetting& setting) {
  GRADRAIL_ASSIGN(const auto codec, make_codec(setting.codec));
  Rounds* const rounds = codec->rounds();
  if (rounds == nullptr) return fail(Code::unsupported, setting.codec + ": is not made in rounds");
  const std::vector<float> zeros(setting.count);
  GRADRAIL_ASSIGN(const std::span<float> first, rounds->first(zeros, {}));
  return std::array<std::size_t, 2>{first.size(), rounds->second().size()};
}

Result<Program> sum_of(const ExchangeSetting& setting, std::size_t values) {
  Question question;
  question.bytes = values * sizeof(float);
  question.ranks = setting.ranks;
  question.ranks_per_host = setting.ranks_per_host;
  question.in_place = true;
  const Selection choice = default_selection(question);
  Shape shape;
  shape.collective = Collective::allreduce;
  shape.ranks = setting.ranks;
  shape.ranks_per_host = setting.ranks_per_host;
  shape.in_place = true;
  shape.lanes = choice.lanes;
  shape.pieces = choice.pieces;
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(choice.algorithm, shape));
  return plan(*planner, shape, setting.rank);
}

class RoundsExchange final : public ExchangeRun {
 public:
  RoundsExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec)
      : setting_(setting), means_(means), codec_(codec), rounds_(*codec.rounds()) {}

  [[nodiscard]] Result<void> set_up() {
    GRADRAIL_ASSIGN(lengths_, lengths_of(setting_));
    BindOptions options;
    options.direct_out = true;  // sums are made in wire memory, which peers reach as they reach scratch
    for (std::size_t round = 0; round < 2; ++round) {
      GRADRAIL_ASSIGN(const Program program, sum_of(setting_, lengths_[round]));
      programs_[round] = gradrail::bind(program, lengths_[round], Type::f32, ReduceOp::sum, options, means_.channel);
      runs_[round] = std::make_unique<Execution>(programs_[round]);
    }
    scratch_at_ = (std::max(lengths_[0], lengths_[1]) * sizeof(float) + 63) / 64 * 64;
    return {};
  }

  [[nodiscard]] Ran ran() const override {
    Ran ran;
    ran.algorithm = "rounds";
    ran.codec = codec_.name();
    ran.requantised = 1;
    return ran;
  }
  [[nodiscard]] std::size_t wire_bytes() const override {
    return scratch_at_ + std::max(programs_[0].scratch_bytes, programs_[1].scratch_bytes) + 64;
  }

  void start(MemoryView in, MemoryView out, MemoryView wire) override {
    out_ = out;
    wire_ = wire;
    failed_.reset();
    round_ = 0;
    encoding_ = {};
    const auto n = static_cast<std::uint64_t>(setting_.ranks);
    encoding_.dense_bytes = 2 * (n - 1) * setting_.count * sizeof(float) / n;
    traffic_ = traffic();
    started_ = Clock::now();
    const Origin origin{setting_.seed, means_.state->next_step(), setting_.tensor,
                        static_cast<std::uint32_t>(setting_.rank), 0};
    const auto* const from = reinterpret_cast<const float*>(in.data());
    auto first = rounds_.first({from, setting_.count}, origin);
    encoding_.encode += Clock::now() - started_;
    trace_.over({"encode", -1, lengths_[0] * sizeof(float), 0}, started_);
    if (!first) {
      failed_ = std::move(first).error();
      return;
    }
    sum(*first);
  }
  [[nodiscard]] bool progress() override {
    if (failed_ || round_ == 2) return false;
    const bool moved = runs_[round_]->progress();
    if (!runs_[round_]->done()) return moved;
    const auto before = Clock::now();
    std::memcpy(given_.data(), wire_.data(), given_.size_bytes());
    if (++round_ == 1) {
      const auto second = rounds_.second();
      encoding_.encode += Clock::now() - before;
      trace_.over({"encode", -1, lengths_[1] * sizeof(float), 1}, before);
      sum(second);
    } else {
      finish(before);
    }
    return true;
  }
  [[nodiscard]] bool done() const override { return round_ == 2; }
  [[nodiscard]] Execution::Awaited awaited() const override {
    return round_ < 2 ? runs_[round_]->awaited() : Execution::Awaited{};
  }
  [[nodiscard]] const Error* failure() const override {
    if (failed_) return &*failed_;
    return round_ < 2 ? runs_[round_]->failure() : nullptr;
  }
  [[nodiscard]] const Encoding& encoding() const override { return encoding_; }
  void trace(std::vector<StepTime>* times) override {
    trace_.into(times);
    for (const auto& run : runs_) run->trace(times);
  }

 private:
  void sum(std::span<float> values) {
    given_ = values;
    std::memcpy(wire_.data(), values.data(), values.size_bytes());
    runs_[round_]->start(wire_, wire_, {wire_.memory, wire_.offset + scratch_at_});
  }
  void finish(Clock::time_point before) {
    const std::span<float> to(reinterpret_cast<float*>(out_.data()), setting_.count);
    for (const float value : given_) encoding_.non_finite |= !(value - value == 0);
    rounds_.apply_rounds(to, setting_.ranks);
    codec_.finish(to);
    const auto now = Clock::now();
    encoding_.decode = now - before;
    trace_.over({"decode", -1, lengths_[1] * sizeof(float), 1}, before);
    encoding_.wire = std::max(Seconds(0), Seconds(now - started_) - encoding_.encode - encoding_.decode);
    encoding_.wire_bytes = traffic() - traffic_;
  }
  [[nodiscard]] std::uint64_t traffic() const {
    std::uint64_t sum = 0;
    for (const Channel* channel : programs_[0].each_channel) sum += bytes_of(*channel);
    for (const Channel* channel : programs_[1].each_channel) {
      const auto& before = programs_[0].each_channel;
      if (std::find(before.begin(), before.end(), channel) == before.end()) sum += bytes_of(*channel);
    }
    return sum;
  }
  [[nodiscard]] static std::uint64_t bytes_of(const Channel& channel) {
    std::uint64_t sum = 0;
    for (const std::uint64_t bytes : channel.endpoint->traffic()) sum += bytes;
    return sum;
  }

  ExchangeSetting setting_;
  ExchangeMeans means_;
  Codec& codec_;
  Rounds& rounds_;
  std::array<std::size_t, 2> lengths_{};
  std::array<BoundProgram, 2> programs_;
  std::array<std::unique_ptr<Execution>, 2> runs_;
  std::size_t scratch_at_ = 0;
  MemoryView out_, wire_;
  std::span<float> given_;  // by the codec in this round
  std::size_t round_ = 2;
  std::uint64_t traffic_ = 0;
  Encoding encoding_;
  StepTrace trace_;
  std::optional<Error> failed_;
  Clock::time_point started_;
};

Result<void> supports(const ExchangeSetting& setting, const Codec& codec) {
  if (setting.collective != Collective::allreduce) {
    return fail(Code::unsupported,
                fmt::format("{}: rounds are for allreduce, not for {}", codec.name(), to_string(setting.collective)));
  }
  if (setting.where == CodecWhere::between_hosts) {
    return fail(Code::unsupported,
                codec.name() + ": what is made in rounds is made by all ranks, not between hosts only");
  }
  GRADRAIL_ASSIGN(const auto own, make_codec(setting.codec));
  if (own->rounds() == nullptr) {
    return fail(Code::unsupported, codec.name() + ": only powersgd, and powersgd+ef, are made in rounds");
  }
  if (!own->rounds()->suits(setting.count)) {
    return fail(Code::unsupported, fmt::format("{}: factors of {} values are no smaller than the values; send it dense",
                                               codec.name(), setting.count));
  }
  return {};
}

std::vector<ChannelKey> channels(const ExchangeSetting& setting) {
  std::vector<ChannelKey> keys;
  const auto lengths = lengths_of(setting);
  if (!lengths) return keys;
  for (const std::size_t length : *lengths) {
    const auto program = sum_of(setting, length);
    if (!program) continue;
    for (const ChannelKey& key : channels_of(*program)) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace

extern const ExchangeKind k_rounds_exchange;
const ExchangeKind k_rounds_exchange{"rounds", "PowerSGD as in its paper: the sums of P, then of Q", supports, channels,
                                     make_exchange<RoundsExchange>};

}  // namespace gradrail
