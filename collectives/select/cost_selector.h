// Chooses by simulating the candidates with a cost model: what `auto` does where no decision table is. And what the
// model says of any plan, for "model against measurement".
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "collectives/schedule/cost.h"
#include "collectives/select/coded_sizes.h"
#include "collectives/select/model_fit.h"
#include "collectives/select/selector.h"

namespace gradrail {

// Plans with more steps than this, over all ranks, are not simulated but estimated from the programs of one host: their
// rounds, messages and bytes. Plans that large are mostly exchanges of n^2 messages, alike for all hosts.
inline constexpr std::size_t k_most_simulated_steps = 20'000;

// Seconds that the model expects. `root` for collectives that have one. Errors: bad_usage, unsupported.
[[nodiscard]] Result<double> predict(const Selection& selection, const Question& question, const CostModel& model,
                                     int root = 0);

// Times of algorithms on a group of ranks, at some sizes.
struct GroupTimes {
  int ranks = 0;
  int ranks_per_host = 0;
  std::vector<Observation> observations;
  bool in_place = false;  // how they were called
};

class CostSelector : public Selector {
 public:
  // `source`: where the parameters come from, for describe(): "measured links". Where algorithms were measured
  // themselves, for questions of that group, the model only interpolates: what it says of an algorithm is multiplied by
  // measured / modelled, which goes over from size to size in logarithms and stays the same beyond the outermost.
  // Pieces that were not measured go by the plain algorithm, algorithms that were not by the others of the collective.
  CostSelector(CostModel model, std::string source, const GroupTimes& times = {});

  // The fastest candidate; of those within k_model_tie of it, the first of the list. What knows nothing of hosts must
  // be faster than hierarchical by k_lead_of_hierarchical: plans that send the same bytes between hosts are level
  // there, and measuring tells them apart by luck. Answers are remembered, so that a selector belongs to one thread.
  [[nodiscard]] Selection choose(const Question& question) const override;
  // What was measured of codecs, on the group that the times are of: the answer where a question bears an error.
  void know_codecs(Collective collective, std::vector<CodedSize> sizes) { codecs_[collective] = std::move(sizes); }
  [[nodiscard]] std::string describe() const override { return "cost model (" + source_ + ")"; }
  [[nodiscard]] const CostModel& model() const { return model_; }

 private:
  static constexpr double k_model_tie = 1.02;
  static constexpr double k_lead_of_hierarchical = 1.05;
  using Key = std::tuple<Collective, std::uint64_t, int, int, bool>;
  using Offsets = std::map<double, double>;  // ln(measured / modelled) by ln(bytes)

  // Nothing for what is not to be chosen; 1 where nothing was measured.
  [[nodiscard]] std::optional<double> correction(const Selection& selection, const Question& question) const;

  CostModel model_;
  std::string source_;
  int ranks_ = 0;  // of the group measured
  int ranks_per_host_ = 0;
  std::map<Collective, std::map<std::pair<std::string, int>, Offsets>> offsets_;  // by algorithm and pieces
  std::map<Collective, std::set<double>> sizes_;                                  // measured, as ln(bytes)
  std::map<Collective, std::vector<CodedSize>> codecs_;
  mutable std::map<Key, Selection> answers_;
};

}  // namespace gradrail
