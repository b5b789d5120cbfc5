// From the ends of all ranks of a failed job, and what they reported, to the one sentence that names the cause.
// Pure: the launcher gathers the facts, this decides, tests feed it any story.
#pragma once

#include <span>
#include <string>

#include "transports/bootstrap/report.h"

namespace gradrail {

struct RankState {
  enum class Kind { running, stopped, exited, killed };
  Kind kind = Kind::running;
  int status = 0;  // exit status, or the signal that killed it
  long pid = 0;
  int order = 0;  // the how-manieth to end
};

struct Verdict {
  std::string sentence;
  int exit_code = 1;  // 2 if the cause is bad usage
};

// `states` holds one entry a rank, as they were before the launcher ended anybody; `reports` are in order of arrival.
// In this order the cause is: a rank killed by a signal; a stopped rank; a report that speaks of the reporter's own
// trouble, rather with a rank that had none with a third (or a silent non-zero exit, if that rank is the one others
// complain of); a silent non-zero exit; a rank that others complain of though it ended well; a time-out; an echo of all
// that ("peer gone", "poisoned").
[[nodiscard]] Verdict decide(std::span<const RankState> states, std::span<const Report> reports);

}  // namespace gradrail
