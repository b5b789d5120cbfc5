#include "bench/command/codec_budget.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/measure/gradient.h"
#include "bench/report/codecs.h"
#include "collectives/compress/codec.h"
#include "collectives/exec/exchange.h"

namespace gradrail {

namespace {

constexpr std::int64_t k_least_bytes = 16 << 10;  // below, there is nothing to gain from fewer bytes
constexpr std::uint64_t k_trial_values = 65521;

class Collector : public SweepListener {
 public:
  Result<void> begin() override { return {}; }
  Result<void> block(std::span<const Point> points) override {
    found.points.insert(found.points.end(), points.begin(), points.end());
    return {};
  }
  Result<void> steps(const Point&, std::span<const RankStep>) override { return {}; }
  void group(const Communicator&, const LinkCalibration&, const Selector&) override {}
  void peer(const PeerRecord&) override {}
  void next(double, const std::string&) override {}
  void bare_sockets(const Point&, std::uint64_t, double) override {}
  void limits(const Limits&) override {}

  CodecFindings found;
};

}  // namespace

Result<void> check_error_budget(double budget) {
  if (budget >= 0 && budget < 1) return {};
  return fail(
      Code::bad_usage,
      fmt::format("--error-budget is {}; a relative error is at least 0 and below 1, for example 1e-2", budget));
}

Result<std::vector<std::string>> codecs_within(const SweepOptions& axes, double budget) {
  std::vector<std::string> named;
  for (const std::string& codec : axes.codecs)
    if (codec != "none") named.push_back(codec);
  if (named.empty())
    for (const CodecKind* kind : codec_kinds()) {
      const auto codec = make_codec(kind->example);
      if (codec && ((*codec)->traits().fixed_size || !exchange_kinds().empty())) named.emplace_back(kind->example);
    }
  Call call;
  call.count = k_trial_values;
  const Gradient gradient(call, 1, 1);
  std::vector<std::string> within;
  for (const std::string& codec : named) {
    GRADRAIL_ASSIGN(const double error, gradient.error_of_one(codec, 0));
    if (error <= budget) within.push_back(codec);
  }
  return within;
}

Result<CodecFindings> measure_codecs(Bootstrap& bootstrap, SweepOptions axes, double budget) {
  GRADRAIL_ASSIGN(auto codecs, codecs_within(axes, budget));
  if (codecs.empty())
    return CodecFindings{
        fmt::format("# No codec is exact within {:g} on data like gradients; none is chosen everywhere\n", budget), {}};
  axes.codecs = std::move(codecs);
  axes.codecs.insert(axes.codecs.begin(), "none");
  axes.algorithms = {"auto"};
  axes.trace = false;
  axes.against.clear();
  if (axes.sizes.back() >= k_least_bytes)
    axes.sizes.erase(axes.sizes.begin(), std::find_if(axes.sizes.begin(), axes.sizes.end(),
                                                      [](auto size) { return size >= k_least_bytes; }));
  Collector collector;
  GRADRAIL_TRY(run_sweep(bootstrap, axes, bootstrap.rank() == 0 ? &collector : nullptr));
  collector.found.text = codec_choices(choose_codecs(collector.found.points, budget), budget);
  return std::move(collector.found);
}

}  // namespace gradrail
