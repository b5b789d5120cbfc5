// Two ranks in one process, over devices that do not exist (verbs_fake.h).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "tests/unit/verbs_fake.h"
#include "transports/verbs/transport.h"

namespace gradrail::testing {

inline std::unique_ptr<FakeVerbs> fake() {
  auto calls = std::make_unique<FakeVerbs>();
  calls->machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, 1})};
  return calls;
}

struct TwoRanks {
  explicit TwoRanks(FakeVerbs& calls, const std::string& verbs = "", int lane = 0)
      : TwoRanks(calls, verbs, verbs, lane) {}
  TwoRanks(FakeVerbs& calls, const std::string& verbs_0, const std::string& verbs_1, int lane = 0,
           verbs::CmCalls* cm = nullptr)
      : TwoRanks(calls, with(verbs_0), with(verbs_1), lane, cm) {}
  TwoRanks(FakeVerbs& calls, const Settings& settings_0, const Settings& settings_1, int lane = 0,
           verbs::CmCalls* cm = nullptr) {
    for (int rank : {0, 1}) {
      Settings settings = rank == 0 ? settings_0 : settings_1;
      settings.rank = rank;
      settings.ranks = 2;
      auto made = verbs::VerbsTransport::make(settings, calls, cm);
      EXPECT_TRUE(made) << made.error().message;
      if (!made) return;
      transports[rank] = std::move(*made);
      addresses[rank] = transports[rank]->listen().value();
    }
    meet(lane);
  }
  static Settings with(const std::string& verbs) {
    Settings settings;
    settings.verbs = verbs;
    return settings;
  }
  ~TwoRanks() {
    for (auto& pipe : pipes) pipe.reset();
    for (auto& region : regions) region.reset();
  }
  void meet(int lane) {
    std::thread other([&] { connect(1, {0, lane, "host-a", addresses[0]}); });
    connect(0, {1, lane, "host-b", addresses[1]});
    other.join();
  }
  void meet_again() {
    for (auto& pipe : pipes) pipe.reset();
    meet(0);
  }
  void connect(int rank, const Peer& peer) {
    auto made = transports[rank]->connect({&peer, 1}, Deadline::after(Seconds(20)));
    if (made)
      pipes[rank] = std::move(made->front());
    else
      errors[rank] = made.error();
  }
  [[nodiscard]] bool drive(const std::function<bool()>& done) {
    const auto deadline = Deadline::after(Seconds(20));
    while (!done()) {
      for (auto& transport : transports) transport->progress();
      if (deadline.passed()) return false;
    }
    return true;
  }
  Slice memory(int rank, std::size_t bytes) {
    regions[rank] = transports[rank]->allocate(bytes).value();
    return {regions[rank].get(), 0, bytes};
  }
  // One message from 0 to 1; true if it came whole.
  [[nodiscard]] bool message(std::size_t bytes) {
    const auto from = memory(0, bytes);
    const auto to = memory(1, bytes);
    std::memset(from.data(), 0x3c, bytes);
    const auto before = pipes[1]->recvs_done();
    const auto sends = pipes[0]->sends_done();
    if (!pipes[1]->recv(to) || !pipes[0]->send(from)) return false;
    return drive([&] { return pipes[1]->recvs_done() > before && pipes[0]->sends_done() > sends; }) &&
           std::memcmp(from.data(), to.data(), bytes) == 0;
  }

  std::unique_ptr<Transport> transports[2];
  Address addresses[2];
  std::unique_ptr<Region> regions[2];
  std::unique_ptr<Endpoint> pipes[2];
  std::optional<Error> errors[2];
};

}  // namespace gradrail::testing
