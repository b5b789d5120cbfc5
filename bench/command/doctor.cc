#include "bench/command/doctor.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <filesystem>
#include <memory>

#include "bench/command/outputs.h"
#include "bench/doctor/readers.h"
#include "bench/doctor/report.h"
#include "bench/report/table.h"
#include "results/output_file.h"
#include "transports/settings.h"

namespace gradrail {

namespace {

struct DoctorTexts {
  std::string root;
  std::string record;
  std::string json;
};

// What this build can use here; a tree from elsewhere does not tell.
void add_transports(doctor::Diagnosis& diagnosis) {
  for (const TransportKind& kind : transport_kinds()) {
    if (kind.name == "local") continue;  // for tests
    const auto available = kind.available();
    diagnosis.findings.push_back({"software",
                                  fmt::format("transport {}", kind.name),
                                  available ? std::string("available") : available.error().message,
                                  available ? doctor::Verdict::ok : doctor::Verdict::unknown,
                                  {}});
  }
}

Result<void> examine(const DoctorTexts& texts) {
  std::error_code error;
  const bool here = texts.root.empty();
  if (!here && !std::filesystem::is_directory(texts.root, error))
    return fail(Code::bad_usage, fmt::format("'{}' is no folder; --root names a tree that --record wrote", texts.root));
  const std::array<Output, 1> outputs{{{"--json", &texts.json, true}}};
  GRADRAIL_TRY(can_write(outputs));
  Files files(here ? "/" : texts.root);
  if (!texts.record.empty()) GRADRAIL_TRY(files.record(texts.record));
  auto diagnosis = doctor::diagnose(doctor::read_facts(files));
  if (here) add_transports(diagnosis);
  GRADRAIL_TRY(files.recorded());
  const std::string text = doctor::to_text(diagnosis, wants_colour(stdout));
  if (!texts.json.empty()) {
    GRADRAIL_ASSIGN(auto file, OutputFile::create(texts.json));
    GRADRAIL_TRY(file.write(doctor::to_json(diagnosis)));
    if (texts.json == OutputFile::k_standard) return {};
  }
  GRADRAIL_TRY(say(text));
  if (!texts.record.empty())
    GRADRAIL_TRY(
        say(fmt::format("wrote {}: look through it before you pass it on; it holds the host's name and the "
                        "addresses of RDMA ports\n",
                        texts.record)));
  return {};
}

}  // namespace

Command add_doctor_command(CLI::App& parent) {
  auto texts = std::make_shared<DoctorTexts>();
  CLI::App* app = parent.add_subcommand(
      "doctor", "Examines this host: CPUs, memory, RDMA devices, GPUs, software, limits; and says what to mend");
  app->add_option("--json", texts->json, "One JSON object instead of text; to a file if one is named")->expected(0, 1);
  app->add_option("--root", texts->root, "Examine a recorded tree instead of this host")->type_name("DIR");
  app->add_option("--record", texts->record, "Copy what was read, and nothing else, into a new folder")
      ->type_name("DIR");
  return {app, [texts, app] {
            // --json alone has no value, and means standard output.
            if (app->count("--json") > 0 && texts->json.empty()) texts->json = OutputFile::k_standard;
            const auto done = examine(*texts);
            return done ? 0 : report(done.error());
          }};
}

}  // namespace gradrail
