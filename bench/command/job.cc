#include "bench/command/job.h"

#include <cstdlib>

#include "bench/command/command.h"
#include "transports/base/build_info.h"
#include "transports/bootstrap/launcher.h"
#include "transports/bootstrap/surroundings.h"

namespace gradrail {

namespace {

constexpr Seconds k_begin_wait{60};

// Rank 0 does it, and says why not; everyone learns the exit code to end with, which is 0 if there is something to do.
Result<int> begin_together(Bootstrap& bootstrap, const std::function<Result<void>(int ranks)>& before_work) {
  Result<void> ready;
  ByteWriter word;
  if (bootstrap.rank() == 0) {
    ready = before_work(bootstrap.ranks());
    word.put(static_cast<std::int32_t>(ready ? 0 : exit_code(ready.error())));
  }
  auto heard = bootstrap.broadcast(std::move(word).take(), Deadline::after(k_begin_wait));
  if (!ready) {
    bootstrap.give_up(ready.error());
    return exit_code(ready.error());
  }
  if (!heard) return tl::unexpected<Error>(std::move(heard).error());
  ByteReader reader(*heard);
  const auto code = reader.get<std::int32_t>();
  if (!reader.ok()) return fail(Code::malformed, "rank 0's word whether to begin is damaged", 0);
  return code;
}

}  // namespace

int run_as_job(const JobOptions& options, const std::function<Result<void>(int ranks)>& before_work,
               const std::function<Result<void>(Bootstrap&)>& work) {
  const auto surroundings = look_around([](const char* name) -> const char* { return std::getenv(name); });
  if (!surroundings) return report(surroundings.error());
  const int ranks = options.ranks > 0 ? options.ranks : options.default_ranks;
  const bool alone = surroundings->way == Surroundings::Way::alone;
  if (alone) {
    if (const auto ready = before_work(ranks); !ready) return report(ready.error());
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
  Result<int> begun = 0;
  if (surroundings->way != Surroundings::Way::launcher) begun = begin_together(**bootstrap, before_work);
  if (begun && *begun != 0) return *begun;
  Result<void> done;
  if (begun)
    done = work(**bootstrap);
  else
    done = tl::unexpected<Error>(std::move(begun).error());
  if (done) return 0;
  (*bootstrap)->give_up(done.error());
  return exit_code(done.error());
}

}  // namespace gradrail
