#include "collectives/schedule/cost.h"

#include <algorithm>
#include <queue>

#include "collectives/schedule/matching.h"
#include "collectives/schedule/timeline.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

class Simulation {
 public:
  Simulation(const Schedule& schedule, std::uint64_t total_bytes, const CostModel& model, Timeline* timeline)
      : schedule_(schedule), model_(model), timeline_(timeline), work_(std::max(1.0, model.oversubscription)) {
    const Shape& shape = schedule.shape;
    cut(total_bytes);
    auto matched = match(schedule);
    GRADRAIL_CHECK(matched.has_value());
    matching_ = *std::move(matched);
    lay_pipes();
    thread_free_.resize(schedule.programs.size());
    starting_.resize(schedule.programs.size() * static_cast<std::size_t>(shape.lanes));
    local_.resize(starting_.size());
    const auto hosts = static_cast<std::size_t>(shape.hosts());
    memory_free_.resize(hosts);
    port_out_free_.resize(hosts);
    port_in_free_.resize(hosts);
    for (const Program& program : schedule.programs)
      for (int lane = 0; lane < shape.lanes; ++lane) lanes_.emplace_back(program, lane);
    arrived_.resize(matching_.messages.size());
    if (timeline_ != nullptr) timeline_->messages.resize(matching_.messages.size());
    if (timeline_ != nullptr)
      for (const Program& program : schedule.programs) timeline_->spans.emplace_back(program.steps.size());
  }

  Cost run() {
    for (std::uint32_t id = 0; id < lanes_.size(); ++id) go_on(0, id);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      switch (event.kind) {
        case Kind::step_started: started(event.time, event.subject); break;
        case Kind::bytes_leave: bytes_leave(event.time, event.subject); break;
        case Kind::arrived: arrived(event.time, event.subject); break;
        case Kind::received: received(event.time, event.subject); break;
        case Kind::local_done: local_done(event.time, event.subject); break;
      }
    }
    for (LaneProgress& lane : lanes_) GRADRAIL_CHECK(lane.all_started());  // verify() accepted the schedule
    return cost_;
  }

 private:
  enum class Kind : std::uint8_t {
    step_started,  // the overhead of a lane's next step is done
    bytes_leave,   // a message's alpha is over
    arrived,       // its last byte is there
    received,      // and reduced, if it is to be
    local_done,    // a lane's local step is done: it is the last one that the lane started
  };
  struct Event {
    double time;
    std::uint64_t number;  // ties: first come
    Kind kind;
    std::uint32_t subject;  // a lane or a message
    bool operator<(const Event& other) const { return time != other.time ? time > other.time : number > other.number; }
  };
  struct PipeState {
    std::uint32_t sent = 0;      // sends started
    std::uint32_t received = 0;  // receives started
    std::uint32_t moved = 0;     // messages arrived or on their way
    bool busy = false;
    std::uint32_t link = 0;  // all pipes between the same two ranks, in the same direction
  };

  void cut(std::uint64_t total_bytes) {
    const std::uint32_t grid = schedule_.programs[0].grid;
    const bool blocked = is_blocked(schedule_.shape.collective);
    const auto blocks = blocked ? static_cast<std::uint32_t>(schedule_.shape.ranks) : 1;
    begin_.resize(grid + std::size_t{1});
    for (std::uint32_t chunk = 0; chunk <= grid; ++chunk)
      begin_[chunk] = chunk_begin(total_bytes, grid, blocks, 1, chunk);
  }

  void lay_pipes() {
    pipes_.resize(matching_.pipes.size());
    std::uint32_t links = 0;
    for (std::size_t id = 0; id < pipes_.size(); ++id) {
      const Pipe& pipe = matching_.pipes[id];
      const bool same = id > 0 && matching_.pipes[id - 1].from == pipe.from && matching_.pipes[id - 1].to == pipe.to;
      if (!same) ++links;
      pipes_[id].link = links - 1;
    }
    link_free_.resize(links);
  }

  void at(double time, Kind kind, std::uint32_t subject) { events_.push({time, number_++, kind, subject}); }

  [[nodiscard]] std::uint32_t rank_of(std::uint32_t lane) const {
    return lane / static_cast<std::uint32_t>(schedule_.shape.lanes);
  }
  [[nodiscard]] std::uint32_t host_of(std::uint32_t rank) const {
    return rank / static_cast<std::uint32_t>(schedule_.shape.ranks_per_host);
  }
  [[nodiscard]] const Step& step_of(std::uint32_t rank, std::uint32_t index) const {
    return schedule_.programs[rank].steps[index];
  }
  [[nodiscard]] double bytes_of(const Step& s) const {
    const std::uint32_t first = s.reads() ? s.from.chunk : s.to.chunk;
    return static_cast<double>(begin_[first + s.chunks] - begin_[first]);
  }

  // The rank's thread is busy for `duration`, as soon as it is free; returns when it is done.
  double work(double now, std::uint32_t rank, double duration) {
    return thread_free_[rank] = std::max(now, thread_free_[rank]) + duration;
  }

  void mark(std::uint32_t rank, std::uint32_t index, double now, bool end) {
    if (timeline_ == nullptr) return;
    Span& span = timeline_->spans[rank][index];
    (end ? span.end : span.start) = now;
  }

  void complete(double now, std::uint32_t rank, std::uint32_t index) {
    mark(rank, index, now, true);
    cost_.seconds = std::max(cost_.seconds, now);
    const std::uint32_t lane = rank * static_cast<std::uint32_t>(schedule_.shape.lanes) + step_of(rank, index).lane;
    lanes_[lane].complete(index);
    go_on(now, lane);
  }

  // Begins the lane's next step, if it may start and the lane is not beginning one already.
  void go_on(double now, std::uint32_t id) {
    LaneProgress& lane = lanes_[id];
    const std::uint32_t rank = rank_of(id);
    while (!starting_[id] && !lane.all_started() && lane.may_start()) {
      if (bytes_of(step_of(rank, lane.next())) > 0) {
        starting_[id] = true;
        at(work(now, rank, model_.step * work_), Kind::step_started, id);
        return;
      }
      skip(now, rank, lane);
    }
  }

  // Both ends know that the message is empty: neither waits for the other.
  void skip(double now, std::uint32_t rank, LaneProgress& lane) {
    const std::uint32_t index = lane.next();
    mark(rank, index, now, false);
    mark(rank, index, now, true);
    const Step& s = step_of(rank, index);
    lane.start();
    lane.complete(index);
    if (s.talks()) {
      const std::uint32_t pipe = matching_.messages[matching_.message_of[rank][index]].pipe;
      (s.op == Op::send ? pipes_[pipe].sent : pipes_[pipe].received) += 1;
      move(now, pipe);  // a receive passed over may be the credit that a later message waits for
    }
  }

  void started(double now, std::uint32_t id) {
    LaneProgress& lane = lanes_[id];
    const std::uint32_t rank = rank_of(id);
    const std::uint32_t index = lane.next();
    const Step& s = step_of(rank, index);
    mark(rank, index, now, false);
    lane.start();
    if (s.talks()) {
      starting_[id] = false;
      const std::uint32_t message = matching_.message_of[rank][index];
      const std::uint32_t pipe = matching_.messages[message].pipe;
      (s.op == Op::send ? pipes_[pipe].sent : pipes_[pipe].received) += 1;
      move(now, pipe);
      if (s.receives() && arrived_[message]) take(now, message);
      go_on(now, id);
      return;
    }
    // The thread does a local step before anything else, so the lane stays `starting` until it is done.
    local_[id] = index;
    double done = 0;
    if (s.op == Op::reduce) {
      done = work(now, rank, bytes_of(s) * model_.gamma * work_);
    } else {
      double& memory = memory_free_[host_of(rank)];
      if (model_.shared_medium) now = std::max(now, memory);
      done = work(now, rank, bytes_of(s) * model_.inside.beta * work_);
      if (model_.shared_medium) memory = done;
    }
    at(done, Kind::local_done, id);
  }

  void local_done(double now, std::uint32_t id) {
    starting_[id] = false;
    complete(now, rank_of(id), local_[id]);
  }

  // Sets the pipe's next message going, if it has been sent and there is a credit or a receive for it.
  void move(double now, std::uint32_t id) {
    PipeState& pipe = pipes_[id];
    const Pipe& ends = matching_.pipes[id];
    while (!pipe.busy && pipe.moved < std::min(pipe.sent, pipe.received + credits_)) {
      const std::uint32_t message = ends.first + pipe.moved++;
      if (bytes_of(step_of(ends.from, matching_.messages[message].send)) == 0) continue;  // skipped at both ends
      pipe.busy = true;
      if (timeline_ != nullptr) timeline_->messages[message].start = now;
      at(now + link_between(ends).alpha * slowdown(ends), Kind::bytes_leave, message);
    }
  }

  [[nodiscard]] bool inside(const Pipe& pipe) const { return host_of(pipe.from) == host_of(pipe.to); }
  [[nodiscard]] const Link& link_between(const Pipe& pipe) const {
    return inside(pipe) ? model_.inside : model_.between;
  }
  [[nodiscard]] double slowdown(const Pipe& pipe) const { return inside(pipe) ? work_ : 1; }

  void bytes_leave(double now, std::uint32_t message) {
    const Message& m = matching_.messages[message];
    const Pipe& pipe = matching_.pipes[m.pipe];
    const double bytes = bytes_of(step_of(pipe.from, m.send));
    double unshared = 0;  // stands in where nothing is shared
    double* shared[] = {&link_free_[pipes_[m.pipe].link], &unshared, &unshared};
    if (!inside(pipe)) {
      shared[1] = &port_out_free_[host_of(pipe.from)];
      shared[2] = &port_in_free_[host_of(pipe.to)];
    } else if (model_.shared_medium) {
      shared[1] = &memory_free_[host_of(pipe.from)];
    }
    for (const double* resource : shared) now = std::max(now, *resource);
    const double end = now + bytes * link_between(pipe).beta * slowdown(pipe);
    for (double* resource : shared) *resource = end;
    at(end, Kind::arrived, message);
    const auto whole_bytes = static_cast<std::uint64_t>(bytes);
    cost_.bytes_sent += whole_bytes;
    if (!inside(pipe)) cost_.bytes_between_hosts += whole_bytes;
    ++cost_.messages;
  }

  void arrived(double now, std::uint32_t message) {
    const Message& m = matching_.messages[message];
    const Pipe& pipe = matching_.pipes[m.pipe];
    pipes_[m.pipe].busy = false;
    move(now, m.pipe);
    if (timeline_ != nullptr) timeline_->messages[message].end = now;
    arrived_[message] = true;
    if (message - pipe.first < pipes_[m.pipe].received) take(now, message);
    complete(now, pipe.from, m.send);
  }

  // The message has arrived and its receive has started.
  void take(double now, std::uint32_t message) {
    const Message& m = matching_.messages[message];
    const std::uint32_t rank = matching_.pipes[m.pipe].to;
    const Step& receive = step_of(rank, m.receive);
    if (receive.op == Op::recv_reduce)
      at(work(now, rank, bytes_of(receive) * model_.gamma * work_), Kind::received, message);
    else
      received(now, message);
  }

  void received(double now, std::uint32_t message) {
    const Message& m = matching_.messages[message];
    complete(now, matching_.pipes[m.pipe].to, m.receive);
  }

  const Schedule& schedule_;
  const CostModel& model_;
  Timeline* const timeline_;
  const double work_;  // how much slower ranks and messages inside a host are for sharing cores
  const std::uint32_t credits_ = static_cast<std::uint32_t>(std::max(0, model_.credits));
  Matching matching_;
  std::vector<bool> arrived_;         // by message
  std::vector<std::uint64_t> begin_;  // by chunk, its first byte
  std::vector<LaneProgress> lanes_;
  std::vector<bool> starting_;        // by lane
  std::vector<std::uint32_t> local_;  // by lane, the local step that it is at
  std::vector<PipeState> pipes_;
  // When each is free again.
  std::vector<double> thread_free_, link_free_, memory_free_, port_out_free_, port_in_free_;
  std::priority_queue<Event> events_;
  std::uint64_t number_ = 0;
  Cost cost_;
};

}  // namespace

Cost simulate(const Schedule& schedule, std::uint64_t total_bytes, const CostModel& model) {
  return Simulation(schedule, total_bytes, model, nullptr).run();
}

Timeline timeline_of(const Schedule& schedule, std::uint64_t total_bytes, const CostModel& model) {
  Timeline timeline;
  timeline.cost = Simulation(schedule, total_bytes, model, &timeline).run();
  return timeline;
}

}  // namespace gradrail
