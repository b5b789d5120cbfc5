// What the system says about itself, read from files below a root: "/" on this host, or a tree that somebody recorded.
// Everything that is missing, unreadable, no ordinary file or larger than reason is empty: nothing that a machine has
// in /proc and /sys may stop a benchmark. Links are followed as if the root were "/", so that a tree from elsewhere
// cannot lead out of itself. Can keep a copy of what was read, and of nothing else. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transports/base/result.h"

namespace gradrail {

class Files {
 public:
  explicit Files(std::filesystem::path root = "/") : root_(std::move(root)) {}

  // Paths are relative to the root: "proc/meminfo".
  [[nodiscard]] bool exists(std::string_view path) const;
  // The first line, without spaces around it.
  [[nodiscard]] std::string line(std::string_view path) const;
  [[nodiscard]] std::vector<std::string> lines(std::string_view path) const;
  // What stands behind the first `key`, `separator` at the start of a line: "MemTotal" ':' or "PRETTY_NAME" '='.
  [[nodiscard]] std::string value(std::string_view path, std::string_view key, char separator) const;
  // The first `count` bytes, or fewer.
  [[nodiscard]] std::string bytes(std::string_view path, std::size_t count) const;
  // Names in a folder that begin with `prefix`, sorted.
  [[nodiscard]] std::vector<std::string> entries(std::string_view folder, std::string_view prefix = {}) const;
  // Entries of a folder that are `prefix` and a number, by that number.
  [[nodiscard]] std::vector<int> numbered(std::string_view folder, std::string_view prefix) const;
  // Where the path leads when all links are followed: "sys/devices/pci0000:00/..."; empty if nowhere.
  [[nodiscard]] std::string real(std::string_view path) const;

  // From now on, every line that is read, and every name that is found, also stands below `folder`, which is empty or
  // not there yet. What is read only for the part of it that matters is written as that part.
  // Errors: bad_usage.
  [[nodiscard]] Result<void> record(const std::filesystem::path& folder);
  // What went wrong while recording, if anything did.
  [[nodiscard]] const Result<void>& recorded() const { return recorded_; }
  // Stands in the record beside what was read: for readers that take a few lines of many.
  void keep(std::string_view path, std::string_view text) const;

 private:
  [[nodiscard]] std::string text(const std::string& real, std::size_t most) const;
  void keep_link(const std::string& at, const std::string& target) const;
  void keep_folder(const std::string& real) const;

  std::filesystem::path root_;
  std::filesystem::path record_;  // empty: not recording
  mutable Result<void> recorded_;
};

// Without spaces and line ends around it.
[[nodiscard]] std::string_view trimmed(std::string_view text);
// The number at the start of a text, with the kernel's suffixes: "2048K", "24 kB".
[[nodiscard]] std::optional<std::int64_t> number_in(std::string_view text);
// "0-3,8": what is not understood ends the list.
[[nodiscard]] std::vector<int> numbers_in(std::string_view text);

}  // namespace gradrail
