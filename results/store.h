// Records as JSON lines: one object a line, a "run" first. The writer hands each line to the system at once, so that a
// killed run keeps what it measured; NaN and infinities become null; figures keep seven significant digits. The reader
// takes files that were cut short or come from a later version: kinds and keys it does not know are passed over, a last
// line without its end is reported as a warning, and only a file of a later schema is refused. One thread each.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "results/output_file.h"
#include "results/record.h"
#include "transports/base/result.h"

namespace gradrail {

class RecordWriter {
 public:
  [[nodiscard]] static Result<RecordWriter> create(const std::string& path);
  [[nodiscard]] Result<void> write(const Record& record);
  [[nodiscard]] const std::string& path() const { return file_.path(); }

 private:
  explicit RecordWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

struct RecordFile {
  std::vector<Record> records;
  std::vector<std::string> warnings;  // sentences, with line numbers
};

// Bounds on what is read, against files that are not results at all.
inline constexpr std::size_t k_longest_record_bytes = std::size_t{64} << 20;
inline constexpr std::size_t k_most_records = 1'000'000;

// The whole file; errors name the file and the line.
[[nodiscard]] Result<RecordFile> read_records(const std::string& path);

// One line without its end, and back. Nothing if the kind is not known here.
[[nodiscard]] std::string format_record(const Record& record);
[[nodiscard]] Result<std::optional<Record>> parse_record(std::string_view line);

}  // namespace gradrail
