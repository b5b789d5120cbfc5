#include "bench/measure/private_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace gradrail {

namespace {

constexpr std::string_view k_prefix = "gradrail-peer-";
constexpr std::size_t k_longest_bytes = 60;  // a socket's path has at most 107
constexpr int k_tries = 8;

Fd opened(const std::string& path) { return Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)); }

void take_away(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

void remove_left_behind(const std::string& where) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(where, ignored)) {
    if (!entry.path().filename().string().starts_with(k_prefix)) continue;
    const Fd folder = opened(entry.path());
    struct stat about {};
    if (folder && ::fstat(folder.get(), &about) == 0 && about.st_uid == ::geteuid() &&
        ::flock(folder.get(), LOCK_EX | LOCK_NB) == 0)
      take_away(entry.path());
  }
}

}  // namespace

Result<PrivateFolder> PrivateFolder::make() {
  const char* asked = std::getenv("TMPDIR");
  std::string where = asked != nullptr && *asked != '\0' ? asked : "/tmp";
  if (where.size() > k_longest_bytes) where = "/tmp";
  remove_left_behind(where);
  for (int attempt = 0; attempt < k_tries; ++attempt) {
    std::string path = fmt::format("{}/{}XXXXXX", where, k_prefix);
    if (::mkdtemp(path.data()) == nullptr) return fail_errno(fmt::format("making the folder {}", path), errno);
    Fd lock = opened(path);
    // Until it is locked, another process may take it for one that was left.
    if (!lock) continue;
    if (::flock(lock.get(), LOCK_EX) != 0) {
      const int why = errno;
      take_away(path);
      return fail_errno(fmt::format("locking the folder {}", path), why);
    }
    if (opened(path)) return PrivateFolder(std::move(path), std::move(lock));
  }
  return fail(Code::system, fmt::format("folders made in {} are gone at once; set TMPDIR to another", where));
}

PrivateFolder::~PrivateFolder() {
  if (!path_.empty()) take_away(path_);
}

}  // namespace gradrail
