// Tuning on a running job. Rank 0 decides what is measured next and tells the others over the bootstrap; they only
// measure along until they are told that it is over. So every rank does the same, whatever the clock of any says.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/block.h"
#include "bench/measure/link.h"
#include "bench/measure/point.h"
#include "bench/measure/regret.h"
#include "bench/measure/sweep.h"
#include "bench/measure/tuning.h"

namespace gradrail {

struct TuneOptions {
  // Its sizes are the coarse grid; one type, one reduction. With an error budget codecs are tried as well, those named
  // or one of each kind.
  SweepOptions axes;
  // For everything, passed by one block's slowest trial at most. A case has its share of it, of which fitting, the
  // survey that the model needs, judging and codecs have theirs (allowance.h).
  Seconds budget{120};
};

// One case, tuned and judged.
struct TunedCase {
  TableEntry entry;
  Tuned tuned;
  Regret regret;
  LinkCalibration links;
  double links_seconds = 0;
  std::string phase;     // of most sizes that were fitted, by name
  std::string left_out;  // for want of time: Allowance::left_out()
};

// Rank 0's, told of everything as it comes. An error ends the job.
class TuneListener {
 public:
  virtual ~TuneListener() = default;
  [[nodiscard]] virtual Result<void> begin_case(const Question& question, const LinkCalibration& links) = 0;
  virtual void note(const std::string& what) = 0;  // a decision: "one_shot is not measured above 1 MiB: ..."
  // What is measured next; the share of the budget that is spent.
  virtual void next(double fraction_done, const std::string& what) = 0;
  enum class For : std::uint8_t { fitting, judging, codecs };
  struct Block {
    const Setting& setting;
    std::int64_t bytes = 0;
    For what = For::fitting;
    std::string phase;
    std::span<const Selection> selections;
    std::span<const Call> calls;  // of the selections
    std::span<const Outcome> outcomes;
  };
  [[nodiscard]] virtual Result<void> block(const Block& block) = 0;
  [[nodiscard]] virtual Result<void> end_case(const TunedCase& done) = 0;
};

// Collective; `listener` on rank 0 only. Errors: the first failure of a communicator, the bootstrap or the listener.
[[nodiscard]] Result<void> run_tuning(Bootstrap& bootstrap, const TuneOptions& options, TuneListener* listener);

}  // namespace gradrail
