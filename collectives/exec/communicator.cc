#include "collectives/exec/communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "collectives/exec/bindings.h"

namespace gradrail {

namespace {

// Polls without progress before the core is given away: about 20 us where every rank has a core, at once where not.
constexpr int k_spins_alone = 300;
constexpr int k_spins_crowded = 2;
// The same where ranks share cores, but all who are awaited have other cores than this rank: they probably run now, and
// will be done sooner than this core could go to another rank and come back. Only looks at memory are that cheap.
constexpr int k_spins_other_core = 40;
// The same of run(), which looks at less.
constexpr int k_polls_alone = 4096;
// After so many idle rounds a wait for the network may block.
constexpr int k_spins_before_sleep = 2000;

}  // namespace

Question Communicator::question_of(const Call& call) const {
  const std::uint64_t blocks = is_blocked(call.collective) ? static_cast<std::uint64_t>(ranks()) : 1;
  return {call.collective,
          call.count * blocks * size_of(call.type),
          ranks(),
          ranks_per_host_,
          transport_name_,
          call.in_place,
          call.out.memory == nullptr ? Reached::unknown
          : direct_out(call)         ? Reached::yes
                                     : Reached::no};
}

Result<Shape> Communicator::shape_of(const Call& call, const Selection& choice) const {
  Shape shape;
  shape.collective = call.collective;
  shape.ranks = ranks();
  shape.ranks_per_host = ranks_per_host_;
  shape.in_place = call.in_place;
  shape.lanes = call.lanes > 0 ? call.lanes : choice.lanes;
  shape.pieces = call.pieces > 0 ? call.pieces : choice.pieces;
  if (shape.lanes > k_lanes_a_place || shape.pieces > 1024)
    return fail(Code::bad_usage, fmt::format("{} lanes and {} pieces are more than the {} and 1024 that are possible",
                                             shape.lanes, shape.pieces, k_lanes_a_place));
  return shape;
}

// Whether peers reach the output's memory themselves.
bool Communicator::direct_out(const Call& call) {
  const Region* out = call.out.memory == nullptr ? nullptr : call.out.memory->region(Reach::inside);
  return out != nullptr && out->direct();
}

// Peers may need this rank's part in calls in flight before they come to connect.
Result<void> Communicator::finish_calls(Deadline deadline) {
  for (std::size_t place = 0; place < places_.size(); ++place)
    if (places_[place].bound != nullptr) GRADRAIL_TRY(wait_for(place, deadline));
  return {};
}

Result<void> Communicator::open_channels(std::span<const ChannelKey> keys, Deadline deadline) {
  for (const Reach reach : {Reach::inside, Reach::between}) {
    std::vector<Peer> peers;
    for (const ChannelKey& key : keys)
      if (reach_of(key.peer) == reach && !channels_.contains(key)) {
        const auto peer = static_cast<std::size_t>(key.peer);
        peers.push_back({key.peer, key.lane, members_[peer].host, addresses_[peer][static_cast<std::size_t>(reach)]});
      }
    if (peers.empty()) continue;
    GRADRAIL_TRY(finish_calls(deadline));
    Transport& transport = transport_of(reach);
    auto connected = transport.connect(peers, deadline);
    if (!connected) {
      // However the transport put it: not the plan was refused, and other ranks may have connected.
      Error error = std::move(connected).error();
      if (error.code == Code::unsupported || error.code == Code::bad_usage) error.code = Code::unavailable;
      return poison(std::move(error));
    }
    auto endpoints = std::move(*connected);
    for (std::size_t i = 0; i < peers.size(); ++i) {
      auto channel = std::make_unique<Channel>();
      channel->endpoint = std::move(endpoints[i]);
      channel->reach = reach;
      channel->depth = transport.traits().depth;
      channel->writes_in_place = transport.traits().writes_in_place;
      channel->copies_out = transport.traits().copies_out;
      channel->attached_from = channel->endpoint->attached_from();
      channels_[{peers[i].rank, peers[i].lane}] = std::move(channel);
    }
  }
  return {};
}

Result<Board*> Communicator::board_for(const Program& program, std::uint64_t bytes, std::size_t place,
                                       Deadline deadline) {
  const auto most = transport_of(Reach::inside).traits().board_members;
  if (bytes == 0 || bytes > Board::k_most_bytes || members_.size() > most ||
      transports_[static_cast<std::size_t>(Reach::between)] != nullptr || !gathers_all(program))
    return nullptr;
  std::unique_ptr<Board>& board = places_[place].board;
  if (board == nullptr) {
    GRADRAIL_TRY(finish_calls(deadline));
    std::vector<int> everyone(members_.size());
    std::iota(everyone.begin(), everyone.end(), 0);
    auto opened = transport_of(Reach::inside).open_board(everyone, static_cast<int>(place) * k_lanes_a_place, deadline);
    if (!opened) return poison(std::move(opened).error());
    board = std::move(*opened);
  }
  return board.get();
}

Result<Communicator::Bound*> Communicator::bound_for(const Call& call, std::size_t place, Deadline deadline) {
  if (call.coding.asked()) [[unlikely]]
    return bound_encoded(call, place, deadline);
  if (call.coding.permitted()) [[unlikely]]
    return bound_within_error(call, place, deadline);
  Bindings& bindings = *bindings_;
  const bool direct = direct_out(call);
  const Bindings::Lookup lookup{call, place, direct};
  if (bindings.last != nullptr && Bindings::same(lookup, *bindings.last_key)) return bindings.last;
  ++bindings.lookups;
  if (const auto found = bindings.all.find(lookup); found != bindings.all.end()) {
    found->second->used = bindings.lookups;
    bindings.last_key = &found->first;
    bindings.last = found->second.get();
    return bindings.last;
  }

  Selection choice;
  const Question question = question_of(call);
  if (call.algorithm != "auto")
    choice = with_default_tuning(call.algorithm, question);
  else if (selector_ != nullptr)
    choice = selector_->choose(question);
  else
    choice = default_selection(question);
  GRADRAIL_ASSIGN(Shape shape, shape_of(call, choice));
  shape.root = call.root;
  if (has_root(call.collective) && (call.root < 0 || call.root >= ranks()))
    return fail(Code::bad_usage, fmt::format("root {} is not one of the {} ranks", call.root, ranks()));
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(choice.algorithm, shape));
  const std::string plan_name = fmt::format("{} {} root {} in place {} lanes {} pieces {}", to_string(call.collective),
                                            choice.algorithm, shape.root, shape.in_place, shape.lanes, shape.pieces);
  auto planned = bindings.programs.find(plan_name);
  if (planned == bindings.programs.end()) {
    GRADRAIL_ASSIGN(Program made, plan(*planner, shape, rank_));
    if (bindings.programs.size() >= Bindings::k_most_programs)
      bindings.programs.erase(
          std::min_element(bindings.programs.begin(), bindings.programs.end(),
                           [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    planned = bindings.programs.emplace(plan_name, Bindings::Planned{std::move(made)}).first;
  }
  planned->second.used = bindings.lookups;
  const Program& program = planned->second.program;

  const int first_lane = static_cast<int>(place) * k_lanes_a_place;
  auto keys = channels_of(program);
  for (ChannelKey& key : keys) key.lane += first_lane;
  GRADRAIL_TRY(open_channels(keys, deadline));
  auto bound = std::make_unique<Bound>();
  bound->ran = {choice.algorithm, shape.lanes, shape.pieces, program.grid, program.steps.size()};
  const std::uint64_t all_buffers = 2 * question.bytes * static_cast<std::uint64_t>(ranks_here());
  GRADRAIL_ASSIGN(Board* const board, board_for(program, question.bytes, place, deadline));
  const BindOptions options{direct, planner->answers, cache_bytes_ > 0 && all_buffers > cache_bytes_};
  bound->program = bind(program, call.count, call.type, call.op, options, [&](ChannelKey key) {
    return channels_.at({key.peer, key.lane + first_lane}).get();
  });
  if (board != nullptr) {
    std::vector<const Channel*> channels(members_.size());
    for (const ChannelKey& key : keys) channels[static_cast<std::size_t>(key.peer)] = channels_.at(key).get();
    bound->gathering = std::make_unique<Gathering>(*board, bound->program, std::move(channels));
    bound->program.scratch_bytes = 0;
  } else {
    bound->execution = std::make_unique<Execution>(bound->program);
  }
  bound->used = bindings.lookups;
  if (bindings.all.size() >= Bindings::k_most) drop_oldest_binding();
  Bindings::Key key{call.collective,
                    call.count,
                    call.type,
                    call.op,
                    call.root,
                    call.in_place,
                    call.lanes,
                    call.pieces,
                    place,
                    direct,
                    std::string(call.algorithm)};
  const auto at = bindings.all.emplace(std::move(key), std::move(bound)).first;
  bindings.last_key = &at->first;
  bindings.last = at->second.get();
  return bindings.last;
}

void Communicator::drop_oldest_binding() {
  Bindings& bindings = *bindings_;
  auto oldest = bindings.all.end();
  for (auto one = bindings.all.begin(); one != bindings.all.end(); ++one) {
    const auto in_flight = [&](const Place& place) { return place.bound == one->second.get(); };
    if (std::any_of(places_.begin(), places_.end(), in_flight)) continue;
    if (oldest == bindings.all.end() || one->second->used < oldest->second->used) oldest = one;
  }
  bindings.last = nullptr;
  bindings.last_key = nullptr;
  bindings.all.erase(oldest);  // there is one: fewer calls can be in flight than bindings are kept
}

std::size_t Communicator::bindings() const { return bindings_->all.size(); }

Result<Communicator::Bound*> Communicator::bound_or_poisoned(const Call& call, std::size_t place, Deadline deadline) {
  if (failure_) [[unlikely]]
    return fail(Code::poisoned, "an earlier operation failed: " + failure_->message, failure_->peer);
  auto found = bound_for(call, place, deadline);
  if (found) [[likely]]
    return found;
  // A call that was refused touched nothing; a channel that did not open leaves the ranks apart.
  const Code code = found.error().code;
  if (code == Code::bad_usage || code == Code::unsupported) return found;
  return poison(std::move(found).error());
}

Result<Ran> Communicator::resolve(const Call& call, Deadline deadline) {
  GRADRAIL_ASSIGN(const Bound* bound, bound_or_poisoned(call, started_ % places_.size(), deadline));
  return bound->ran;
}

Result<void> Communicator::check_memory(const Call& call, const BoundProgram& program) const {
  const auto check = [](const MemoryView& view, std::size_t bytes, std::string_view name) -> Result<void> {
    if (bytes == 0) return {};
    if (view.memory == nullptr || view.memory->region(Reach::inside) == nullptr || view.offset > view.memory->size() ||
        bytes > view.memory->size() - view.offset)
      return fail(Code::bad_usage, fmt::format("the {} buffer is smaller than the {} bytes of this call", name, bytes));
    return {};
  };
  GRADRAIL_TRY(check(call.in, program.in_bytes, "input"));
  GRADRAIL_TRY(check(call.out, program.out_bytes, "output"));
  if (call.in_place && program.in_bytes > 0 && program.out_bytes > 0) {
    // One buffer on the data's coordinates: where only one of the two is a block, it is this rank's of the other.
    const std::size_t block = std::min(program.in_bytes, program.out_bytes) * static_cast<std::size_t>(rank_);
    const std::size_t in = call.in.offset + (program.in_bytes > program.out_bytes ? block : 0);
    const std::size_t out = call.out.offset + (program.out_bytes > program.in_bytes ? block : 0);
    if (call.in.memory != call.out.memory || in != out)
      return fail(Code::bad_usage, "the call is in place, but its input and output are not the same memory");
  }
  return {};
}

Result<Communicator::Operation> Communicator::start(const Call& call, Deadline deadline) {
  const std::size_t place_index = started_ % places_.size();
  Place& place = places_[place_index];
  if (place.bound != nullptr) GRADRAIL_TRY(wait_for(place_index, deadline));
  GRADRAIL_ASSIGN(Bound* const bound, bound_or_poisoned(call, place_index, deadline));
  GRADRAIL_TRY(check_memory(call, bound->program));
  if (bound->program.scratch_bytes > place.scratch.size()) {
    place.scratch = Memory();
    auto scratch = allocate(bound->program.scratch_bytes);
    if (!scratch) return poison(std::move(scratch).error());  // the other ranks go on without this one
    place.scratch = std::move(*scratch);
  }
  place.bound = bound;
  place.number = ++started_;
  place.out = call.out.data();
  if (bound->exchange != nullptr) [[unlikely]] {
    bound->exchange->trace(times_);
    bound->exchange->start(call.in, call.out, {&place.scratch, 0});
    progress();
    return Operation{place.number};
  }
  if (bound->gathering != nullptr) {
    bound->gathering->trace(times_);
    bound->gathering->start(call.in.data(), call.out.data());
    progress();
    return Operation{place.number};
  }
  bound->execution->trace(times_);
  bound->execution->start(call.in, call.out, {&place.scratch, 0});
  progress();
  return Operation{place.number};
}

void Communicator::complete(std::size_t index) {
  Place& place = places_[index];
  const BoundProgram& program = place.bound->program;
  if (program.divide_by > 1 && program.out_bytes > 0)
    program.divide(place.out, program.out_bytes / program.element_bytes, program.divide_by);
  place.bound = nullptr;
}

bool Communicator::progress() {
  bool moved = false;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    Place& place = places_[i];
    if (place.bound == nullptr) continue;
    if (ExchangeRun* const exchange = place.bound->exchange.get(); exchange != nullptr) [[unlikely]] {
      moved |= exchange->progress();
      if (exchange->done()) {
        encoding_ = exchange->encoding();
        complete(i);
      }
      continue;
    }
    if (Gathering* const gathering = place.bound->gathering.get(); gathering != nullptr) {
      moved |= gathering->progress();
      if (gathering->done()) complete(i);
      continue;
    }
    Execution& execution = *place.bound->execution;
    moved |= execution.progress();
    if (execution.done()) {
      complete(i);
      moved = true;
    }
  }
  // What the executions posted leaves now, not in the next round.
  for (const auto& transport : transports_)
    if (transport != nullptr) moved |= transport->progress();
  return moved;
}

Result<bool> Communicator::test(Operation operation) {
  const Place& place = places_[(operation.number - 1) % places_.size()];
  const auto over = [&] { return place.bound == nullptr || place.number != operation.number; };
  if (over()) return true;
  if (failure_) return fail(Code::poisoned, "an earlier operation failed: " + failure_->message, failure_->peer);
  if (progress()) return over();
  if (const Error* error = failure_of(*place.bound)) return poison(*error);
  return false;
}

Result<void> Communicator::wait(Operation operation, Deadline deadline) {
  const std::size_t index = (operation.number - 1) % places_.size();
  if (places_[index].number != operation.number || places_[index].bound == nullptr) return {};
  return wait_for(index, deadline);
}

Result<void> Communicator::wait_for(std::size_t index, Deadline deadline) {
  if (failure_) return fail(Code::poisoned, "an earlier operation failed: " + failure_->message, failure_->peer);
  const Place& place = places_[index];
  const int spins = crowded_ ? k_spins_crowded : k_spins_alone;
  // Shared memory tells nobody that something came; a network does, so waiting for it may block.
  const bool shares_memory = transports_[0]->traits().same_host_only;
  const bool may_sleep = transports_[1] == nullptr && !shares_memory;
  unsigned round = 0;
  for (int idle = 0; place.bound != nullptr;) {
    if (progress()) {
      idle = 0;
      // A trickle that never ends is no reason to miss the deadline.
      if (++round % 1024 != 0) continue;
    } else if (++idle < spins || (crowded_ && shares_memory && idle < k_spins_other_core && place.bound != nullptr &&
                                  awaits_other_cores(*place.bound))) {
      continue;
    }
    if (place.bound == nullptr) break;
    if (const Error* error = failure_of(*place.bound)) return poison(*error);
    if (deadline.passed()) return poison(overdue(index));
    if (idle > 0) transports_[0]->wait(may_sleep && idle > k_spins_before_sleep ? Seconds(1e-3) : Seconds(0));
  }
  return {};
}

bool Communicator::awaits_other_cores(const Bound& bound) const {
  const int mine = core_of_[static_cast<std::size_t>(rank_)];
  if (mine < 0) return false;
  const auto elsewhere = [&](std::size_t rank) { return core_of_[rank] >= 0 && core_of_[rank] != mine; };
  if (const Gathering* const gathering = bound.gathering.get(); gathering != nullptr) {
    for (std::size_t rank = 0; rank < members_.size(); ++rank)
      if (gathering->misses(rank) && !elsewhere(rank)) return false;
    return true;
  }
  if (bound.execution == nullptr) return false;
  const auto awaited = bound.execution->awaited();
  return awaited.channel != nullptr && elsewhere(static_cast<std::size_t>(awaited.channel->endpoint->peer()));
}

Error Communicator::overdue(std::size_t index) const {
  const Bound& bound = *places_[index].bound;
  const auto awaited = bound.exchange != nullptr    ? bound.exchange->awaited()
                       : bound.gathering != nullptr ? bound.gathering->awaited()
                                                    : bound.execution->awaited();
  if (awaited.channel == nullptr)
    return {Code::timed_out, fmt::format("{} did not end before its deadline", bound.ran.algorithm), Error::k_no_peer,
            0};
  const int peer = awaited.channel->endpoint->peer();
  // Who had given and taken all before it ended is missed by others, and may be why these are silent.
  std::string gone;
  for (const auto& [key, channel] : channels_)
    if (const Error* error = channel->endpoint->failure(); error != nullptr && gone.empty())
      gone = "; " + error->message;
  return {Code::timed_out,
          fmt::format("{}: {} {} before the deadline; it is stopped, overloaded, or waits for another rank itself{}",
                      bound.ran.algorithm, who(peer),
                      awaited.for_data ? "sent no more data" : "did not take the data sent to it", gone),
          peer, 0};
}

tl::unexpected<Error> Communicator::poison(Error error) {
  failure_ = error;
  for (const auto& [key, channel] : channels_) channel->endpoint->withdraw();
  return tl::unexpected<Error>(std::move(error));
}

Result<void> Communicator::run(const Call& call, Deadline deadline) {
  // The shortest calls take less time than looking at everything that start() and wait() do: if it is the call of last
  // time again, and nothing else is in flight, only what must be done is.
  const Bindings& bindings = *bindings_;
  if (in_flight_ == 1 && bindings.last != nullptr && bindings.last->gathering != nullptr && !failure_ &&
      places_.front().bound == nullptr && !call.coding.asked() && !call.coding.permitted() &&
      Bindings::same({call, 0, direct_out(call)}, *bindings.last_key)) {
    Place& place = places_.front();
    GRADRAIL_TRY(check_memory(call, bindings.last->program));
    place.bound = bindings.last;
    place.number = ++started_;
    place.out = call.out.data();
    Gathering& gathering = *place.bound->gathering;
    gathering.trace(times_);
    gathering.start(call.in.data(), place.out);
    const int polls = crowded_ ? k_spins_crowded : k_polls_alone;
    for (int poll = 0; poll < polls; ++poll)
      if (gathering.progress() && gathering.done()) {
        complete(0);
        return {};
      }
    return wait_for(0, deadline);
  }
  GRADRAIL_ASSIGN(const Operation operation, start(call, deadline));
  return wait(operation, deadline);
}

Result<void> Communicator::barrier(Deadline deadline) {
  Call call;
  call.in = call.out = {&barrier_memory_, 0};
  call.in_place = true;
  call.count = 1;
  call.type = Type::u8;
  call.algorithm = "recursive_doubling";
  call.lanes = call.pieces = 1;
  return run(call, deadline);
}

Traffic Communicator::traffic() const {
  Traffic total{};
  const auto add = [&](const Traffic& traffic) {
    for (std::size_t i = 0; i < k_paths; ++i) total[i] += traffic[i];
  };
  for (const auto& [key, channel] : channels_) {
    // What was staged is not zero-copy for those whose data it is.
    Traffic traffic = channel->endpoint->traffic();
    std::uint64_t& zero_copy = traffic[static_cast<std::size_t>(Path::zero_copy)];
    const std::uint64_t staged = std::min(zero_copy, channel->staged);
    zero_copy -= staged;
    traffic[static_cast<std::size_t>(Path::one_copy)] += staged;
    add(traffic);
  }
  for (const Place& place : places_)
    if (place.board != nullptr) add(place.board->traffic());
  return total;
}

}  // namespace gradrail
