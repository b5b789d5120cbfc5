// Made-up hosts as trees of files: a listing of tests/unit/doctor_hosts/ planted below a folder that goes with the
// test. Lines of a listing are "path = a line of the file" and "path -> target of the link".
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace gradrail::test {

class PlantedHost {
 public:
  PlantedHost() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gradrail-host-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) root_ = pattern;
  }
  explicit PlantedHost(const std::string& listing) : PlantedHost() {
    std::ifstream in(std::string(GRADRAIL_SOURCE_DIR) + "/tests/unit/doctor_hosts/" + listing + ".txt");
    for (std::string line; std::getline(in, line);) {
      if (line.empty() || line.starts_with('#')) continue;
      if (const auto at = line.find(" -> "); at != std::string::npos)
        link(line.substr(0, at), line.substr(at + 4));
      else if (const auto is = line.find(" = "); is != std::string::npos)
        add(line.substr(0, is), line.substr(is + 3));
    }
  }
  PlantedHost(const PlantedHost&) = delete;
  PlantedHost& operator=(const PlantedHost&) = delete;
  ~PlantedHost() {
    if (!root_.empty()) std::filesystem::remove_all(root_);
  }

  [[nodiscard]] const std::filesystem::path& root() const { return root_; }

  void add(const std::string& path, const std::string& line) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::app) << line << '\n';
  }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void link(const std::string& path, const std::string& target) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::filesystem::create_symlink(target, root_ / path);
  }

 private:
  std::filesystem::path root_;
};

}  // namespace gradrail::test
