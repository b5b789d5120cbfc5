#include "results/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace gradrail {

namespace {

Result<Fd> open_to_write(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666));
  if (fd) return fd;
  const int why = errno;
  return fail(Code::bad_usage,
              fmt::format("cannot write '{}': {}; name a file in a folder that exists and may be written", path,
                          std::system_category().message(why)),
              Error::k_no_peer, why);
}

}  // namespace

Result<void> OutputFile::can_create(const std::string& path) {
  if (path == k_standard) return {};
  if (const Fd made(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)); made) {
    ::unlink(path.c_str());
    return {};
  }
  struct stat status {};
  // Opening a pipe would wait for its reader.
  if (::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) return {};
  GRADRAIL_TRY(open_to_write(path, O_CREAT));
  return {};
}

Result<OutputFile> OutputFile::create(const std::string& path) {
  if (path == k_standard) {
    Fd standard(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!standard) return fail_errno("writing to standard output", errno);
    return OutputFile("standard output", std::move(standard), false);
  }
  GRADRAIL_ASSIGN(Fd fd, open_to_write(path, O_CREAT | O_TRUNC));
  struct stat status {};
  const bool regular = ::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode);
  return OutputFile(path, std::move(fd), regular);
}

Result<void> OutputFile::write(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto wrote = ::write(fd_.get(), rest.data(), rest.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const int why = errno;
      std::string kept = "nothing more was written";
      if (regular_ && ::ftruncate(fd_.get(), whole_) == 0 && ::lseek(fd_.get(), whole_, SEEK_SET) == whole_)
        kept = "what was written before is kept";
      return fail(Code::system,
                  fmt::format("writing '{}' failed: {}; {}", path_, std::system_category().message(why), kept),
                  Error::k_no_peer, why);
    }
    rest.remove_prefix(static_cast<std::size_t>(wrote));
  }
  whole_ += static_cast<std::int64_t>(text.size());
  return {};
}

}  // namespace gradrail
