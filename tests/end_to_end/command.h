// The gradrail command as a person uses it: run with a deadline, its output and exit code read afterwards, in a folder
// that goes with the test. What a run leaves behind is looked for: processes of this very binary, shared memory.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fault/bootstrap_rank.h"

namespace gradrail::test {

using Words = std::vector<std::string>;

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
// "-n 4 --op sum"
inline Words words(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

inline Process start_gradrail(const Words& arguments, const Process::Settings& settings = {}) {
  return Process(Words{GRADRAIL_BINARY} + arguments, settings);
}

struct Ended {
  int code = -1;  // 128 and more: by a signal; -1: not within the limit
  std::string out;
  std::string err;
};

inline Ended ended(Process& process, Seconds limit = Seconds(60)) {
  const int code = process.wait(limit);
  return {code, process.out(), process.err()};
}
inline Ended gradrail(const Words& arguments, Seconds limit = Seconds(60), const Process::Settings& settings = {}) {
  auto process = start_gradrail(arguments, settings);
  return ended(process, limit);
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
inline std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}
// The last line may be cut short where the writer was killed; none of the tests kills one in the middle of a line.
inline std::vector<nlohmann::json> records_of(const std::filesystem::path& path) {
  std::vector<nlohmann::json> records;
  for (const auto& line : lines_of(text_of(path))) {
    records.push_back(nlohmann::json::parse(line, nullptr, false));
    EXPECT_FALSE(records.back().is_discarded()) << "no JSON: " << line;
  }
  return records;
}
inline std::vector<nlohmann::json> of_kind(const std::vector<nlohmann::json>& records, std::string_view kind) {
  std::vector<nlohmann::json> found;
  for (const auto& record : records)
    if (record.value("kind", "") == kind) found.push_back(record);
  return found;
}

class Folder {
 public:
  Folder() {
    auto pattern = (std::filesystem::temp_directory_path() / "gradrail-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    if (!path_.empty()) std::filesystem::remove_all(path_);
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Direct children of a process: a launcher's ranks, in order.
inline std::vector<std::string> children_of(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{0}/task/{0}/children", pid));
  return {std::istream_iterator<std::string>(in), {}};
}
// Waits for them: a launcher takes a moment to start its ranks.
inline std::vector<std::string> ranks_of(pid_t launcher, std::size_t count, Seconds limit = Seconds(20)) {
  const auto deadline = Deadline::after(limit);
  while (true) {
    auto found = children_of(launcher);
    if (found.size() >= count || deadline.passed()) return found;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// The same, once the run has written `text` to a file.
inline std::vector<std::string> ranks_after(const std::string& text, const std::filesystem::path& file,
                                            const Process& launcher, std::size_t count) {
  const auto deadline = Deadline::after(Seconds(60));
  const auto written = [&] { return text_of(file).find(text) != std::string::npos; };
  while (!written() && !deadline.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(written()) << launcher.err();
  auto found = ranks_of(launcher.pid(), count);
  EXPECT_EQ(found.size(), count) << launcher.err();
  return found;
}

// Living processes of this build's binary.
inline std::set<long> living() {
  std::set<long> pids;
  std::error_code error;
  const auto binary = std::filesystem::canonical(GRADRAIL_BINARY, error);
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const long pid = std::atol(entry.path().filename().c_str());
    if (pid <= 0 || is_gone(pid)) continue;
    if (std::filesystem::read_symlink(entry.path() / "exe", error) == binary) pids.insert(pid);
  }
  return pids;
}
inline std::set<std::string> shared_memory() {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", error))
    names.insert(entry.path().filename());
  return names;
}

// Every test of the command: nothing of it may be left when the test ends.
class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGINT, SIG_DFL);  // a test run from a script's background ignores it, and so would what it starts
    living_ = living();
    shared_ = shared_memory();
  }
  void TearDown() override {
    const auto deadline = Deadline::after(Seconds(5));
    while (living() != living_ && !deadline.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(living(), living_) << "processes are left behind";
    for (const auto& name : shared_memory())
      EXPECT_TRUE(name.find("gradrail") == name.npos || shared_.contains(name)) << "/dev/shm/" << name << " is left";
  }

  Folder folder_;

 private:
  std::set<long> living_;
  std::set<std::string> shared_;
};

}  // namespace gradrail::test
