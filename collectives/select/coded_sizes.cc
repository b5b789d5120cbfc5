#include "collectives/select/coded_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "collectives/compress/codec.h"
#include "collectives/select/table.h"

namespace gradrail {

namespace {

constexpr std::size_t k_longest_name = 64;

}  // namespace

void order_choices(CodedSize& size) {
  std::stable_sort(size.choices.begin(), size.choices.end(), [](const CodedChoice& a, const CodedChoice& b) {
    return a.error != b.error ? a.error < b.error : a.time_us < b.time_us;
  });
  double least = size.dense_us;
  std::erase_if(size.choices, [&](const CodedChoice& choice) {
    if (choice.time_us >= least) return true;
    least = choice.time_us;
    return false;
  });
}

const CodedChoice* find_choice(std::span<const CodedSize> sizes, const Question& question) {
  if (!(question.error_budget > 0) || sizes.empty() || question.bytes < k_least_coded_bytes) return nullptr;
  if (question.bytes < sizes.front().bytes / 2) return nullptr;
  const auto distance = [&](const CodedSize& size) {
    return std::abs(std::log(static_cast<double>(size.bytes) / static_cast<double>(question.bytes)));
  };
  const CodedSize& nearest = *std::min_element(
      sizes.begin(), sizes.end(), [&](const CodedSize& a, const CodedSize& b) { return distance(a) < distance(b); });
  const CodedChoice* fastest = nullptr;
  for (const CodedChoice& choice : nearest.choices)
    if (choice.error <= question.error_budget && (fastest == nullptr || choice.time_us < fastest->time_us))
      fastest = &choice;
  return fastest;
}

Result<void> can_carry(const Selection& selection, const Question& question) {
  GRADRAIL_ASSIGN(const auto codec, make_codec(selection.codec));
  if (selection.where == CodecWhere::between_hosts && question.ranks == question.ranks_per_host)
    return fail(Code::unsupported, "data is encoded between hosts only, and all ranks are on one");
  if (codec->traits().fixed_size) return can_answer(selection, question);
  const bool is_name = !selection.algorithm.empty() && selection.algorithm.size() <= k_longest_name &&
                       std::all_of(selection.algorithm.begin(), selection.algorithm.end(),
                                   [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
  if (!is_name) return fail(Code::bad_usage, fmt::format("'{}' is no exchange's name", selection.algorithm));
  return {};
}

}  // namespace gradrail
