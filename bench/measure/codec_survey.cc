#include "bench/measure/codec_survey.h"

#include <algorithm>

#include "bench/measure/codec_choice.h"
#include "bench/measure/gradient.h"
#include "bench/measure/patience.h"
#include "bench/measure/selection_bytes.h"

namespace gradrail {

namespace {

constexpr std::uint64_t k_sizes[] = {64 << 10, 512 << 10, 4 << 20, 16 << 20};
constexpr std::uint64_t k_largest_between_hosts = 4 << 20;
constexpr Seconds k_time_per_point{0.03};
constexpr Seconds k_most_time_between_hosts{1.5};  // of a block

std::vector<std::uint64_t> sizes_around(const SurveyOptions& options, bool several_hosts) {
  if (options.largest < k_least_coded_bytes) return {};
  std::vector<std::uint64_t> sizes;
  for (const std::uint64_t bytes : k_sizes) {
    if (several_hosts && bytes > k_largest_between_hosts) break;
    if (!sizes.empty() && bytes > 2 * options.largest) break;
    // The largest below what is asked for stands for it where nothing nearer may be measured.
    if (!sizes.empty() && bytes <= options.smallest) sizes.clear();
    sizes.push_back(bytes);
  }
  return sizes;
}

Bytes pack(const CodedSize& size) {
  ByteWriter writer;
  writer.put(size.bytes);
  writer.put(size.dense_us);
  writer.put(static_cast<std::uint32_t>(size.choices.size()));
  for (const auto& [selection, time_us, error] : size.choices) {
    put(writer, selection);
    writer.put(time_us);
    writer.put(error);
  }
  return std::move(writer).take();
}

Result<CodedSize> unpack(const Bytes& bytes) {
  ByteReader reader(bytes);
  CodedSize size;
  size.bytes = reader.get<std::uint64_t>();
  size.dense_us = reader.get<double>();
  const auto count = reader.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    CodedChoice choice;
    choice.selection = get_selection(reader);
    choice.time_us = reader.get<double>();
    choice.error = reader.get<double>();
    size.choices.push_back(std::move(choice));
  }
  if (!reader.ok()) return fail(Code::malformed, "rank 0's times of codecs are damaged", 0);
  return size;
}

}  // namespace

Result<std::vector<CodedSize>> survey_codecs(Bootstrap& bootstrap, Communicator& communicator, Collective collective,
                                             const Selector& dense, const SurveyOptions& options) {
  std::vector<CodedSize> found;
  Call call;
  call.collective = collective;
  call.in_place = options.in_place;
  const auto unit = sizeof(float) * (is_blocked(collective) ? static_cast<std::uint64_t>(communicator.ranks()) : 1);
  call.count = 1;
  const auto sizes = sizes_around(options, communicator.hosts() > 1);
  if (communicator.ranks() < 2 || options.codecs.empty() || sizes.empty() || !Gradient::fits(call)) return found;
  GRADRAIL_ASSIGN(Buffers buffers, Buffers::make(communicator, sizes.back(), options.buffers, Cache::hot));
  for (const std::uint64_t bytes : sizes) {
    call.count = bytes / unit;
    Call placed = call;  // the choice goes by the memory, too
    buffers.place(placed, communicator.rank(), communicator.ranks());
    const Question question = communicator.question_of(placed);
    const auto measured = [&](std::span<const Selection> selections) -> Result<CodedSize> {
      std::vector<Call> calls;
      for (const Selection& selection : selections) carry(calls.emplace_back(call), selection);
      MeasureRules rules;
      rules.time_per_point = k_time_per_point;
      rules.warmup = 1;
      rules.check = false;
      rules.timeout = options.timeout;
      if (communicator.hosts() > 1) {
        rules.pace = k_brisk;
        rules.most_time = k_most_time_between_hosts;
      }
      GRADRAIL_ASSIGN(const auto outcomes, measure_block(bootstrap, communicator, buffers, calls, rules));
      // Ranks other than 0 know only their own times.
      GRADRAIL_ASSIGN(const Bytes same, bootstrap.broadcast(pack(what_pays(question, selections, outcomes)),
                                                            Deadline::after(control_wait(options.timeout))));
      return unpack(same);
    };
    std::vector<Selection> selections{dense.choose(question)};
    for (const CodecWhere where :
         places_to_encode(options.codec_where, communicator.ranks(), communicator.ranks_per_host()))
      for (const std::string& codec : options.codecs) selections.push_back({"auto", 0, 0, codec, where});
    GRADRAIL_ASSIGN(CodedSize size, measured(selections));
    if (!size.choices.empty()) {
      // One block may flatter, so what seems to pay must do so again. Inside one host, where it is a matter of how well
      // memory is used, and measuring is cheap, beside everything that data may travel by as it is.
      const bool one_host = question.ranks == question.ranks_per_host;
      selections = one_host ? dense_rivals(question) : std::vector<Selection>();
      selections.push_back(dense.choose(question));
      for (const CodedChoice& choice : size.choices) selections.push_back(choice.selection);
      GRADRAIL_ASSIGN(size, measured(selections));
    }
    found.push_back(std::move(size));
  }
  return found;
}

}  // namespace gradrail
