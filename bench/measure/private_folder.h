// A folder of this user's alone, for sockets and what peers leave; gone with the object. It is locked for as long as
// its process lives, so that one which was left by a process that was killed is known, and goes when the next is made.
#pragma once

#include <string>
#include <utility>

#include "transports/base/result.h"
#include "transports/socket.h"

namespace gradrail {

class PrivateFolder {
 public:
  // In TMPDIR, or in /tmp where that is not set or too long for the path of a socket. Errors: system.
  [[nodiscard]] static Result<PrivateFolder> make();
  PrivateFolder(PrivateFolder&& other) noexcept
      : path_(std::exchange(other.path_, {})), lock_(std::move(other.lock_)) {}
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  PrivateFolder(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  Fd lock_;
};

}  // namespace gradrail
