#include "bench/command/run_record.h"

#include <chrono>
#include <ctime>
#include <set>

#include "bench/measure/machine.h"
#include "transports/base/build_info.h"

namespace gradrail {

namespace {

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

Run describe_run(const Bootstrap& bootstrap, const std::vector<std::string>& argv) {
  Run run;
  run.machine = describe_machine();
  const BuildInfo build = build_info();
  run.build = {build.version, build.commit, build.type, build.compiler, build.flags, build.sanitize, {}};
  std::set<std::string> hosts;
  for (const Member& member : bootstrap.members()) hosts.insert(member.host);
  run.job = {bootstrap.ranks(), static_cast<int>(hosts.size()), std::string(bootstrap.origin()), {}};
  run.args = argv;
  run.started = utc_now();
  return run;
}

}  // namespace gradrail
