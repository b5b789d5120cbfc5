// Where `auto` gets its answers in a command: a decision table if one was named, else the cost model with links and
// algorithms measured on the communicator at hand.
#pragma once

#include <memory>
#include <string>

#include "bench/measure/link.h"
#include "bench/measure/survey.h"
#include "collectives/exec/communicator.h"
#include "collectives/select/cost_selector.h"
#include "collectives/select/table.h"
#include "results/record.h"
#include "transports/bootstrap.h"

namespace gradrail {

// As typed.
struct TableTexts {
  std::string path;                   // empty: no table
  std::string on_foreign = "refuse";  // or "warn": a table from other hardware or another phase is used all the same
};

// Reads and checks the table file, to be used on the machine `here`; nothing to do without one. Warnings go to standard
// error if `loud`. Errors, all bad_usage with the file's name: it cannot be read, is damaged, or was made on other
// hardware and on_foreign is "refuse".
[[nodiscard]] Result<std::shared_ptr<const DecisionTable>> open_table(const TableTexts& texts, const Machine& here,
                                                                      bool loud);
// Rank 0 opens it, and all ranks get what it read. Collective. Null without a table.
[[nodiscard]] Result<std::shared_ptr<const DecisionTable>> share_table(Bootstrap& bootstrap, const TableTexts& texts,
                                                                       const Machine& here, Seconds timeout);

// What is left of the table where cache lines take `core_to_core_ns` now: not the entries that were fitted while they
// took another time (k_latency_tolerance), as what was best then may be far from it now. Null if that is nothing. 0:
// not known, and all is left. Says so on standard error if `loud`.
[[nodiscard]] std::shared_ptr<const DecisionTable> without_other_phases(std::shared_ptr<const DecisionTable> table,
                                                                        const TableTexts& texts, double core_to_core_ns,
                                                                        bool loud);

// Stands in a communicator's options for a selector that can only be made once the communicator is there. One thread.
class LateSelector : public Selector {
 public:
  void set(std::shared_ptr<const Selector> selector) { selector_ = std::move(selector); }
  [[nodiscard]] Selection choose(const Question& question) const override {
    return selector_ != nullptr ? selector_->choose(question) : default_selection(question);
  }
  [[nodiscard]] std::string describe() const override {
    return selector_ != nullptr ? selector_->describe() : "defaults";
  }

 private:
  std::shared_ptr<const Selector> selector_;
};

// Collective: measures algorithms on the communicator as far as `needs` says, and makes the model of its links, which
// interpolates between what was measured, the same on all ranks. Errors: those of survey().
[[nodiscard]] Result<std::shared_ptr<CostSelector>> make_model(Bootstrap& bootstrap, Communicator& communicator,
                                                               const SurveyOptions& needs, const CostModel& links);

struct Selectors {
  std::shared_ptr<const Selector> selector;  // the table with the model behind it, or the model alone
  LinkCalibration links;
};

// Collective: measures the communicator's links and codecs too, and puts the table before the model. `table` may be
// null; `name` is its file's. Errors: those of calibrate() and survey().
[[nodiscard]] Result<Selectors> make_selectors(Bootstrap& bootstrap, Communicator& communicator,
                                               const SurveyOptions& needs,
                                               const std::shared_ptr<const DecisionTable>& table,
                                               const std::string& name);

// Writes the text as the whole file, or leaves what was there: to a file beside it first, then in its place. What is no
// file (a device, a pipe, a link), or may not be replaced, is written to directly.
[[nodiscard]] Result<void> write_whole_file(const std::string& path, std::string_view text);

}  // namespace gradrail
