// What people type becomes axes, and every mistake a sentence that quotes it.
#include "bench/command/axes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradrail {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Axes, SizesGoUpByAFactorOrAStep) {
  AxisTexts texts;
  texts.min_bytes = "1K";
  texts.max_bytes = "20K";
  texts.factor = 4;
  EXPECT_THAT(parse_axes(texts, 4)->sizes, ElementsAre(1024, 4096, 16384));
  texts.step_bytes = "8K";
  EXPECT_THAT(parse_axes(texts, 4)->sizes, ElementsAre(1024, 9216, 17408));
}

TEST(Axes, AFactorBarelyAboveOneStillGoesOn) {
  AxisTexts texts;
  texts.min_bytes = "1";
  texts.max_bytes = "4";
  texts.factor = 1.01;
  EXPECT_THAT(parse_axes(texts, 4)->sizes, ElementsAre(1, 2, 3, 4));
}

TEST(Axes, ListsAndAll) {
  AxisTexts texts;
  texts.collectives = "allreduce,bcast";
  texts.types = "float,half";
  texts.ops = "all";
  const auto options = parse_axes(texts, 4);
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_THAT(options->collectives, ElementsAre(Collective::allreduce, Collective::broadcast));
  EXPECT_THAT(options->types, ElementsAre(Type::f32, Type::f16));
  EXPECT_EQ(options->ops.size(), k_reduce_ops.size());
}

TEST(Axes, TransportsAloneOrInPairs) {
  AxisTexts texts;
  texts.transports = "tcp,shm+tcp";
  const auto options = parse_axes(texts, 4);
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->transports[0].inner, "tcp");
  EXPECT_EQ(options->transports[0].outer, "");  // the communicator's to choose
  EXPECT_EQ(options->transports[1].inner, "shm");
  EXPECT_EQ(options->transports[1].outer, "tcp");
}

struct Mistake {
  const char* name;
  void (*make)(AxisTexts&);
  const char* quoted;
};

class Mistakes : public testing::TestWithParam<Mistake> {};

TEST_P(Mistakes, AreBadUsageAndQuoted) {
  AxisTexts texts;
  GetParam().make(texts);
  const auto options = parse_axes(texts, 4);
  ASSERT_FALSE(options);
  EXPECT_EQ(options.error().code, Code::bad_usage);
  EXPECT_THAT(options.error().message, HasSubstr(GetParam().quoted));
}

INSTANTIATE_TEST_SUITE_P(
    Of, Mistakes,
    testing::Values(Mistake{"type", [](AxisTexts& axes) { axes.types = "float,flaot"; }, "flaot"},
                    Mistake{"operation", [](AxisTexts& axes) { axes.ops = "mean"; }, "mean"},
                    Mistake{"collective", [](AxisTexts& axes) { axes.collectives = "alreduce"; }, "alreduce"},
                    Mistake{"algorithm", [](AxisTexts& axes) { axes.algorithms = "rign"; }, "rign"},
                    Mistake{"transport", [](AxisTexts& axes) { axes.transports = "rdma"; }, "rdma"},
                    Mistake{"transport_of_threads", [](AxisTexts& axes) { axes.transports = "local"; }, "local"},
                    Mistake{"topology", [](AxisTexts& axes) { axes.topologies = "2x3"; }, "2x3"},
                    Mistake{"topology_form", [](AxisTexts& axes) { axes.topologies = "4"; }, "'4'"},
                    Mistake{"sizes_swapped", [](AxisTexts& axes) { axes.min_bytes = "1M", axes.max_bytes = "1K"; },
                            "1K"},
                    Mistake{"size_zero", [](AxisTexts& axes) { axes.min_bytes = "0"; }, "0"},
                    Mistake{"factor", [](AxisTexts& axes) { axes.factor = 1; }, "-f 1"},
                    Mistake{"too_many_sizes", [](AxisTexts& axes) { axes.step_bytes = "1"; }, "-e 64M"},
                    Mistake{"root", [](AxisTexts& axes) { axes.root = 4; }, "4"},
                    Mistake{"inner_alone", [](AxisTexts& axes) { axes.inner = "shm"; }, "--outer"}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace gradrail
