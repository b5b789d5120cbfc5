#include "transports/bootstrap/star.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "transports/base/check.h"
#include "transports/bootstrap/report.h"
#include "transports/bootstrap/star_frames.h"
#include "transports/handshake.h"
#include "transports/socket.h"

namespace gradrail {
namespace {

using star::body_of;
using star::error_in;
using star::frame_of;
using star::Hello;
using star::Kind;
using star::receive;

constexpr std::string_view k_purpose = "rendezvous";
constexpr std::size_t k_most_hello_bytes = 4096;
// How much longer than its own deadline a rank waits for rank 0 to name the culprit.
constexpr Seconds k_sentence_grace{1.5};
constexpr Seconds k_watch{0.5};  // how often strangers' handshakes are timed out while nothing else happens

std::string list_of(std::span<const int> ranks) {
  constexpr std::size_t k_most_named = 16;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const auto named = std::min(ranks.size(), k_most_named);
  for (std::size_t i = 0; i < named; ++i) {
    const bool last = i + 1 == ranks.size();
    text += fmt::format("{}{}", i == 0 ? "" : last ? " and " : ", ", ranks[i]);
  }
  if (named < ranks.size()) text += fmt::format(" and {} more", ranks.size() - named);
  return text;
}

class Star final : public Bootstrap {
 public:
  explicit Star(StarOptions options)
      : ranks_(options.ranks),
        build_id_(std::move(options.build_id)),
        listener_(std::move(options.listener)),
        meetings_(std::move(options.meetings)),
        report_(std::move(options.report)),
        wait_(options.wait),
        deadline_(Deadline::after(options.wait)),
        links_(static_cast<std::size_t>(options.ranks)) {
    rank_ = options.rank;
    secret_ = options.secret;
    origin_ = std::move(options.origin);
    members_.resize(static_cast<std::size_t>(options.ranks));
  }

  [[nodiscard]] Result<void> form();
  Result<std::vector<Bytes>> all_gather(std::span<const std::byte> mine, Deadline deadline) override;
  Result<Bytes> broadcast(std::span<const std::byte> from_rank_0, Deadline deadline) override;
  void give_up(const Error& why) override;

 private:
  struct Link {
    Fd fd;  // at rank 0 to each rank, elsewhere to rank 0 only
    Hello who;
  };

  [[nodiscard]] Result<void> meet_everyone();
  [[nodiscard]] Result<void> admit(Acceptor::Accepted accepted);
  [[nodiscard]] Result<void> meet_rank_0();
  [[nodiscard]] Result<void> introduce();
  [[nodiscard]] Link& link(int rank) { return links_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::string name(int rank) const;

  [[nodiscard]] Result<void> take_parts(Kind kind, std::vector<Bytes>* parts, Deadline deadline);
  [[nodiscard]] Result<void> take_part(Kind kind, int rank, Bytes* part, Deadline deadline);
  [[nodiscard]] Result<void> send_outcome(Kind kind, std::span<const std::byte> body, Deadline deadline);
  [[nodiscard]] Result<Bytes> outcome(Kind kind, Deadline deadline);
  // Remembers the failure, and at rank 0 announces it to all.
  tl::unexpected<Error> fails(Error error);

  int ranks_;
  std::string build_id_;
  Fd listener_;
  std::vector<Meeting> meetings_;
  Fd report_;
  Seconds wait_;
  Deadline deadline_;
  std::vector<Link> links_;
  std::uint64_t op_ = 0;
  std::optional<Error> failure_;
  bool told_by_rank_0_ = false;  // then rank 0 tells the user, too
};

// "rank 2 (pid 4711 on host a)"
std::string Star::name(int rank) const {
  const auto& who = links_[static_cast<std::size_t>(rank)].who;
  return who.pid == 0 ? fmt::format("rank {}", rank) : fmt::format("rank {} (pid {} on {})", rank, who.pid, who.host);
}

tl::unexpected<Error> Star::fails(Error error) {
  if (!failure_) {
    failure_ = error;
    const auto frame = frame_of(Kind::failed, op_, body_of(error));
    // Best effort and without waiting: whoever does not take it notices that the star is gone.
    for (auto& one : links_) {
      if (one.fd) [[maybe_unused]]
        const auto sent = send_frame(one.fd.get(), frame, Deadline::after(Seconds(0)));
    }
  }
  return tl::unexpected<Error>(std::move(error));
}

Result<void> Star::form() {
  link(rank_).who = {build_id_, rank_, ranks_, static_cast<long>(getpid()), host_name()};
  if (ranks_ > 1) GRADRAIL_TRY(rank_ == 0 ? meet_everyone() : meet_rank_0());
  return introduce();
}

Result<void> Star::meet_everyone() {
  GRADRAIL_ASSIGN(auto acceptor,
                  Acceptor::make(std::move(listener_), secret_,
                                 {.purpose = std::string(k_purpose), .most_hello_bytes = k_most_hello_bytes}));
  for (int arrived = 1; arrived < ranks_;) {
    GRADRAIL_ASSIGN(auto accepted, acceptor.poll());
    if (accepted) {
      GRADRAIL_TRY(admit(std::move(*accepted)));
      ++arrived;
      continue;
    }
    if (deadline_.passed()) {
      std::vector<int> missing;
      for (int rank = 1; rank < ranks_; ++rank) {
        if (!link(rank).fd) missing.push_back(rank);
      }
      const auto strangers = acceptor.dropped();
      return fails(
          {Code::timed_out,
           fmt::format(
               "{} of {} did not come to {} within {:g} s{}", list_of(missing), ranks_, name(0), wait_.count(),
               strangers == 0 ? "" : fmt::format("; {} connections without the job's secret were dropped", strangers)),
           missing.front(), 0});
    }
    // Those who came are watched, so that a death among them does not cost the whole wait.
    std::vector<pollfd> entries{{acceptor.fd(), POLLIN, 0}};
    std::vector<int> who{0};
    for (int rank = 1; rank < ranks_; ++rank) {
      if (!link(rank).fd) continue;
      entries.push_back({link(rank).fd.get(), POLLRDHUP, 0});
      who.push_back(rank);
    }
    ::poll(entries.data(), entries.size(), Deadline::after(std::min(deadline_.left(), k_watch)).left_ms());
    for (std::size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].revents == 0) continue;
      return fails(
          {Code::peer_gone, fmt::format("{} ended while the other ranks were still coming", name(who[i])), who[i], 0});
    }
  }
  return {};
}

// At rank 0: one who has proven the secret.
Result<void> Star::admit(Acceptor::Accepted accepted) {
  const auto hello = star::decode_hello(accepted.hello);
  const auto refuse = [&](std::string why) {
    auto error = fails({Code::refused, std::move(why), hello ? hello->rank : Error::k_no_peer, 0});
    const auto frame = frame_of(Kind::failed, op_, body_of(error.value()));
    [[maybe_unused]] const auto sent = send_frame(accepted.fd.get(), frame, Deadline::after(Seconds(0)));
    return error;
  };
  if (!hello)
    return refuse(
        "a process that knows the job's secret introduced itself in bytes that do not parse; all ranks "
        "must be the same build of gradrail");
  const auto newcomer = fmt::format("rank {} (pid {} on {})", hello->rank, hello->pid, hello->host);
  if (hello->build_id != build_id_) {
    return refuse(
        fmt::format("{} is another build of gradrail: it is '{}', and {} is '{}'; start the same build everywhere",
                    newcomer, hello->build_id, name(0), build_id_));
  }
  if (hello->ranks != ranks_) {
    return refuse(fmt::format("{} was told of {} ranks, and {} of {}; all must be told the same", newcomer,
                              hello->ranks, name(0), ranks_));
  }
  if (hello->rank < 0 || hello->rank >= ranks_) {
    return refuse(fmt::format("{} came to a job of {} ranks, whose numbers are 0 to {}", newcomer, ranks_, ranks_ - 1));
  }
  if (hello->rank == 0 || link(hello->rank).fd) {
    return refuse(fmt::format("the number {} is claimed twice: by pid {} on {} and by pid {} on {}", hello->rank,
                              link(hello->rank).who.pid, link(hello->rank).who.host, hello->pid, hello->host));
  }
  link(hello->rank).fd = std::move(accepted.fd);
  link(hello->rank).who = *hello;
  return {};
}

Result<void> Star::meet_rank_0() {
  GRADRAIL_CHECK(!meetings_.empty());
  const auto hello = star::encode(link(rank_).who);
  // With several addresses of rank 0, one that leads nowhere (another network, a bridge that every host has) must not
  // keep us from trying the next.
  const bool only_one = meetings_.size() == 1;
  for (;;) {
    std::optional<Error> last;
    bool may_come = false;
    for (const auto& meeting : meetings_) {
      const auto turn = only_one ? deadline_ : Deadline::after(std::min(deadline_.left(), Seconds(1)));
      auto fd = dial(meeting.host, meeting.port, secret_, k_purpose, hello, turn);
      if (fd) {
        link(0).fd = std::move(*fd);
        return {};
      }
      may_come = may_come || fd.error().code == Code::timed_out;
      if (!last || fd.error().code == Code::refused) last = std::move(fd).error();
    }
    last->peer = 0;
    // A network namespace of one's own begins like this.
    if (last->sys_errno == ENETUNREACH && meetings_.front().host.starts_with("127."))
      last->message += "; the loopback interface is down, bring it up with: ip link set lo up";
    if (!may_come) return fails(std::move(*last).in(fmt::format("{} cannot join rank 0", name(rank_))));
    if (deadline_.passed()) {
      return fails(
          std::move(*last).in(fmt::format("{} did not reach rank 0 within {:g} s", name(rank_), wait_.count())));
    }
  }
}

// Everyone's host, address and pid at everyone.
Result<void> Star::introduce() {
  std::string listen_host = "127.0.0.1";
  for (const auto& one : links_) {
    if (!one.fd) continue;
    GRADRAIL_ASSIGN(listen_host, local_host(one.fd.get()));
    if (listen_host != "127.0.0.1" && listen_host != "::1") break;
  }
  ByteWriter mine;
  mine.put_string(link(rank_).who.host);
  mine.put_string(listen_host);
  mine.put(static_cast<std::int64_t>(getpid()));
  // Rank 0 may have started later than this rank, and waits as long for the others.
  GRADRAIL_ASSIGN(const auto all, all_gather(std::move(mine).take(), Deadline::after(wait_ + Seconds(1))));
  for (int rank = 0; rank < ranks_; ++rank) {
    ByteReader in(all[static_cast<std::size_t>(rank)]);
    auto& member = members_[static_cast<std::size_t>(rank)];
    member.rank = rank;
    member.host = in.get_string();
    member.listen_host = in.get_string();
    member.pid = static_cast<long>(in.get<std::int64_t>());
    if (!in.ok() || in.left() != 0) {
      return fails(
          {Code::malformed, fmt::format("{} introduced itself in bytes that do not parse", name(rank)), rank, 0});
    }
    link(rank).who.host = member.host;
    link(rank).who.pid = member.pid;
  }
  return {};
}

// One frame of a rank, at rank 0. A null `part`: none may come but bad news.
Result<void> Star::take_part(Kind kind, int rank, Bytes* part, Deadline deadline) {
  auto frame = receive(link(rank).fd.get(), deadline);
  if (!frame) {
    auto error = std::move(frame).error();
    error.peer = rank;
    if (error.code == Code::peer_gone) {
      error.message = fmt::format("{} ended, or its connection broke", name(rank));
    } else {
      error = std::move(error).in(name(rank));
    }
    return fails(std::move(error));
  }
  if (frame->kind == Kind::failed) {
    auto error = error_in(frame->body());
    if (error.peer < 0 || error.peer >= ranks_) error.peer = rank;
    return fails(std::move(error).in(fmt::format("{} gave up", name(rank))));
  }
  if (part == nullptr || frame->kind != kind || frame->op != op_) {
    return fails(
        {Code::malformed,
         fmt::format("{} is at another step of the program (its operation {}, rank 0's {}); all ranks must make the "
                     "same calls in the same order",
                     name(rank), frame->op, op_),
         rank, 0});
  }
  const auto body = frame->body();
  part->assign(body.begin(), body.end());
  return {};
}

// Rank 0 takes one part of each other rank, and notices whoever ends meanwhile. Without `parts` it only looks, without
// waiting, whether somebody has ended or given up.
Result<void> Star::take_parts(Kind kind, std::vector<Bytes>* parts, Deadline deadline) {
  std::vector<bool> has(static_cast<std::size_t>(ranks_), false);
  std::vector<pollfd> entries;
  for (int rank = 1; rank < ranks_; ++rank) entries.push_back({link(rank).fd.get(), POLLIN | POLLRDHUP, 0});
  for (int left = parts == nullptr ? 0 : ranks_ - 1;;) {
    ::poll(entries.data(), entries.size(), left == 0 ? 0 : deadline.left_ms());
    bool moved = false;
    for (int rank = 1; rank < ranks_; ++rank) {
      if (entries[static_cast<std::size_t>(rank - 1)].revents == 0) continue;
      const bool awaited = parts != nullptr && !has[static_cast<std::size_t>(rank)];
      GRADRAIL_TRY(take_part(kind, rank, awaited ? &(*parts)[static_cast<std::size_t>(rank)] : nullptr, deadline));
      has[static_cast<std::size_t>(rank)] = moved = true;
      --left;
    }
    if (left <= 0) return {};
    if (!moved && deadline.passed()) {
      std::vector<int> missing;
      for (int rank = 1; rank < ranks_; ++rank) {
        if (!has[static_cast<std::size_t>(rank)]) missing.push_back(rank);
      }
      const auto who = missing.size() == 1 ? name(missing.front()) : list_of(missing);
      return fails({Code::timed_out, fmt::format("{} did not answer in time", who), missing.front(), 0});
    }
  }
}

Result<void> Star::send_outcome(Kind kind, std::span<const std::byte> body, Deadline deadline) {
  const auto frame = frame_of(kind, op_, body);
  for (int rank = 1; rank < ranks_; ++rank) {
    if (auto sent = send_frame(link(rank).fd.get(), frame, deadline); !sent) {
      auto error = std::move(sent).error().in(fmt::format("sending to {}", name(rank)));
      error.peer = rank;
      return fails(std::move(error));
    }
  }
  return {};
}

// What rank 0 says, at the others.
Result<Bytes> Star::outcome(Kind kind, Deadline deadline) {
  auto frame = receive(link(0).fd.get(),
                       Deadline::at(deadline.when() + std::chrono::duration_cast<Clock::duration>(k_sentence_grace)));
  if (!frame) {
    auto error = std::move(frame).error();
    error.peer = 0;
    if (error.code == Code::peer_gone) error.message = fmt::format("{} ended, or its connection broke", name(0));
    if (error.code == Code::timed_out) error.message = fmt::format("{} did not answer in time", name(0));
    return fails(std::move(error));
  }
  if (frame->kind == Kind::failed) {
    told_by_rank_0_ = true;
    failure_ = error_in(frame->body());
    return tl::unexpected<Error>(*failure_);
  }
  if (frame->kind != kind || frame->op != op_) {
    return fails({Code::malformed,
                  fmt::format("{} and {} are at different steps of the program; all ranks must make the same "
                              "calls in the same order",
                              name(rank_), name(0)),
                  0, 0});
  }
  const auto body = frame->body();
  return Bytes(body.begin(), body.end());
}

Result<std::vector<Bytes>> Star::all_gather(std::span<const std::byte> mine, Deadline deadline) {
  if (failure_) return tl::unexpected<Error>(*failure_);
  ++op_;
  std::vector<Bytes> parts(static_cast<std::size_t>(ranks_));
  if (rank_ == 0) {
    parts[0].assign(mine.begin(), mine.end());
    if (ranks_ == 1) return parts;
    GRADRAIL_TRY(take_parts(Kind::gather, &parts, deadline));
    ByteWriter all;
    for (const auto& part : parts) all.put_block(part);
    GRADRAIL_TRY(send_outcome(Kind::gather, std::move(all).take(), deadline));
    return parts;
  }
  // Should sending fail, rank 0 may have said why before it closed: the answer is read in any case.
  const auto sent = send_frame(link(0).fd.get(), frame_of(Kind::gather, op_, mine), deadline);
  GRADRAIL_ASSIGN(const auto all, outcome(Kind::gather, sent ? deadline : Deadline::after(Seconds(0))));
  ByteReader in(all);
  for (auto& part : parts) {
    const auto block = in.get_block();
    part.assign(block.begin(), block.end());
  }
  if (!in.ok() || in.left() != 0) {
    return fails({Code::malformed, fmt::format("what {} gathered does not parse", name(0)), 0, 0});
  }
  return parts;
}

Result<Bytes> Star::broadcast(std::span<const std::byte> from_rank_0, Deadline deadline) {
  if (failure_) return tl::unexpected<Error>(*failure_);
  ++op_;
  if (rank_ != 0) return outcome(Kind::broadcast, deadline);
  if (ranks_ > 1) {
    GRADRAIL_TRY(take_parts(Kind::broadcast, nullptr, deadline));
    GRADRAIL_TRY(send_outcome(Kind::broadcast, from_rank_0, deadline));
  }
  return Bytes(from_rank_0.begin(), from_rank_0.end());
}

void Star::give_up(const Error& why) {
  if (told_by_rank_0_) {
    // An echo of what rank 0 tells itself: the launcher may know it, a terminal need not.
    auto echo = why;
    echo.code = Code::poisoned;
    if (report_) tell(report_.get(), rank_, echo);
    return;
  }
  tell(report_.get(), rank_, why);
  if (!failure_) [[maybe_unused]]
    const auto told = fails(why);
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "an unnamed host";
  return name.data();
}

void tell(int report, int rank, const Error& why) {
  if (report >= 0) {
    const auto packet = encode(Report{rank, why.code, why.peer, why.message});
    // The pipe does not block; a full one holds many other reports already.
    if (::write(report, packet.data(), packet.size()) == static_cast<ssize_t>(packet.size())) return;
  }
  const auto line =
      rank < 0 ? fmt::format("gradrail: {}\n", why.message)
               : fmt::format("gradrail: rank {} (pid {} on {}): {}\n", rank, getpid(), host_name(), why.message);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

Result<std::unique_ptr<Bootstrap>> form_star(StarOptions options) {
  auto star = std::make_unique<Star>(std::move(options));
  if (auto formed = star->form(); !formed) {
    star->give_up(formed.error());
    return tl::unexpected<Error>(std::move(formed).error());
  }
  return std::unique_ptr<Bootstrap>(std::move(star));
}

}  // namespace gradrail
