// A rank of a library that does not exist: operations do nothing at all, and FAKE_PEER says what goes wrong, as
// "WHAT@WHERE": die, stop, hang or refuse, at open, prepare or measure. Only rank 1 suffers, except where it refuses.
// Barriers keep ranks together through nothing but the driver, so a healthy one only ever sleeps.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "bench/peers/serve.h"

namespace gradrail {
namespace {

class Fake : public PeerLibrary {
 public:
  explicit Fake(const RunnerArguments& arguments) : rank_(arguments.rank), ranks_(arguments.ranks) {
    const char* trouble = std::getenv("FAKE_PEER");
    trouble_ = trouble != nullptr ? trouble : "";
    suffer("open");
  }
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return ranks_; }
  [[nodiscard]] std::string version() const override { return "Fake 1.0"; }

  Result<void> prepare(const Call&) override {
    if (trouble_ == "refuse@prepare") return fail(Code::unsupported, "a fake has no such collective");
    suffer("prepare");
    prepared_ = true;
    return {};
  }
  Result<void> run(const Call&) override {
    if (++runs_ > 20) suffer("measure");
    return {};
  }
  Result<void> barrier() override { return {}; }

 private:
  void suffer(const std::string& where) const {
    if (rank_ != 1 || !trouble_.ends_with("@" + where)) return;
    if (trouble_.starts_with("die")) {
      std::fprintf(stderr, "gradrail-peer-fake: no luck today\n");
      ::raise(SIGKILL);
    }
    if (trouble_.starts_with("stop")) ::raise(SIGSTOP);
    while (true) ::pause();
  }

  int rank_;
  int ranks_;
  std::string trouble_;
  bool prepared_ = false;
  int runs_ = 0;
};

}  // namespace
}  // namespace gradrail

int main(int argc, char** argv) {
  ::alarm(90);  // whatever happens, no process of a test stays
  return gradrail::serve(
      "gradrail-peer-fake", argc, argv,
      [](const gradrail::RunnerArguments& arguments) -> gradrail::Result<std::unique_ptr<gradrail::PeerLibrary>> {
        return std::make_unique<gradrail::Fake>(arguments);
      });
}
