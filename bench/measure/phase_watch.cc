#include "bench/measure/phase_watch.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "bench/measure/patience.h"
#include "transports/base/cores.h"

namespace gradrail {

namespace {

constexpr Seconds k_look{0.01};
constexpr Seconds k_between_looks{0.2};  // while waiting
constexpr const char* k_unsettled = "unsettled";

}  // namespace

PhaseWatch::PhaseWatch(Bootstrap& bootstrap, std::vector<int> cores, Seconds timeout)
    : bootstrap_(bootstrap), cores_(std::move(cores)), timeout_(timeout) {
  if (cores_.empty()) cores_ = usable_cores();
}

Result<void> PhaseWatch::look(Seconds after) {
  Result<void> made;
  GRADRAIL_TRY(work_while_heard(bootstrap_, timeout_, [&] {
    std::this_thread::sleep_for(after);
    if (cores_.size() > 1) {
      seen_ = Phase{gradrail::core_to_core_ns(cores_.front(), cores_.back(), k_look).value_or(0), 0};
      return;
    }
    if (!probe_) {
      auto probe = Probe::create({cores_});
      if (probe)
        probe_ = *std::move(probe);
      else
        made = tl::unexpected<Error>(std::move(probe).error());
    }
    if (probe_) seen_ = probe_->phase();
  }));
  GRADRAIL_TRY(made);
  core_to_core_ns_[now()] = seen_->core_to_core_ns;
  return {};
}

std::string PhaseWatch::now() { return names_.name(seen_.value_or(Phase{})); }

Result<bool> PhaseWatch::await(const std::string& wanted, double& left) {
  while (now() != wanted && !wanted.empty() && left > 0) {
    const auto begin = Clock::now();
    GRADRAIL_TRY(look(k_between_looks));
    left -= Seconds(Clock::now() - begin).count();
  }
  return now() == wanted;
}

double PhaseWatch::core_to_core_ns(const std::string& phase) const {
  const auto known = core_to_core_ns_.find(phase);
  return known == core_to_core_ns_.end() ? 0 : known->second;
}

std::string PhaseWatch::between(const Phase& before, const Phase& after) {
  return same_phase(before, after) ? names_.name(after) : k_unsettled;
}

void PhaseWatch::measured(std::int64_t bytes, const std::string& phase) {
  if (bytes != bytes_) of_blocks_.clear();
  bytes_ = bytes;
  of_blocks_.push_back(phase);
}

std::string PhaseWatch::of_blocks() {
  const bool same = !of_blocks_.empty() && of_blocks_.front() != k_unsettled &&
                    std::all_of(of_blocks_.begin(), of_blocks_.end(),
                                [&](const std::string& one) { return one == of_blocks_.front(); });
  const std::string phase = same ? of_blocks_.front() : "";
  of_blocks_.clear();
  return phase;
}

}  // namespace gradrail
