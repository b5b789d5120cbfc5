// A whole job in one process: one communicator and one thread a rank, over any transport. What a test does on every
// rank is a function; a Result that carries an error fails the test with the rank in front.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collectives/exec/communicator.h"
#include "tests/soon.h"
#include "transports/local/hub.h"

namespace gradrail {

class Ranks {
 public:
  explicit Ranks(int ranks, const std::string& inner, const std::string& outer = "", int ranks_per_host = 0,
                 int in_flight = 1, const std::function<void(int rank, CommunicatorOptions& options)>& change = {})
      : hub_(std::make_shared<LocalHub>()) {
    std::vector<Member> members;
    for (int rank = 0; rank < ranks; ++rank) members.push_back({rank, "here", "127.0.0.1", 1000 + rank});
    std::vector<Bytes> addresses;
    for (int rank = 0; rank < ranks; ++rank) {
      CommunicatorOptions options;
      options.inner = inner;
      options.outer = outer.empty() ? inner : outer;
      options.ranks_per_host = ranks_per_host;
      options.in_flight = in_flight;
      options.settings.hub = hub_;
      if (change) change(rank, options);
      auto communicator = Communicator::open(options, members, rank);
      if (!communicator) {
        ADD_FAILURE() << "rank " << rank << ": " << communicator.error().message;
        return;
      }
      addresses.push_back((*communicator)->address());
      communicators_.push_back(std::move(*communicator));
    }
    for (auto& communicator : communicators_) {
      const auto met = communicator->meet(addresses);
      if (!met) ADD_FAILURE() << met.error().message;
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(communicators_.size()); }
  [[nodiscard]] Communicator& operator[](int rank) { return *communicators_[static_cast<std::size_t>(rank)]; }

  void leave(int rank) { communicators_[static_cast<std::size_t>(rank)].reset(); }

  // Runs `work` on a thread a rank and returns what each said.
  std::vector<Result<void>> all(const std::function<Result<void>(Communicator&)>& work) {
    std::vector<Result<void>> said(communicators_.size());
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < communicators_.size(); ++rank)
      threads.emplace_back([&, rank] { said[rank] = work(*communicators_[rank]); });
    for (auto& thread : threads) thread.join();
    return said;
  }
  void expect_all(const std::function<Result<void>(Communicator&)>& work) {
    const auto said = all(work);
    for (std::size_t rank = 0; rank < said.size(); ++rank)
      EXPECT_TRUE(said[rank]) << "rank " << rank << ": " << said[rank].error().message;
  }

 private:
  std::shared_ptr<LocalHub> hub_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace gradrail
