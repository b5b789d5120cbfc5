#include "tests/property/oracle.h"

#include <algorithm>
#include <set>
#include <vector>

namespace gradrail::test {
namespace {

using Cell = std::tuple<int, std::uint32_t>;  // buffer, chunk; in and out are one buffer in place

int buffer(const Place& place, bool in_place) {
  switch (place.store) {
    case Store::in: return 0;
    case Store::out: return in_place ? 0 : 1;
    case Store::scratch: return 2 + place.plane;
  }
  return -1;
}

std::vector<Cell> cells(const Place& place, std::uint32_t chunks, bool in_place) {
  std::vector<Cell> found;
  for (std::uint32_t i = 0; i < chunks; ++i) found.emplace_back(buffer(place, in_place), place.chunk + i);
  return found;
}

struct Formula {
  std::string text;
  std::vector<std::string> terms;  // sorted
};

std::string symbol(int rank, std::uint32_t chunk) { return std::to_string(rank) + "." + std::to_string(chunk); }

class Judge {
 public:
  explicit Judge(const Schedule& schedule) : schedule_(schedule), shape_(schedule.shape) {}

  Verdict judge() {
    for (const Program& program : schedule_.programs) {
      check_fields(program);
      if (why_.empty()) check_races(program);
    }
    if (why_.empty()) pair_messages();
    if (why_.empty()) order();
    if (why_.empty()) compute();
    if (why_.empty()) check_outputs();
    Verdict verdict;
    verdict.right = why_.empty();
    verdict.why = why_;
    verdict.outputs = outputs_;
    return verdict;
  }

 private:
  struct Node {
    std::vector<std::size_t> next;
    int waits = 0;
  };

  void wrong(const std::string& why) {
    if (why_.empty()) why_ = why;
  }
  static std::string at(const Program& program, std::size_t step) {
    return "rank " + std::to_string(program.rank) + " step " + std::to_string(step);
  }
  const Program& program(int rank) const { return schedule_.programs[static_cast<std::size_t>(rank)]; }

  bool holds(const Program& p, const Place& place, std::uint32_t chunks) const {
    if (place.store == Store::scratch && place.plane >= p.planes) return false;
    const Window window = window_of(place.store, shape_, p.rank, p.grid);
    return window.count > 0 && place.chunk >= window.first && place.chunk + chunks <= window.end();
  }

  void check_fields(const Program& p) {
    for (std::size_t i = 0; i < p.steps.size(); ++i) {
      const Step& s = p.steps[i];
      if (s.lane >= shape_.lanes || s.chunks < 1) return wrong(at(p, i) + " lane or chunks");
      if (s.talks() && (s.peer >= shape_.ranks || s.peer == p.rank)) return wrong(at(p, i) + " peer");
      if (s.after >= static_cast<int>(i) || s.after_send >= static_cast<int>(i))
        return wrong(at(p, i) + " waits ahead");
      if (s.reads() && !holds(p, s.from, s.chunks)) return wrong(at(p, i) + " from");
      if (!s.writes()) continue;
      if (!holds(p, s.to, s.chunks)) return wrong(at(p, i) + " to");
      const Place as_output{Store::out, 0, s.to.chunk};
      if (s.to.store == Store::in && !(shape_.in_place && holds(p, as_output, s.chunks)))
        return wrong(at(p, i) + " writes its input");
      if (!s.reads()) continue;
      const auto from = cells(s.from, s.chunks, shape_.in_place);
      const auto to = cells(s.to, s.chunks, shape_.in_place);
      for (const Cell& cell : from)
        if (std::count(to.begin(), to.end(), cell) > 0 && !(s.op == Op::recv_reduce && from == to))
          return wrong(at(p, i) + " overlaps itself");
    }
  }

  // Every pair of steps that conflict: the earlier one must be among those that the later, or one before the later in
  // its lane, waits for.
  void check_races(const Program& p) {
    const auto uses = [&](const Step& s, bool writing) {
      if (writing ? !s.writes() : !s.reads()) return std::vector<Cell>();
      return cells(writing ? s.to : s.from, s.chunks, shape_.in_place);
    };
    const auto meet = [](const std::vector<Cell>& a, const std::vector<Cell>& b) {
      return std::any_of(a.begin(), a.end(),
                         [&](const Cell& cell) { return std::count(b.begin(), b.end(), cell) > 0; });
    };
    for (std::size_t j = 0; j < p.steps.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) {
        const Step& a = p.steps[i];
        const Step& b = p.steps[j];
        const auto a_reads = uses(a, false), a_writes = uses(a, true);
        const auto b_reads = uses(b, false), b_writes = uses(b, true);
        const bool conflict = meet(a_writes, b_reads) || meet(a_writes, b_writes) || meet(a_reads, b_writes);
        if (a.lane != b.lane && (conflict || meet(a_reads, b_reads))) return wrong(at(p, j) + " meets another lane");
        if (!conflict) continue;
        bool waited = false;
        for (std::size_t k = i + 1; k <= j; ++k)
          if (p.steps[k].lane == b.lane)
            waited = waited || static_cast<int>(i) <= (a.op == Op::send ? p.steps[k].after_send : p.steps[k].after);
        if (!waited) return wrong(at(p, j) + " races with step " + std::to_string(i));
      }
  }

  using Pipe = std::tuple<int, int, int>;  // from, to, lane
  void pair_messages() {
    std::map<Pipe, std::vector<std::size_t>> sends, receives;
    for (const Program& p : schedule_.programs)
      for (std::size_t i = 0; i < p.steps.size(); ++i) {
        const Step& s = p.steps[i];
        if (s.op == Op::send) sends[{p.rank, s.peer, s.lane}].push_back(i);
        if (s.receives()) receives[{s.peer, p.rank, s.lane}].push_back(i);
      }
    for (const auto& [pipe, steps] : receives)
      if (steps.size() != sends[pipe].size()) return wrong("a message has one end");
    for (const auto& [pipe, steps] : sends) {
      if (steps.size() != receives[pipe].size()) return wrong("a message has one end");
      const auto [from, to, lane] = pipe;
      for (std::size_t k = 0; k < steps.size(); ++k) {
        const std::size_t receive = receives[pipe][k];
        other_end_[{from, steps[k]}] = {to, receive};
        other_end_[{to, receive}] = {from, steps[k]};
        const Step& s = program(from).steps[steps[k]];
        const Step& r = program(to).steps[receive];
        if (s.chunks != r.chunks || !alike(s.from.chunk, r.to.chunk))
          return wrong("ends of a message differ in length");
      }
    }
    for (const Program& p : schedule_.programs)
      for (const Step& s : p.steps)
        if (s.reads() && s.writes() && !alike(s.from.chunk, s.to.chunk)) return wrong("operands differ in length");
  }

  // Two chunks are as long as each other for every count only if they are one, or have one place in two blocks.
  bool alike(std::uint32_t a, std::uint32_t b) const {
    const std::uint32_t grid = program(0).grid;
    const std::uint32_t pieces = is_blocked(shape_.collective) ? grid / static_cast<std::uint32_t>(shape_.ranks) : grid;
    return a % pieces == b % pieces;
  }

  using Which = std::tuple<int, std::size_t>;  // rank, step
  void order() {
    std::map<Which, std::size_t> number;
    for (const Program& p : schedule_.programs)
      for (std::size_t i = 0; i < p.steps.size(); ++i) number.emplace(Which{p.rank, i}, number.size());
    std::vector<Node> nodes(2 * number.size());  // start and end of each step
    std::vector<Which> steps(number.size());
    for (const auto& [which, n] : number) steps[n] = which;
    const auto start = [&](const Which& which) { return 2 * number.at(which); };
    const auto end = [&](const Which& which) { return 2 * number.at(which) + 1; };
    const auto edge = [&](std::size_t a, std::size_t b) {
      nodes[a].next.push_back(b);
      ++nodes[b].waits;
    };
    for (const Program& p : schedule_.programs)
      for (std::size_t j = 0; j < p.steps.size(); ++j) {
        const Which me{p.rank, j};
        edge(start(me), end(me));
        if (p.steps[j].talks()) edge(start(other_end_.at(me)), end(me));
        for (std::size_t i = 0; i < j; ++i) {
          if (p.steps[i].lane != p.steps[j].lane) continue;
          edge(start({p.rank, i}), start(me));
          const int watermark = p.steps[i].op == Op::send ? p.steps[j].after_send : p.steps[j].after;
          if (static_cast<int>(i) <= watermark) edge(end({p.rank, i}), start(me));
        }
      }
    std::vector<std::size_t> ready;
    for (std::size_t n = 0; n < nodes.size(); ++n)
      if (nodes[n].waits == 0) ready.push_back(n);
    std::size_t done = 0;
    while (!ready.empty()) {
      const std::size_t n = ready.back();
      ready.pop_back();
      ++done;
      sequence_.emplace_back(steps[n / 2], n % 2 == 1);
      for (const std::size_t next : nodes[n].next)
        if (--nodes[next].waits == 0) ready.push_back(next);
    }
    if (done != nodes.size()) wrong("it never ends");
  }

  static Formula sum(const Formula& a, const Formula& b) {
    Formula c;
    c.text = "(" + std::min(a.text, b.text) + "+" + std::max(a.text, b.text) + ")";
    std::merge(a.terms.begin(), a.terms.end(), b.terms.begin(), b.terms.end(), std::back_inserter(c.terms));
    return c;
  }

  void compute() {
    using Memory = std::map<Cell, Formula>;
    std::vector<Memory> memory(schedule_.programs.size());
    for (const Program& p : schedule_.programs) {
      const Window in = window_of(Store::in, shape_, p.rank, p.grid);
      for (std::uint32_t c = in.first; c < in.end(); ++c)
        memory[static_cast<std::size_t>(p.rank)][{0, c}] = {symbol(p.rank, c), {symbol(p.rank, c)}};
    }
    std::map<Which, std::vector<Formula>> sent;  // read when the send starts; everything else happens when it ends
    for (const auto& [which, ends] : sequence_) {
      const auto [rank, index] = which;
      const Step& s = program(rank).steps[index];
      if ((s.op == Op::send) == ends) continue;
      Memory& mine = memory[static_cast<std::size_t>(rank)];
      const auto get = [&, r = rank, i = index](const Cell& cell) {
        const auto found = mine.find(cell);
        if (found != mine.end()) return found->second;
        wrong("rank " + std::to_string(r) + " step " + std::to_string(i) + " reads nothing");
        return Formula();
      };
      if (s.op == Op::send) {
        for (const Cell& cell : cells(s.from, s.chunks, shape_.in_place)) sent[which].push_back(get(cell));
        continue;
      }
      std::vector<Formula> results;
      const auto from = cells(s.from, s.chunks, shape_.in_place);
      const auto to = cells(s.to, s.chunks, shape_.in_place);
      for (std::uint32_t i = 0; i < s.chunks; ++i) {
        Formula incoming;
        if (s.receives()) incoming = sent.at(other_end_.at(which)).at(i);
        switch (s.op) {
          case Op::recv: results.push_back(incoming); break;
          case Op::recv_reduce: results.push_back(sum(get(from[i]), incoming)); break;
          case Op::reduce: results.push_back(sum(get(to[i]), get(from[i]))); break;
          case Op::copy: results.push_back(get(from[i])); break;
          case Op::send: break;
        }
      }
      for (std::uint32_t i = 0; i < s.chunks; ++i) mine[to[i]] = results[i];
    }
    for (const Program& p : schedule_.programs) {
      const Window out = window_of(Store::out, shape_, p.rank, p.grid);
      for (std::uint32_t c = out.first; c < out.end(); ++c) {
        const Cell cell{shape_.in_place ? 0 : 1, c};
        const auto& mine = memory[static_cast<std::size_t>(p.rank)];
        const auto found = mine.find(cell);
        if (found == mine.end()) return wrong("an output is never written");
        outputs_[{p.rank, c}] = found->second.text;
        terms_[{p.rank, c}] = found->second.terms;
      }
    }
  }

  void check_outputs() {
    std::map<std::uint32_t, std::set<std::string>> formulas;
    for (const auto& [where, terms] : terms_) {
      const auto [rank, chunk] = where;
      if (terms != promised(rank, chunk)) return wrong("an output is not what was promised");
      if (reduces(shape_.collective)) formulas[chunk].insert(outputs_.at(where));
    }
    for (const auto& [chunk, different] : formulas)
      if (different.size() > 1) return wrong("a chunk is reduced in different orders");
  }

  std::vector<std::string> promised(int rank, std::uint32_t chunk) const {
    const auto pieces = program(0).grid / static_cast<std::uint32_t>(shape_.ranks);
    std::vector<std::string> all;
    switch (shape_.collective) {
      case Collective::allreduce:
      case Collective::reduce:
      case Collective::reduce_scatter:
        for (int r = 0; r < shape_.ranks; ++r) all.push_back(symbol(r, chunk));
        std::sort(all.begin(), all.end());
        return all;
      case Collective::broadcast:
      case Collective::scatter: return {symbol(shape_.root, chunk)};
      case Collective::all_gather:
      case Collective::gather: return {symbol(static_cast<int>(chunk / pieces), chunk)};
      case Collective::all_to_all:
        return {symbol(static_cast<int>(chunk / pieces), static_cast<std::uint32_t>(rank) * pieces + chunk % pieces)};
      case Collective::send_recv: return {symbol((rank + shape_.ranks - 1) % shape_.ranks, chunk)};
    }
    return all;
  }

  const Schedule& schedule_;
  const Shape& shape_;
  std::string why_;
  std::map<Which, Which> other_end_;
  std::vector<std::pair<Which, bool>> sequence_;  // starts (false) and ends (true) of steps in a possible order
  std::map<std::tuple<int, std::uint32_t>, std::string> outputs_;
  std::map<std::tuple<int, std::uint32_t>, std::vector<std::string>> terms_;
};

}  // namespace

Verdict judge(const Schedule& schedule) { return Judge(schedule).judge(); }

}  // namespace gradrail::test
