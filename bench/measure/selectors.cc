#include "bench/measure/selectors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "bench/measure/codec_survey.h"
#include "bench/measure/patience.h"
#include "bench/measure/probe.h"
#include "collectives/select/cost_selector.h"
#include "transports/base/fd.h"

namespace gradrail {

namespace {

constexpr std::size_t k_longest_table = std::size_t{16} << 20;

// All of it, and so that it lasts; false, with errno, if not.
bool write_to(const std::string& path, int flags, std::string_view text) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666));
  if (!file) return false;
  while (!text.empty()) {
    const auto wrote = ::write(file.get(), text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  // Devices and pipes keep nothing.
  return ::fsync(file.get()) == 0 || errno == EINVAL || errno == EROFS;
}

// It was looked at before anything was measured, so what was typed is not to blame.
tl::unexpected<Error> unwritten(const std::string& path, int why) {
  return fail(Code::system, fmt::format("cannot write '{}': {}", path, std::system_category().message(why)),
              Error::k_no_peer, why);
}

Result<std::string> read_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto failed = [&](int why) {
    return fail(Code::bad_usage,
                fmt::format("cannot read the table '{}': {}", path, std::system_category().message(why)),
                Error::k_no_peer, why);
  };
  if (file.get() < 0) return failed(errno);
  std::string text;
  char block[1 << 16];
  while (true) {
    const auto got = ::read(file.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(errno);
    if (got == 0) return text;
    text.append(block, static_cast<std::size_t>(got));
    if (text.size() > k_longest_table)
      return fail(Code::bad_usage, fmt::format("'{}' is longer than any decision table", path));
  }
}

}  // namespace

Result<std::shared_ptr<const DecisionTable>> open_table(const TableTexts& texts, const Machine& here, bool loud) {
  if (texts.on_foreign != "refuse" && texts.on_foreign != "warn")
    return fail(Code::bad_usage, fmt::format("--on-foreign-table is refuse or warn, not '{}'", texts.on_foreign));
  if (texts.path.empty()) return nullptr;
  GRADRAIL_ASSIGN(const std::string text, read_file(texts.path));
  auto table = parse_table(text);
  if (!table)
    return fail(Code::bad_usage, fmt::format("the table '{}' is damaged: {}; make it again with gradrail tune --table",
                                             texts.path, table.error().message));
  if (const auto other = foreign(table->origin, here.cpu_model, here.cores)) {
    if (texts.on_foreign == "refuse")
      return fail(Code::bad_usage,
                  fmt::format("the table '{}' was {}; tune here, or use it anyway with --on-foreign-table warn",
                              texts.path, *other));
    if (loud)
      std::fprintf(stderr, "gradrail: warning: the table '%s' was %s; its choices may be wrong here\n",
                   texts.path.c_str(), other->c_str());
  }
  return std::make_shared<const DecisionTable>(*std::move(table));
}

Result<std::shared_ptr<const DecisionTable>> share_table(Bootstrap& bootstrap, const TableTexts& texts,
                                                         const Machine& here, Seconds timeout) {
  if (texts.path.empty()) return nullptr;
  std::string text;
  if (bootstrap.rank() == 0) {
    GRADRAIL_ASSIGN(const auto table, open_table(texts, here, true));
    text = format_table(*table);
  }
  GRADRAIL_ASSIGN(const Bytes bytes,
                  bootstrap.broadcast(std::as_bytes(std::span(text)), Deadline::after(control_wait(timeout))));
  GRADRAIL_ASSIGN(DecisionTable table, parse_table({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  return std::make_shared<const DecisionTable>(std::move(table));
}

std::shared_ptr<const DecisionTable> without_other_phases(std::shared_ptr<const DecisionTable> table,
                                                          const TableTexts& texts, double core_to_core_ns, bool loud) {
  if (table == nullptr || core_to_core_ns <= 0) return table;
  DecisionTable left = *table;
  double other_ns = 0;
  std::erase_if(left.entries, [&](const TableEntry& entry) {
    const double then = entry.core_to_core_ns;
    const bool other =
        then > 0 && (std::max(then, core_to_core_ns) > k_latency_tolerance * std::min(then, core_to_core_ns));
    if (other) other_ns = then;
    return other;
  });
  if (other_ns == 0) return table;
  const bool use = texts.on_foreign == "warn";
  if (loud)
    std::fprintf(
        stderr,
        "gradrail: warning: the table '%s' was fitted while a cache line went from core to core in %.0f ns, "
        "and now it takes %.0f ns; %s\n",
        texts.path.c_str(), other_ns, core_to_core_ns,
        use ? "its choices may be wrong now" : "auto measures algorithms instead, unless told --on-foreign-table warn");
  if (use) return table;
  if (left.entries.empty()) return nullptr;
  return std::make_shared<const DecisionTable>(std::move(left));
}

Result<std::shared_ptr<CostSelector>> make_model(Bootstrap& bootstrap, Communicator& communicator,
                                                 const SurveyOptions& needs, const CostModel& links) {
  GRADRAIL_ASSIGN(const GroupTimes times, survey(bootstrap, communicator, links, needs));
  const char* const source = times.observations.empty() ? "measured links" : "measured links and algorithms";
  return std::make_shared<CostSelector>(links, source, times);
}

Result<Selectors> make_selectors(Bootstrap& bootstrap, Communicator& communicator, const SurveyOptions& needs,
                                 const std::shared_ptr<const DecisionTable>& table, const std::string& name) {
  GRADRAIL_ASSIGN(const LinkCalibration links,
                  calibrate(bootstrap, communicator, needs.buffers, communicator.cores(), needs.timeout));
  GRADRAIL_ASSIGN(const auto model, make_model(bootstrap, communicator, needs, links.model));
  std::shared_ptr<const Selector> selector = model;
  if (table != nullptr) selector = std::make_shared<const TableSelector>(*table, name, model);
  for (const Collective collective : needs.coded_collectives) {
    GRADRAIL_ASSIGN(auto codecs, survey_codecs(bootstrap, communicator, collective, *selector, needs));
    model->know_codecs(collective, std::move(codecs));
  }
  return Selectors{std::move(selector), links};
}

Result<void> write_whole_file(const std::string& path, std::string_view text) {
  struct stat status {};
  const bool there = ::lstat(path.c_str(), &status) == 0;
  // A device, a pipe or a link is written to; a file in its place would take it away from everyone.
  if (!there || S_ISREG(status.st_mode)) {
    const std::string beside = fmt::format("{}.{}.part", path, ::getpid());
    if (write_to(beside, O_CREAT | O_EXCL, text) && ::rename(beside.c_str(), path.c_str()) == 0) return {};
    const int why = errno;
    ::unlink(beside.c_str());
    // Where a file may be written and its folder may not, or it is a mount of its own, it is written in place.
    if (!there || (why != EACCES && why != EPERM && why != EROFS && why != EBUSY)) return unwritten(path, why);
  }
  if (!write_to(path, O_TRUNC, text)) return unwritten(path, errno);
  return {};
}

}  // namespace gradrail
