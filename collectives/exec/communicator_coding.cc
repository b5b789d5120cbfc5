// What the communicator does with calls whose data is encoded: which exchange carries them, and the state that codecs
// keep from call to call.
#include <fmt/format.h>

#include <algorithm>

#include "collectives/exec/bindings.h"
#include "collectives/exec/coded_execution.h"

namespace gradrail {

namespace {

constexpr std::uint64_t k_small_bytes = 64 << 10;
// Of float32 values in a chunk: encoded, sent and decoded while others are on their way, and no larger than what a core
// keeps in a cache of its own.
constexpr std::uint64_t k_chunk_bytes = 256 << 10;
constexpr std::uint64_t k_most_pieces = 256;

Result<void> can_encode(const Call& call) {
  if (call.type != Type::f32)
    return fail(Code::unsupported, fmt::format("codecs are for float32, and the data is {}", to_string(call.type)));
  if (call.collective != Collective::allreduce && call.collective != Collective::reduce_scatter &&
      call.collective != Collective::all_gather)
    return fail(Code::unsupported, fmt::format("codecs are for allreduce, reduce_scatter and all_gather, not for {}",
                                               to_string(call.collective)));
  if (reduces(call.collective) && call.op != ReduceOp::sum && call.op != ReduceOp::avg)
    return fail(Code::unsupported,
                fmt::format("encoded data can be summed and averaged, and the operation is {}", to_string(call.op)));
  return {};
}

bool is_exchange(std::string_view name) {
  const auto kinds = exchange_kinds();
  return std::any_of(kinds.begin(), kinds.end(), [&](const ExchangeKind* kind) { return kind->name == name; });
}

// Two shots encode a sum once, at the one rank that makes it.
std::string default_algorithm(const Question& question) {
  switch (question.collective) {
    case Collective::allreduce:
      if (question.ranks_per_host > 1 && question.ranks > question.ranks_per_host && question.bytes > k_small_bytes)
        return "hierarchical";
      return question.ranks > 2 && question.bytes <= k_small_bytes ? "one_shot" : "two_shot";
    case Collective::reduce_scatter:
    case Collective::all_gather: return "direct";
    default: return default_selection(question).algorithm;
  }
}

Selection tuning_for(std::string_view algorithm, const Question& question, const CodecTraits& traits) {
  Selection selection{std::string(algorithm), 1, 1};
  if (traits.whole) return selection;
  const std::string_view name = algorithm.substr(0, algorithm.find(':'));
  const bool undivided = name == "recursive_doubling" || name == "one_shot" || name == "tree";
  const std::uint64_t parts = static_cast<std::uint64_t>(undivided ? 1 : question.ranks);
  selection.pieces =
      static_cast<int>(std::clamp<std::uint64_t>(question.bytes / parts / k_chunk_bytes, 1, k_most_pieces));
  return selection;
}

}  // namespace

const Error* Communicator::failure_of(const Bound& bound) {
  if (bound.gathering != nullptr) return bound.gathering->failure();
  return bound.exchange != nullptr ? bound.exchange->failure() : bound.execution->failure();
}

void Communicator::forget_encodings() { *encodings_ = Encodings{}; }

Result<Communicator::Bound*> Communicator::bound_encoded(const Call& call, std::size_t place, Deadline deadline) {
  Encodings& encodings = *encodings_;
  ++encodings.lookups;
  if (const auto found = encodings.all.find(Encodings::Lookup{call, place}); found != encodings.all.end()) {
    found->second->used = encodings.lookups;
    return found->second.get();
  }
  GRADRAIL_ASSIGN(auto bound, bind_encoded(call, place, deadline));
  bound->used = encodings.lookups;
  if (encodings.all.size() >= Encodings::k_most) {
    auto oldest = encodings.all.end();
    for (auto one = encodings.all.begin(); one != encodings.all.end(); ++one) {
      const auto in_flight = [&](const Place& busy) { return busy.bound == one->second.get(); };
      if (std::none_of(places_.begin(), places_.end(), in_flight) &&
          (oldest == encodings.all.end() || one->second->used < oldest->second->used))
        oldest = one;
    }
    encodings.all.erase(oldest);
  }
  const Coding& coding = call.coding;
  Encodings::Key key{std::string(coding.codec),
                     std::string(call.algorithm),
                     call.count,
                     coding.seed,
                     coding.tensor,
                     coding.where,
                     call.collective,
                     call.op,
                     call.in_place,
                     call.lanes,
                     call.pieces,
                     place};
  return encodings.all.emplace(std::move(key), std::move(bound)).first->second.get();
}

Result<Communicator::Bound*> Communicator::bound_within_error(const Call& call, std::size_t place, Deadline deadline) {
  const double budget = call.coding.error_budget;
  if (budget >= 1)
    return fail(Code::bad_usage, fmt::format("an error of {} is more than the data itself; state one below 1", budget));
  if (call.algorithm != "auto")
    return fail(
        Code::bad_usage,
        fmt::format("codec and algorithm are chosen together for a call that states its error; leave out {}, or "
                    "name a codec with it",
                    call.algorithm));
  Call plain = call;
  plain.coding = {};
  if (selector_ == nullptr || !can_encode(call)) return bound_for(plain, place, deadline);
  Question question = question_of(call);
  question.error_budget = budget;
  const Encodings::Bearing key{question.collective, question.bytes, question.in_place, question.reached, budget};
  auto known = encodings_->chosen.find(key);
  if (known == encodings_->chosen.end()) {
    if (encodings_->chosen.size() >= Encodings::k_most) encodings_->chosen.clear();
    known = encodings_->chosen.emplace(key, selector_->choose(question)).first;
  }
  Selection& choice = known->second;
  if (choice.codec.empty()) return bound_for(plain, place, deadline);
  Call encoded = call;
  encoded.coding.error_budget = 0;
  encoded.coding.codec = choice.codec;
  encoded.coding.where = choice.where;
  encoded.algorithm = choice.algorithm;
  if (call.lanes == 0) encoded.lanes = choice.lanes;
  if (call.pieces == 0) encoded.pieces = choice.pieces;
  auto bound = bound_encoded(encoded, place, deadline);
  if (bound) return bound;
  if (const Code code = bound.error().code; code != Code::unsupported && code != Code::bad_usage) return bound;
  // What cannot be carried out here is no answer, on any rank.
  choice.codec.clear();
  return bound_for(plain, place, deadline);
}

Result<std::unique_ptr<Communicator::Bound>> Communicator::bind_encoded(const Call& call, std::size_t place,
                                                                        Deadline deadline) {
  Encodings& encodings = *encodings_;
  GRADRAIL_TRY(can_encode(call));
  GRADRAIL_ASSIGN(const auto codec, make_codec(call.coding.codec));
  if (call.coding.where == CodecWhere::between_hosts && hosts_ == 1)
    return fail(Code::unsupported, "data is to be encoded between hosts only, and all ranks are on one");
  const CodecTraits traits = codec->traits();
  ExchangeSetting setting;
  setting.rank = rank_;
  setting.ranks = ranks();
  setting.ranks_per_host = ranks_per_host_;
  setting.collective = call.collective;
  setting.op = call.op;
  setting.count = call.count;
  setting.in_place = call.in_place;
  setting.codec = call.coding.codec;
  setting.where = call.coding.where;
  setting.tensor = call.coding.tensor;
  setting.seed = call.coding.seed;

  // What is remembered of the tensor, whatever place in flight its next call gets.
  const auto state_of = [&] {
    const auto found = encodings.states.find(Encodings::Lookup{call, 0});
    if (found != encodings.states.end()) return found->second;
    auto state = std::make_shared<CodecState>(setting.codec);
    const Coding& coding = call.coding;
    encodings.states.emplace(
        Encodings::Key{setting.codec, std::string(call.algorithm), call.count, coding.seed, coding.tensor, coding.where,
                       call.collective, call.op, call.in_place, call.lanes, call.pieces, 0},
        state);
    return state;
  };
  const int first_lane = static_cast<int>(place) * k_lanes_a_place;
  ExchangeMeans means;
  means.channel = [&](ChannelKey key) { return channels_.at({key.peer, key.lane + first_lane}).get(); };
  const auto open = [&](std::vector<ChannelKey> keys) {
    for (ChannelKey& key : keys) key.lane += first_lane;
    return open_channels(keys, deadline);
  };

  auto bound = std::make_unique<Bound>();
  const bool exchanges = call.algorithm == "auto" ? !traits.fixed_size : is_exchange(call.algorithm);
  if (exchanges) {
    const ExchangeKind* chosen = nullptr;
    std::string why;
    for (const ExchangeKind* kind : exchange_kinds()) {
      if (call.algorithm != "auto" && kind->name != call.algorithm) continue;
      if (const auto can = kind->supports(setting, *codec); can) {
        chosen = kind;
        break;
      } else {
        why = can.error().message;
      }
    }
    if (chosen == nullptr)
      return fail(Code::unsupported,
                  !why.empty() ? why
                               : fmt::format("{} makes messages whose size depends on the data, and there is no "
                                             "exchange for them",
                                             codec->name()));
    GRADRAIL_TRY(open(chosen->channels(setting)));
    means.state = state_of();
    GRADRAIL_ASSIGN(bound->exchange, chosen->make(setting, means));
  } else {
    if (!traits.fixed_size)
      return fail(Code::unsupported,
                  fmt::format("{} carries messages of fixed size, and those of {} depend on the data; choose auto",
                              call.algorithm, codec->name()));
    const Question question = question_of(call);
    const std::string algorithm = call.algorithm == "auto" ? default_algorithm(question) : std::string(call.algorithm);
    const Selection choice = tuning_for(algorithm, question, traits);
    GRADRAIL_ASSIGN(Shape shape, shape_of(call, choice));
    GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(algorithm, shape));
    const std::string name =
        fmt::format("{} {} {} {}", to_string(call.collective), algorithm, call.in_place, to_string(call.coding.where));
    auto agreement = encodings.agreements.find(name);
    if (agreement == encodings.agreements.end()) {
      GRADRAIL_ASSIGN(const Agreement found, agreement_of(*planner, shape, call.coding.where));
      agreement = encodings.agreements.emplace(name, found).first;
    }
    GRADRAIL_ASSIGN(const Program program, plan(*planner, shape, rank_));
    GRADRAIL_TRY(open(channels_of(program)));
    Ran ran{algorithm,
            shape.lanes,
            shape.pieces,
            program.grid,
            program.steps.size(),
            codec->name(),
            agreement->second.requantised};
    means.state = state_of();
    GRADRAIL_ASSIGN(bound->exchange,
                    CodedExecution::make(coded(program, call.coding.where, agreement->second.round_trip),
                                         std::move(ran), setting, means));
  }
  bound->ran = bound->exchange->ran();
  bound->ran.where = call.coding.where;

  BoundProgram& program = bound->program;  // what memory is checked against, and averages are made by
  const auto n = static_cast<std::uint64_t>(ranks());
  const bool blocked = is_blocked(call.collective);
  program.element_bytes = sizeof(float);
  program.elements = call.count * (blocked ? n : 1);
  const std::size_t block = call.count * sizeof(float);
  program.in_bytes = call.collective == Collective::reduce_scatter ? block * n : block;
  program.out_bytes = call.collective == Collective::all_gather ? block * n : block;
  program.scratch_bytes = std::max<std::size_t>(bound->exchange->wire_bytes(), 1);
  program.divide = divide_function(Type::f32);
  if (call.op == ReduceOp::avg && reduces(call.collective)) program.divide_by = ranks();
  return bound;
}

}  // namespace gradrail
