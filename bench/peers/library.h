// Another library's collectives, as one rank of it offers them: the whole contract between a library and the loop that
// serves the driver (serve.h). One object a process, used from one thread. Waiting inside the library has no deadline
// of its own; the driver has one, and ends the process.
#pragma once

#include <memory>
#include <string>

#include "collectives/exec/communicator.h"

namespace gradrail {

class PeerLibrary {
 public:
  virtual ~PeerLibrary() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int ranks() const = 0;
  [[nodiscard]] virtual std::string version() const = 0;  // "Open MPI 4.1.4"

  // Makes ready for calls like this one, which differ at most in where their buffers lie. Errors: unsupported (the
  // library has no such collective, type or operation), and the library's own.
  [[nodiscard]] virtual Result<void> prepare(const Call& call) = 0;
  // One operation, to its end on this rank. Only after prepare() of such a call.
  [[nodiscard]] virtual Result<void> run(const Call& call) = 0;
  [[nodiscard]] virtual Result<void> barrier() = 0;
  // Whether run() may be called with buffers other than those of prepare().
  [[nodiscard]] virtual bool takes_other_buffers() const { return true; }
  // A library that works on memory of its own, as one for GPUs does, takes the call's input there before a check, and
  // brings its output back after it. Never within what is timed.
  [[nodiscard]] virtual Result<void> load(const Call&, std::size_t) { return {}; }
  [[nodiscard]] virtual Result<void> store(const Call&, std::size_t) { return {}; }
  // Forgets what prepare() made; the buffers are about to go.
  virtual void forget() {}
};

}  // namespace gradrail
