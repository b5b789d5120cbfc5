// Chooses by simulating the candidates with a cost model: what `auto` does where no decision table is. And what the
// model says of any plan, for "model against measurement".
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "collectives/schedule/cost.h"
#include "collectives/select/selector.h"

namespace gradrail {

// Plans with more steps than this, over all ranks, are not simulated but estimated from the programs of one host: their
// rounds, messages and bytes. Plans that large are mostly exchanges of n^2 messages, alike for all hosts.
inline constexpr std::size_t k_most_simulated_steps = 20'000;

// Seconds that the model expects. `root` for collectives that have one. Errors: bad_usage, unsupported.
[[nodiscard]] Result<double> predict(const Selection& selection, const Question& question, const CostModel& model,
                                     int root = 0);

class CostSelector : public Selector {
 public:
  // `source`: where the parameters come from, for describe(): "measured links".
  CostSelector(CostModel model, std::string source) : model_(model), source_(std::move(source)) {}

  // The fastest candidate; of those within k_model_tie of it, the first of the list. Answers are remembered, so that a
  // selector belongs to one thread.
  [[nodiscard]] Selection choose(const Question& question) const override;
  [[nodiscard]] std::string describe() const override { return "cost model (" + source_ + ")"; }
  [[nodiscard]] const CostModel& model() const { return model_; }

 private:
  static constexpr double k_model_tie = 1.02;
  using Key = std::tuple<Collective, std::uint64_t, int, int, bool>;

  CostModel model_;
  std::string source_;
  mutable std::map<Key, Selection> answers_;
};

}  // namespace gradrail
