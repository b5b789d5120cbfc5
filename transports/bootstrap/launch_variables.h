// What the launcher leaves in a rank's environment, and join() takes out of it again so that the rank's own children do
// not believe to be ranks. The values are numbers of inherited descriptors and plain facts; the secret is in a
// memory file behind one of them.
#pragma once

namespace gradrail::launch_variable {

inline constexpr char k_rank[] = "GRADRAIL_LAUNCH_RANK";
inline constexpr char k_ranks[] = "GRADRAIL_LAUNCH_RANKS";
inline constexpr char k_endpoint[] = "GRADRAIL_LAUNCH_ENDPOINT";    // "127.0.0.1:40123"
inline constexpr char k_listen_fd[] = "GRADRAIL_LAUNCH_LISTEN_FD";  // rank 0 only: listens on that endpoint
inline constexpr char k_report_fd[] = "GRADRAIL_LAUNCH_REPORT_FD";  // the pipe of report.h
inline constexpr char k_secret_fd[] = "GRADRAIL_LAUNCH_SECRET_FD";  // 64 hex digits at offset 0
inline constexpr char k_prefix[] = "GRADRAIL_LAUNCH_";

}  // namespace gradrail::launch_variable
