// A call in which all ranks show their data to all others on a board (transports/board.h), and each adds up what it
// sees in the order of ranks: what a plan comes to by which everyone sends all it has to everyone, without its
// messages. One is made for a binding and started again for every call; it allocates nothing then. Belongs to the
// communicator's thread; the board and the channels are the communicator's.
//
// All ranks take the same calls to the board: that depends on plan, count and type only, not on this rank's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "collectives/exec/binding.h"
#include "collectives/exec/execution.h"
#include "transports/board.h"

namespace gradrail {

// Whether that is what the program does. If it is so on one rank of a plan, it is on all.
[[nodiscard]] bool gathers_all(const Program& program);

class Gathering {
 public:
  // `program`: bound to at least one byte of data. `channels`: by rank, null for this one; they tell who is gone.
  Gathering(Board& board, const BoundProgram& program, std::vector<const Channel*> channels);

  void start(const std::byte* in, std::byte* out) {
    in_ = in;
    out_ = out;
    at_ = 0;
    if (times_ != nullptr) [[unlikely]]
      began();
    show();
  }
  // True if anything moved. Inline, as it is all that two ranks do while they wait.
  [[nodiscard]] bool progress() {
    const std::size_t now = std::min(bytes_ - at_, turn_bytes_);
    if (board_.members() == 2) {
      const std::byte* const its = board_.seen(1 - board_.me());
      if (its == nullptr) return false;
      reduce_(out_ + at_, in_ + at_, its, now / element_bytes_);
    } else if (!add_up(now)) {
      return false;
    }
    at_ += now;
    if (at_ < bytes_)
      show();
    else if (times_ != nullptr) [[unlikely]]
      times_->back().end = Clock::now();
    return true;
  }
  [[nodiscard]] bool done() const { return at_ == bytes_; }
  [[nodiscard]] bool misses(std::size_t rank) const {
    return channels_[rank] != nullptr && board_.seen(rank) == nullptr;
  }
  // As Execution's.
  [[nodiscard]] Execution::Awaited awaited() const;
  [[nodiscard]] const Error* failure();
  void trace(std::vector<StepTime>* times) { times_ = times; }

 private:
  void show() { board_.show({in_ + at_, std::min(bytes_ - at_, turn_bytes_)}); }
  [[nodiscard]] bool add_up(std::size_t bytes);
  void began();

  Board& board_;
  ReduceFn reduce_;
  ReduceManyFn reduce_many_;
  std::size_t element_bytes_;
  std::size_t bytes_;       // of the data
  std::size_t turn_bytes_;  // of them in one turn of the board
  const std::byte* in_ = nullptr;
  std::byte* out_ = nullptr;
  std::size_t at_ = 0;  // bytes of the result that are there
  std::vector<const Channel*> channels_;
  std::vector<const std::byte*> from_;  // by rank
  std::optional<Error> at_odds_;
  std::vector<StepTime>* times_ = nullptr;
};

}  // namespace gradrail
