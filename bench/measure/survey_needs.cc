#include "bench/measure/survey_needs.h"

#include <algorithm>

namespace gradrail {

namespace {

bool needs_algorithms(const Question& question, const DecisionTable* table) {
  if (table != nullptr && find_answer(*table, question) != nullptr) return false;
  return known_selection(question).algorithm.empty();
}

bool needs_codecs(const Question& question, const DecisionTable* table) {
  if (question.bytes < k_least_coded_bytes) return false;
  const TableEntry* const entry = table != nullptr ? find_entry(*table, question) : nullptr;
  return entry == nullptr || entry->codecs.empty();
}

void add(std::vector<Collective>& to, Collective collective) {
  if (std::find(to.begin(), to.end(), collective) == to.end()) to.push_back(collective);
}

}  // namespace

void add_needs(SurveyOptions& needs, std::span<const Question> asked, const DecisionTable* table,
               const std::vector<std::string>& codecs) {
  for (const Question& question : asked) {
    const bool algorithms = needs_algorithms(question, table);
    const bool coded = !codecs.empty() && needs_codecs(question, table);
    if (algorithms) add(needs.collectives, question.collective);
    if (coded) add(needs.coded_collectives, question.collective);
    if (!algorithms && !coded) continue;
    needs.smallest = needs.largest == 0 ? question.bytes : std::min(needs.smallest, question.bytes);
    needs.largest = std::max(needs.largest, question.bytes);
  }
  if (!needs.coded_collectives.empty()) needs.codecs = codecs;
}

}  // namespace gradrail
