// The cost model against closed forms, where there are any.
#include "collectives/schedule/cost.h"

#include <algorithm>
#include <map>

#include "collectives/schedule/timeline.h"
#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

Schedule planned(std::string_view name, Shape shape) {
  auto planner = find_planner(shape.collective, name);
  EXPECT_TRUE(planner) << planner.error().message;
  auto schedule = plan_all(**planner, shape);
  EXPECT_TRUE(schedule) << schedule.error().message;
  return *std::move(schedule);
}

Shape allreduce(int ranks, int ranks_per_host) {
  Shape shape;
  shape.ranks = ranks;
  shape.ranks_per_host = ranks_per_host;
  return shape;
}

// No overhead of steps, nothing to reduce: only links count.
CostModel links_only() {
  CostModel model;
  model.inside = {2e-6, 5e-11};
  model.between = {1e-5, 1e-9};
  model.gamma = 0;
  model.step = 0;
  return model;
}

TEST(Cost, RingBetweenHostsIsItsClosedForm) {
  for (const int n : {2, 3, 4, 7, 16}) {
    const Schedule ring = planned("ring", allreduce(n, 1));
    const double m = 1024.0 * n;
    CostModel model = links_only();
    const double links = 2 * (n - 1) * (model.between.alpha + m / n * model.between.beta);
    EXPECT_NEAR(simulate(ring, 1024u * static_cast<unsigned>(n), model).seconds, links, 1e-12 * links) << n;

    model.gamma = 3e-10;
    const double reducing = (n - 1) * m / n * model.gamma;
    EXPECT_NEAR(simulate(ring, 1024u * static_cast<unsigned>(n), model).seconds, links + reducing, 1e-9 * links) << n;

    model.step = 7e-8;
    // The receive is begun while its message is on its way, so only the sends' overhead counts ...
    const double eager = links + reducing + 2 * (n - 1) * model.step;
    EXPECT_NEAR(simulate(ring, 1024u * static_cast<unsigned>(n), model).seconds, eager, 1e-9 * eager) << n;
    // ... unless messages wait for their receives.
    model.credits = 0;
    EXPECT_NEAR(simulate(ring, 1024u * static_cast<unsigned>(n), model).seconds, eager + 2 * (n - 1) * model.step,
                1e-9 * eager)
        << n;
  }
}

TEST(Cost, RingInsideAHostIsBoundByItsMemory) {
  const int n = 8;
  const double m = 64e6;
  CostModel model = links_only();
  const Schedule ring = planned("ring", allreduce(n, n));
  // Every byte of 2(n-1)m passes through one memory; latency adds at most one alpha a round.
  const double bytes = 2 * (n - 1) * m * model.inside.beta;
  const double shared = simulate(ring, static_cast<std::uint64_t>(m), model).seconds;
  EXPECT_GE(shared, bytes * (1 - 1e-12));
  EXPECT_LE(shared, bytes + 2 * (n - 1) * model.inside.alpha);

  model.shared_medium = false;
  const double apart = 2 * (n - 1) * (model.inside.alpha + m / n * model.inside.beta);
  EXPECT_NEAR(simulate(ring, static_cast<std::uint64_t>(m), model).seconds, apart, 1e-9 * apart);

  model.oversubscription = 3;
  EXPECT_NEAR(simulate(ring, static_cast<std::uint64_t>(m), model).seconds, 3 * apart, 1e-9 * apart);
}

TEST(Cost, RanksOfAHostShareItsPort) {
  // Rank r of host 0 sends to rank r of host 1: all four messages pass through one port each way.
  Schedule schedule;
  schedule.shape = allreduce(8, 4);
  schedule.shape.collective = Collective::send_recv;
  for (int rank = 0; rank < 8; ++rank) {
    Program program;
    program.shape = schedule.shape;
    program.rank = rank;
    Step step;
    step.op = rank < 4 ? Op::send : Op::recv;
    step.peer = static_cast<std::uint16_t>((rank + 4) % 8);
    step.chunks = 1;
    (rank < 4 ? step.from : step.to).store = rank < 4 ? Store::in : Store::out;
    program.steps.push_back(step);
    schedule.programs.push_back(program);
  }
  const CostModel model = links_only();
  const Cost cost = simulate(schedule, 1000, model);
  EXPECT_DOUBLE_EQ(cost.seconds, model.between.alpha + 4 * 1000 * model.between.beta);
  EXPECT_EQ(cost.bytes_between_hosts, 4000u);
  EXPECT_EQ(cost.messages, 4u);
}

// Its receives are reduced one after the other, but with credits all messages travel at once.
TEST(Cost, OneShotTakesOneRoundIfMessagesNeedNotWait) {
  const int n = 8;
  CostModel model = links_only();
  const Schedule schedule = planned("one_shot", allreduce(n, 1));
  const double alpha = model.between.alpha;
  const double port = (n - 1) * 64 * model.between.beta;  // all that a host sends, and all that it receives
  EXPECT_GE(simulate(schedule, 64, model).seconds, (alpha + port) * (1 - 1e-12));
  EXPECT_LT(simulate(schedule, 64, model).seconds, alpha + 3 * port);
  model.credits = 0;
  EXPECT_GT(simulate(schedule, 64, model).seconds, 3 * alpha);
}

TEST(Cost, NoStepStartsBeforeWhatItWaitsFor) {
  Schedule schedule = planned("ring", allreduce(2, 1));
  const Timeline timeline = timeline_of(schedule, 4096, links_only());
  for (std::size_t rank = 0; rank < 2; ++rank)
    for (std::size_t index = 0; index < schedule.programs[rank].steps.size(); ++index) {
      const Step& step = schedule.programs[rank].steps[index];
      const Span& span = timeline.spans[rank][index];
      EXPECT_LE(span.start, span.end);
      if (step.after >= 0) {
        EXPECT_LE(timeline.spans[rank][static_cast<std::size_t>(step.after)].end, span.start);
      }
    }
  EXPECT_DOUBLE_EQ(timeline.cost.seconds, simulate(schedule, 4096, links_only()).seconds);
}

// An allreduce of m bytes on H hosts must move 2(H-1)m bytes between them, each host sending 2(H-1)/H m.
TEST(Cost, HierarchicalPutsTheLeastBytesBetweenHosts) {
  for (const auto& [hosts, per_host] : {std::pair(2, 2), {2, 4}, {3, 4}, {4, 8}}) {
    Shape shape = allreduce(hosts * per_host, per_host);
    shape.inner = "two_shot";
    shape.outer = "ring";
    const Schedule schedule = planned("hierarchical", shape);
    const std::uint64_t bytes = 960u * schedule.programs[0].grid;
    const Cost cost = simulate(schedule, bytes, links_only());
    EXPECT_EQ(cost.bytes_between_hosts, 2u * static_cast<unsigned>(hosts - 1) * bytes) << hosts << "x" << per_host;
    // The flat ring sends the same round all ranks, so as much leaves each host: 2(n-1)/n m.
    const auto n = static_cast<unsigned>(shape.ranks);
    const Schedule ring = planned("ring", allreduce(shape.ranks, per_host));
    EXPECT_EQ(simulate(ring, 960u * n, links_only()).bytes_between_hosts,
              static_cast<unsigned>(hosts) * 2 * (n - 1) * 960u);
  }
}

class EveryPlannersCost : public testing::TestWithParam<const Planner*> {};

// With queues, a plan may end a little earlier for being given more: whoever is late may find a queue that has cleared
// (Graham, "Bounds for certain multiprocessing anomalies", 1966). Without, the simulation is a system of sums and
// maxima, and strictly monotonic.
TEST_P(EveryPlannersCost, GrowsWithBytesWhereNobodyQueues) {
  CostModel model = links_only();
  model.shared_medium = false;
  for (const int ranks : {1, 2, 3, 8, 12})
    for (const Shape& shape : shapes(*GetParam(), ranks, true)) {
      if (shape.lanes > 1 || (shape.hosts() > 1 && shape.ranks_per_host > 1)) continue;
      const auto schedule = plan_all(*GetParam(), shape);
      ASSERT_TRUE(schedule);
      double before = -1;
      for (const std::uint64_t scale : {0u, 1u, 2u, 4u, 64u, 4096u}) {
        const double seconds = simulate(*schedule, scale * schedule->programs[0].grid, model).seconds;
        EXPECT_GE(seconds, before) << describe(*GetParam(), shape) << ", scale " << scale;
        before = seconds;
      }
    }
}

TEST_P(EveryPlannersCost, GrowsOverallAndIsTheSameEachTime) {
  for (const int ranks : {2, 3, 8, 12})
    for (const Shape& shape : shapes(*GetParam(), ranks, false)) {
      const auto schedule = plan_all(*GetParam(), shape);
      ASSERT_TRUE(schedule);
      double before = 0;
      for (const std::uint64_t scale : {64u, 4096u, 262144u}) {
        const std::uint64_t bytes = scale * schedule->programs[0].grid;
        const Cost cost = simulate(*schedule, bytes, CostModel{});
        EXPECT_GT(cost.seconds, before) << describe(*GetParam(), shape) << ", bytes " << bytes;
        EXPECT_EQ(cost.seconds, simulate(*schedule, bytes, CostModel{}).seconds) << describe(*GetParam(), shape);
        EXPECT_LE(cost.bytes_between_hosts, cost.bytes_sent);
        before = cost.seconds;
      }
    }
}

TEST_P(EveryPlannersCost, CountsTheBytesThatThePlanSends) {
  for (const int ranks : {2, 5, 8})
    for (const Shape& shape : shapes(*GetParam(), ranks, false)) {
      const auto schedule = plan_all(*GetParam(), shape);
      ASSERT_TRUE(schedule);
      const std::uint32_t grid = schedule->programs[0].grid;
      std::uint64_t chunks = 0;
      for (int rank = 0; rank < ranks; ++rank) chunks += GetParam()->chunks_sent(shape, ranks, rank, grid);
      const Cost cost = simulate(*schedule, 24ull * grid, CostModel{});
      EXPECT_EQ(cost.bytes_sent, 24 * chunks) << describe(*GetParam(), shape);
      EXPECT_EQ(simulate(*schedule, 0, CostModel{}).messages, 0u);
    }
}

INSTANTIATE_TEST_SUITE_P(Planners, EveryPlannersCost, testing::ValuesIn(all_planners()), PlannerName());

}  // namespace
}  // namespace gradrail::test
