#include "bench/measure/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <deque>
#include <fstream>
#include <utility>

#include "transports/base/fd.h"

namespace gradrail {

namespace {

namespace fs = std::filesystem;

constexpr int k_most_links = 40;                             // as the kernel has it
constexpr std::size_t k_most_line_bytes = 4096;              // one value of /sys is at most a page
constexpr std::size_t k_most_bytes = std::size_t{16} << 20;  // of a file read whole; a package database has a few MiB
constexpr std::size_t k_most_entries = 100'000;

void push_front(std::deque<std::string>& parts, std::string_view path) {
  std::vector<std::string> split;
  for (std::size_t begin = 0; begin <= path.size();) {
    const auto end = std::min(path.find('/', begin), path.size());
    if (end > begin) split.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.insert(parts.begin(), split.begin(), split.end());
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view k_space(" \t\r\n\0", 5);
  const auto first = text.find_first_not_of(k_space);
  return first == text.npos ? std::string_view{} : text.substr(first, text.find_last_not_of(k_space) - first + 1);
}

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t out = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (wrong != std::errc{}) return std::nullopt;
  const auto suffix = trimmed(std::string_view(end, static_cast<std::size_t>(text.data() + text.size() - end)));
  const char unit = suffix.empty() ? ' ' : suffix.front();
  const int shift = unit == 'K' || unit == 'k' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
  if (out > (INT64_MAX >> shift) || out < (INT64_MIN >> shift)) return std::nullopt;
  return out * (std::int64_t{1} << shift);
}

std::vector<int> numbers_in(std::string_view text) {
  constexpr unsigned k_most = 1 << 20;
  std::vector<int> numbers;
  const auto number = [&](int& value) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc() || value < 0 || value >= static_cast<int>(k_most)) return false;
    text.remove_prefix(static_cast<std::size_t>(read.ptr - text.data()));
    return true;
  };
  while (true) {
    int first = 0;
    if (!number(first)) return numbers;
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!number(last)) return numbers;
    }
    for (int value = first; value <= last && numbers.size() < k_most; ++value) numbers.push_back(value);
    if (!text.starts_with(',')) return numbers;
    text.remove_prefix(1);
  }
}

std::string Files::real(std::string_view path) const {
  std::deque<std::string> parts;
  push_front(parts, path);
  std::vector<std::string> done;
  const auto joined = [&] {
    std::string out;
    for (const std::string& part : done) out += (out.empty() ? "" : "/") + part;
    return out;
  };
  int links = 0;
  while (!parts.empty()) {
    const std::string part = std::move(parts.front());
    parts.pop_front();
    if (part == ".") continue;
    if (part == "..") {
      if (!done.empty()) done.pop_back();
      continue;
    }
    done.push_back(part);
    const std::string at = joined();
    std::error_code error;
    const auto status = fs::symlink_status(root_ / at, error);
    if (error || !fs::exists(status)) return {};
    if (!fs::is_symlink(status)) continue;
    const std::string target = fs::read_symlink(root_ / at, error).string();
    if (error || ++links > k_most_links) return {};
    keep_link(at, target);
    done.pop_back();
    if (target.starts_with('/')) done.clear();
    push_front(parts, target);
  }
  std::string out = joined();
  // A link that leads nowhere would say nothing when the record is read.
  std::error_code error;
  if (links > 0 && !record_.empty() && fs::is_directory(root_ / out, error)) keep_folder(out);
  return out;
}

bool Files::exists(std::string_view path) const {
  const std::string at = real(path);
  if (at.empty()) return false;
  std::error_code error;
  if (fs::is_directory(root_ / at, error))
    keep_folder(at);
  else
    keep(at, "");
  return true;
}

// A file may be a pipe, whose opening waits, or a device: only ordinary ones are read.
std::string Files::text(const std::string& real, std::size_t most) const {
  if (real.empty()) return {};
  const Fd fd(::open((root_ / real).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  std::string out;
  char piece[4096];
  while (out.size() < most) {
    const auto got = ::read(fd.get(), piece, std::min(sizeof piece, most - out.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    out.append(piece, static_cast<std::size_t>(got));
  }
  return out;
}

std::string Files::line(std::string_view path) const {
  const std::string at = real(path);
  const std::string all = text(at, k_most_line_bytes);
  std::string first(trimmed(std::string_view(all).substr(0, all.find('\n'))));
  if (!all.empty()) keep(at, first + "\n");
  return first;
}

std::vector<std::string> Files::lines(std::string_view path) const {
  const std::string at = real(path);
  const std::string all = text(at, k_most_bytes);
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin < all.size();) {
    const auto end = std::min(all.find('\n', begin), all.size());
    out.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

std::string Files::value(std::string_view path, std::string_view key, char separator) const {
  for (const std::string& text : lines(path)) {
    const auto split = text.find(separator);
    if (split == text.npos || trimmed(std::string_view(text).substr(0, split)) != key) continue;
    keep(path, text + "\n");
    return std::string(trimmed(std::string_view(text).substr(split + 1)));
  }
  return {};
}

std::string Files::bytes(std::string_view path, std::size_t count) const {
  const std::string at = real(path);
  std::string out = text(at, std::min(count, k_most_bytes));
  if (!out.empty()) keep(at, out);
  return out;
}

std::vector<std::string> Files::entries(std::string_view folder, std::string_view prefix) const {
  std::vector<std::string> out;
  const std::string at = real(folder);
  if (at.empty()) return out;
  std::error_code error;
  fs::directory_iterator entry(root_ / at, error);
  for (; !error && entry != fs::directory_iterator() && out.size() < k_most_entries; entry.increment(error)) {
    std::string name = entry->path().filename();
    if (name.starts_with(prefix)) out.push_back(std::move(name));
  }
  std::sort(out.begin(), out.end());
  if (!record_.empty())
    for (const std::string& name : out) (void)exists(at + "/" + name);
  return out;
}

std::vector<int> Files::numbered(std::string_view folder, std::string_view prefix) const {
  std::vector<int> out;
  for (const std::string& name : entries(folder, prefix)) {
    int number = 0;
    const auto [end, wrong] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), number);
    if (wrong == std::errc{} && number >= 0 && end == name.data() + name.size()) out.push_back(number);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<void> Files::record(const fs::path& folder) {
  std::error_code error;
  const bool there = fs::exists(folder, error);
  if (there && !(fs::is_directory(folder, error) && fs::is_empty(folder, error)))
    return fail(Code::bad_usage,
                fmt::format("'{}' is there already; name a folder that is not, or an empty one", folder.string()));
  fs::create_directories(folder, error);
  if (error)
    return fail(Code::bad_usage, fmt::format("cannot make the folder '{}': {}", folder.string(), error.message()));
  record_ = folder;
  return {};
}

// What was kept of a file grows line by line; a line that is there is not written twice.
void Files::keep(std::string_view path, std::string_view text) const {
  if (record_.empty() || !recorded_) return;
  const fs::path at = record_ / real(path);
  std::error_code error;
  fs::create_directories(at.parent_path(), error);
  if (fs::is_directory(at, error)) return;
  std::string there;
  {
    std::ifstream in(at, std::ios::binary);
    there.assign(std::istreambuf_iterator<char>(in), {});
  }
  errno = 0;
  std::ofstream out(at, std::ios::binary | std::ios::app);
  if (there.find(text) == there.npos) out << text;
  out.flush();
  if (!out) recorded_ = fail_errno(fmt::format("writing '{}'", at.string()), errno);
}

void Files::keep_folder(const std::string& real) const {
  if (record_.empty()) return;
  std::error_code error;
  fs::create_directories(record_ / real, error);
}

void Files::keep_link(const std::string& at, const std::string& target) const {
  if (record_.empty() || !recorded_) return;
  std::error_code error;
  const fs::path link = record_ / at;
  if (fs::exists(fs::symlink_status(link, error))) return;
  fs::create_directories(link.parent_path(), error);
  fs::create_symlink(target, link, error);
  if (error) recorded_ = fail(Code::system, fmt::format("cannot write '{}': {}", link.string(), error.message()));
}

}  // namespace gradrail
