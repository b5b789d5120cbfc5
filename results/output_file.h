// A text file being written piece by piece, where each piece reaches the system at once and is either there whole or
// not there: what a run has measured is kept when the run is killed, and a full disk leaves no half line behind. One
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail {

class OutputFile {
 public:
  static constexpr std::string_view k_standard = "-";

  // Creates the file or empties it; `-` is standard output as it is now, to which is appended. bad_usage, with the
  // system's reason, where that is not possible.
  [[nodiscard]] static Result<OutputFile> create(const std::string& path);

  // Whether create() would do, without touching what is there. Errors as create().
  [[nodiscard]] static Result<void> can_create(const std::string& path);

  // Appends. On failure a regular file is cut back to what the earlier calls wrote.
  [[nodiscard]] Result<void> write(std::string_view text);

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  OutputFile(std::string path, Fd fd, bool regular) : path_(std::move(path)), fd_(std::move(fd)), regular_(regular) {}

  std::string path_;
  Fd fd_;
  bool regular_;            // a pipe or device cannot be cut back
  std::int64_t whole_ = 0;  // bytes of all pieces so far
};

}  // namespace gradrail
