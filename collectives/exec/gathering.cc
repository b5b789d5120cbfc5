#include "collectives/exec/gathering.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "collectives/schedule/render.h"

namespace gradrail {

namespace {

// What two ranks show at once: their data and both sets of places of the board must stay in the first cache of a core.
// Where more ranks share cores every turn is a switch between them, so they take all at once.
constexpr std::size_t k_turn_of_two = 8 << 10;

}  // namespace

// Follows what each place holds: whose inputs, in the order of adding. Every operation is commutative in its bits: the
// first two may change places, and it does not matter which operand one more is.
bool gathers_all(const Program& program) {
  const Shape& shape = program.shape;
  const auto others = static_cast<std::size_t>(shape.ranks - 1);
  if (shape.collective != Collective::allreduce || others == 0 || program.steps.size() > 3 * (others + 1)) return false;
  std::vector<int> in{program.rank};
  std::vector<int> out;
  std::map<int, std::vector<int>> scratch;
  const auto held = [&](Place place) -> std::vector<int>& {
    if (place.store == Store::scratch) return scratch[place.plane];
    return place.store == Store::in || shape.in_place ? in : out;
  };
  std::set<int> sent_to;
  for (const Step& step : program.steps) {
    if (step.lane != 0 || step.chunks != program.grid) return false;
    std::vector<int> sum;
    if (step.op == Op::reduce) sum = held(step.to);
    if (step.reads()) {
      std::vector<int> from = held(step.from);
      if (from.size() > sum.size()) std::swap(from, sum);
      if (from.size() > 1) return false;
      sum.insert(sum.end(), from.begin(), from.end());
    }
    if (step.receives()) sum.push_back(step.peer);
    if (step.writes())
      held(step.to) = std::move(sum);
    else if (sum != std::vector<int>{program.rank} || !sent_to.insert(step.peer).second)
      return false;
  }
  std::vector<int>& result = held({Store::out, 0, 0});
  if (sent_to.size() != others || result.size() != others + 1) return false;
  std::sort(result.begin(), result.begin() + 2);
  for (int rank = 0; rank < shape.ranks; ++rank)
    if (result[static_cast<std::size_t>(rank)] != rank) return false;
  return true;
}

Gathering::Gathering(Board& board, const BoundProgram& program, std::vector<const Channel*> channels)
    : board_(board),
      reduce_(program.reduce),
      reduce_many_(program.reduce_many),
      element_bytes_(program.element_bytes),
      bytes_(program.out_bytes),
      turn_bytes_(board.members() == 2 ? k_turn_of_two : Board::k_most_bytes),
      channels_(std::move(channels)),
      from_(board.members()) {}

bool Gathering::add_up(std::size_t bytes) {
  for (std::size_t member = 0; member < from_.size(); ++member) {
    from_[member] = member == board_.me() ? in_ + at_ : board_.seen(member);
    if (from_[member] == nullptr) return false;
  }
  std::byte* const to = out_ + at_;
  reduce_many_({&to, 1}, from_, bytes / element_bytes_, 0);
  return true;
}

Execution::Awaited Gathering::awaited() const {
  for (std::size_t member = 0; member < channels_.size(); ++member)
    if (misses(member)) return {channels_[member], true};
  return {};
}

const Error* Gathering::failure() {
  for (std::size_t member = 0; member < channels_.size(); ++member) {
    if (!misses(member)) continue;
    const Endpoint& endpoint = *channels_[member]->endpoint;
    if (endpoint.failure() != nullptr) return endpoint.failure();
    if (board_.at_odds(member)) {
      at_odds_ = Error{
          Code::malformed,
          fmt::format("rank {} called with another number of bytes than the {} of this call", endpoint.peer(), bytes_),
          endpoint.peer(), 0};
      return &*at_odds_;
    }
  }
  return nullptr;
}

void Gathering::began() {
  StepTime time;
  time.step = 0;
  time.name = to_string(Op::recv_reduce);
  time.bytes = bytes_;
  time.begin = time.end = Clock::now();
  times_->push_back(time);
}

}  // namespace gradrail
