// What has to be measured before auto can choose: what neither a decision table answers, nor what is known of plans
// whatever the links are (known_selection()). Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/measure/survey.h"
#include "collectives/select/table.h"

namespace gradrail {

// Adds to `needs` the collectives of what is asked and not answered, and its sizes; nothing where all is. `table` may
// be null. `codecs`: the questions will state an error budget too, so these codecs are measured where the table knows
// none.
void add_needs(SurveyOptions& needs, std::span<const Question> asked, const DecisionTable* table,
               const std::vector<std::string>& codecs = {});

}  // namespace gradrail
