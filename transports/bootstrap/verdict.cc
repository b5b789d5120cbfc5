#include "transports/bootstrap/verdict.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace gradrail {
namespace {

// "rank 2 (pid 4711)"
std::string name(std::span<const RankState> states, int rank) {
  return fmt::format("rank {} (pid {})", rank, states[static_cast<std::size_t>(rank)].pid);
}

std::string signal_name(int signal) {
  const char* abbreviation = sigabbrev_np(signal);
  return abbreviation == nullptr ? fmt::format("signal {}", signal)
                                 : fmt::format("signal {} (SIG{})", signal, abbreviation);
}

// Reports of this kind follow from another rank's trouble.
bool echo(const Report& report) { return report.code == Code::peer_gone || report.code == Code::poisoned; }
bool own_trouble(const Report& report) { return !echo(report) && report.code != Code::timed_out; }

// The rank in that state which ended first.
std::optional<int> first(std::span<const RankState> states, auto&& matches) {
  std::optional<int> found;
  for (int rank = 0; rank < static_cast<int>(states.size()); ++rank) {
    const auto& state = states[static_cast<std::size_t>(rank)];
    if (matches(rank, state) && (!found || state.order < states[static_cast<std::size_t>(*found)].order)) found = rank;
  }
  return found;
}

const Report* first_report(std::span<const Report> reports, auto&& matches) {
  const auto at = std::find_if(reports.begin(), reports.end(), matches);
  return at == reports.end() ? nullptr : &*at;
}

Verdict from_report(std::span<const RankState> states, const Report& report) {
  return {fmt::format("{}: {}", name(states, report.rank), report.message), report.code == Code::bad_usage ? 2 : 1};
}

}  // namespace

Verdict decide(std::span<const RankState> states, std::span<const Report> reports) {
  using Kind = RankState::Kind;
  const auto reported = [&](int rank) {
    return first_report(reports, [&](const Report& r) { return r.rank == rank; }) != nullptr;
  };
  const auto blamed = [&](int rank) {
    return first_report(reports, [&](const Report& r) { return r.peer == rank; }) != nullptr;
  };
  if (const auto rank = first(states, [](int, const RankState& s) { return s.kind == Kind::killed; })) {
    const auto also =
        std::count_if(states.begin(), states.end(), [](const auto& s) { return s.kind == Kind::killed; }) - 1;
    const auto& state = states[static_cast<std::size_t>(*rank)];
    return {fmt::format("{} was killed by {}{}", name(states, *rank), signal_name(state.status),
                        also > 0 ? fmt::format(", and {} more after it", also) : ""),
            1};
  }
  if (const auto rank = first(states, [](int, const RankState& s) { return s.kind == Kind::stopped; })) {
    return {fmt::format("{} is stopped (a signal such as SIGSTOP), and the others waited for it in vain",
                        name(states, *rank)),
            1};
  }
  const auto silent = [&](int rank, const RankState& s) {
    return s.kind == Kind::exited && s.status != 0 && !reported(rank);
  };
  const auto exit_of = [&](int rank) -> Verdict {
    const int status = states[static_cast<std::size_t>(rank)].status;
    return {fmt::format("{} exited with status {} without saying why", name(states, rank), status),
            status == 2 ? 2 : 1};
  };
  if (const auto rank = first(states, [&](int r, const RankState& s) { return silent(r, s) && blamed(r); })) {
    return exit_of(*rank);
  }
  // Who complains of a rank that has trouble with yet another one met the end of that.
  const auto follows = [&](const Report& report) {
    return first_report(reports, [&](const Report& other) {
             return other.rank == report.peer && own_trouble(other) && other.peer != report.rank;
           }) != nullptr;
  };
  const auto cause = [&](const Report& report) { return own_trouble(report) && !follows(report); };
  if (const auto* report = first_report(reports, cause)) return from_report(states, *report);
  if (const auto* report = first_report(reports, own_trouble)) return from_report(states, *report);
  if (const auto rank = first(states, silent)) return exit_of(*rank);
  if (const auto rank = first(
          states, [&](int r, const RankState& s) { return s.kind == Kind::exited && s.status == 0 && blamed(r); })) {
    return {fmt::format("{} exited before the others were done", name(states, *rank)), 1};
  }
  if (const auto* report = first_report(reports, [](const Report& r) { return r.code == Code::timed_out; })) {
    return from_report(states, *report);
  }
  if (const auto* report = first_report(reports, [](const Report& r) { return r.code == Code::peer_gone; })) {
    return from_report(states, *report);
  }
  if (!reports.empty()) return from_report(states, reports.front());
  return {"the job failed, and no rank said why", 1};
}

}  // namespace gradrail
