// What reports do on a terminal, shown on a pseudo-terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "bench/report/progress.h"
#include "bench/report/table.h"
#include "transports/base/fd.h"

namespace gradrail {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A terminal, and what a person would see on it.
class Terminal {
 public:
  Terminal() {
    int screen = -1, program = -1;
    if (::openpty(&screen, &program, nullptr, nullptr, nullptr) != 0) return;
    screen_ = Fd(screen);
    stream_.reset(::fdopen(program, "w"));
  }
  std::FILE* stream() const { return stream_.get(); }
  std::string shown() const {
    std::string text(4096, '\0');
    const auto count = ::read(screen_.get(), text.data(), text.size());
    text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    return text;
  }

 private:
  Fd screen_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream_{nullptr, std::fclose};
};

TEST(ReportProgress, RewritesItsLineAndTakesItBack) {
  const Terminal terminal;
  ASSERT_TRUE(terminal.stream()) << "this test needs a pseudo-terminal";
  Progress progress(terminal.stream());
  progress.update(0.5, "allreduce ring 4 B");
  EXPECT_THAT(terminal.shown(), AllOf(StartsWith("\r[ 50 %, "), HasSubstr("allreduce ring 4 B"), EndsWith("\033[K")));
  progress.clear();
  EXPECT_EQ(terminal.shown(), "\r\033[K");
}

TEST(ReportTable, IsColouredOnATerminalUnlessTheUserSaysNo) {
  const Terminal terminal;
  ASSERT_TRUE(terminal.stream()) << "this test needs a pseudo-terminal";
  const auto with = [&](const char* no_colour, const char* term) {
    no_colour ? ::setenv("NO_COLOR", no_colour, 1) : ::unsetenv("NO_COLOR");
    ::setenv("TERM", term, 1);
    return wants_colour(terminal.stream());
  };
  EXPECT_TRUE(with(nullptr, "xterm"));
  EXPECT_TRUE(with("", "xterm")) << "empty counts as not set";
  EXPECT_FALSE(with("1", "xterm"));
  EXPECT_FALSE(with(nullptr, "dumb"));
}

}  // namespace
}  // namespace gradrail
