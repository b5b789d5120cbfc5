#include "bench/command/job.h"

#include <cstdlib>

#include "bench/command/command.h"
#include "transports/base/build_info.h"
#include "transports/bootstrap/launcher.h"
#include "transports/bootstrap/surroundings.h"

namespace gradrail {

int run_as_job(const JobOptions& options, const std::function<Result<void>()>& before_launch,
               const std::function<Result<void>(Bootstrap&)>& work) {
  const auto surroundings = look_around([](const char* name) -> const char* { return std::getenv(name); });
  if (!surroundings) return report(surroundings.error());
  const int ranks = options.ranks > 0 ? options.ranks : options.default_ranks;
  const bool alone = surroundings->way == Surroundings::Way::alone;
  if (alone) {
    if (const auto ready = before_launch(); !ready) return report(ready.error());
    LaunchOptions launch_options;
    launch_options.ranks = ranks;
    launch_options.argv = options.argv;
    const auto ended = launch(launch_options);
    return ended ? *ended : report(ended.error());
  }

  const BuildInfo build = build_info();
  const std::string build_id = build.version + " " + build.commit + " " + build.type;
  JoinOptions join_options;
  join_options.expected_ranks = options.ranks;
  join_options.build_id = build_id;
  auto bootstrap = join(join_options);
  if (!bootstrap) return exit_code(bootstrap.error());  // join() has said it
  Result<void> done;
  if ((*bootstrap)->rank() == 0 && surroundings->way != Surroundings::Way::launcher) done = before_launch();
  if (done) done = work(**bootstrap);
  if (done) return 0;
  (*bootstrap)->give_up(done.error());
  return exit_code(done.error());
}

}  // namespace gradrail
