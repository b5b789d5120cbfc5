#include "bench/measure/codec_choice.h"

#include "bench/measure/gradient.h"
#include "bench/measure/statistics.h"
#include "collectives/compress/codec.h"
#include "collectives/select/candidates.h"

namespace gradrail {

namespace {

constexpr std::uint64_t k_trial_values = 65521;
constexpr std::size_t k_least_samples_between_hosts = 3;

bool usable(const Outcome& outcome) {
  return !outcome.refused && outcome.wrong == 0 && !outcome.samples_us.empty() && median(outcome.samples_us) > 0;
}

}  // namespace

Result<std::vector<std::string>> codecs_within(const std::vector<std::string>& named, double budget) {
  std::vector<std::string> tried;
  for (const std::string& codec : named)
    if (codec != "none" && codec != "auto") tried.push_back(codec);
  if (tried.empty())
    for (const CodecKind* kind : codec_kinds()) tried.emplace_back(kind->example);
  Call call;
  call.count = k_trial_values;
  const Gradient gradient(call, 1, 1);
  std::vector<std::string> within;
  for (const std::string& codec : tried) {
    GRADRAIL_ASSIGN(const double error, gradient.error_of_one(codec, 0));
    if (error <= budget) within.push_back(codec);
  }
  return within;
}

std::vector<CodecWhere> places_to_encode(CodecWhere asked, int ranks, int ranks_per_host) {
  if (asked == CodecWhere::between_hosts) return {asked};
  if (ranks_per_host == 1 || ranks == ranks_per_host) return {CodecWhere::everywhere};
  return {CodecWhere::everywhere, CodecWhere::between_hosts};
}

void carry(Call& call, const Selection& selection) {
  call.algorithm = selection.algorithm;
  call.lanes = selection.lanes;
  call.pieces = selection.pieces;
  call.coding.codec = selection.codec;
  call.coding.where = selection.where;
}

std::vector<Selection> dense_rivals(const Question& question) {
  auto rivals = candidates(question, {.lanes = false, .pieces = 0});
  for (Selection& rival : rivals) rival.lanes = rival.pieces = 0;
  return rivals;
}

CodedSize what_pays(const Question& question, std::span<const Selection> selections,
                    std::span<const Outcome> outcomes) {
  CodedSize size;
  size.bytes = question.bytes;
  const Outcome* dense = nullptr;
  for (const Outcome& outcome : outcomes)
    if (usable(outcome) && outcome.ran.codec.empty() &&
        (dense == nullptr || median(outcome.samples_us) < median(dense->samples_us)))
      dense = &outcome;
  if (dense == nullptr) return size;
  const Timing to_beat = summarise(dense->samples_us);
  size.dense_us = to_beat.median;
  const bool one_host = question.ranks == question.ranks_per_host;
  const double worth = one_host ? k_worth_an_error_in_one_host : k_worth_an_error;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome& outcome = outcomes[i];
    if (!usable(outcome) || outcome.ran.codec.empty() || !outcome.coding || outcome.coding->non_finite) continue;
    const Timing timing = summarise(outcome.samples_us);
    // Of few samples the intervals are all that was seen. Where operations take long, three must do.
    const auto few = static_cast<std::int64_t>(one_host ? k_least_samples_for_interval : k_least_samples_between_hosts);
    if (timing.ci[1] * worth > to_beat.ci[0] || std::min(timing.n, to_beat.n) < few) continue;
    CodedChoice choice;
    choice.selection = selections[i];
    // What was left to the communicator.
    if (choice.selection.algorithm == "auto") choice.selection.algorithm = outcome.ran.algorithm;
    choice.selection.lanes = outcome.ran.lanes;
    choice.selection.pieces = outcome.ran.pieces;
    choice.time_us = timing.median;
    choice.error = outcome.coding->relative_error;
    size.choices.push_back(std::move(choice));
  }
  order_choices(size);
  return size;
}

}  // namespace gradrail
