// Expected failures as values. A function that can fail for a reason outside the program (peer gone, deadline passed,
// hardware absent, malformed bytes, bad option) returns Result<T>; the Error carries a sentence for a person, and who
// and what was involved for a program. Broken invariants are not errors: see check.h. Nothing of ours throws.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace gradrail {

enum class Code : std::uint8_t {
  bad_usage,    // an option, file or argument is wrong: exit code 2
  unavailable,  // a device, library or facility is absent on this machine
  unsupported,  // a combination that is not defined, said before anything moves
  peer_gone,    // the peer's process or link ended
  timed_out,    // a deadline passed; `peer` is the one that was awaited
  refused,      // a peer failed to prove the job's secret, or came with another build or rank
  malformed,    // bytes from outside did not parse
  exhausted,    // a bounded resource (memory, descriptors, outstanding operations) is used up
  system,       // a system call failed otherwise; `sys_errno` says how
  poisoned,     // refused because an earlier operation on the same communicator failed
};

[[nodiscard]] std::string_view to_string(Code code);

struct Error {
  static constexpr int k_no_peer = -1;

  Code code = Code::system;
  std::string message;   // one whole sentence fragment: what is wrong and what to do; no trailing full stop
  int peer = k_no_peer;  // rank of the peer that was involved, if one was
  int sys_errno = 0;     // errno of the failed call, 0 if none

  // Puts `what` in front ("connecting to rank 3: ..."), keeping code, peer and errno.
  [[nodiscard]] Error in(std::string_view what) &&;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(Code code, std::string message, int peer = Error::k_no_peer,
                                                int sys_errno = 0) {
  return tl::unexpected<Error>(Error{code, std::move(message), peer, sys_errno});
}

// Appends the system's own words for `sys_errno` to the message.
[[nodiscard]] tl::unexpected<Error> fail_errno(std::string_view what, int sys_errno, int peer = Error::k_no_peer);

// Passes an error on to the caller, or goes on.
#define GRADRAIL_TRY(expression)                                                           \
  do {                                                                                     \
    if (auto gradrail_try_result_ = (expression); !gradrail_try_result_) [[unlikely]]      \
      return ::tl::unexpected<::gradrail::Error>(std::move(gradrail_try_result_).error()); \
  } while (false)

#define GRADRAIL_TRY_CONCAT_INNER_(a, b) a##b
#define GRADRAIL_TRY_CONCAT_(a, b) GRADRAIL_TRY_CONCAT_INNER_(a, b)

// `GRADRAIL_ASSIGN(auto value, function());` declares or assigns the value, or passes the error on.
#define GRADRAIL_ASSIGN(target, expression) \
  GRADRAIL_ASSIGN_IMPL_(target, expression, GRADRAIL_TRY_CONCAT_(gradrail_result_, __LINE__))
#define GRADRAIL_ASSIGN_IMPL_(target, expression, name)                  \
  auto name = (expression);                                              \
  if (!name) [[unlikely]]                                                \
    return ::tl::unexpected<::gradrail::Error>(std::move(name).error()); \
  target = std::move(name).value()

}  // namespace gradrail
