// Points as comma-separated values (RFC 4180: CRLF, quotes doubled): a header, then one row a point, for spreadsheets
// and data frames. Columns are named as in results/schema.json, with the members of time_us spelled out; what is not
// known is empty. Samples are in the JSON lines only.
#pragma once

#include <string>

#include "results/output_file.h"
#include "results/record.h"
#include "transports/base/result.h"

namespace gradrail {

[[nodiscard]] std::string csv_header();
[[nodiscard]] std::string csv_row(const Point& point);

[[nodiscard]] std::string p2p_csv_header();
[[nodiscard]] std::string p2p_csv_row(const P2pPoint& point);

class CsvWriter {
 public:
  [[nodiscard]] static Result<CsvWriter> create(const std::string& path);  // writes the header
  [[nodiscard]] Result<void> write(const Point& point) { return file_.write(csv_row(point)); }
  [[nodiscard]] const std::string& path() const { return file_.path(); }

 private:
  explicit CsvWriter(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
};

}  // namespace gradrail
