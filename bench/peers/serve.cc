#include "bench/peers/serve.h"

#include <fmt/format.h>
#include <malloc.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <limits>
#include <thread>

#include "bench/measure/payload.h"
#include "bench/peers/messages.h"
#include "transports/base/cores.h"
#include "transports/socket.h"

namespace gradrail {

namespace {

constexpr Seconds k_driver_reads{60};
// An idle runner waits for the driver as long as that lives; its end closes the socket.
constexpr Seconds k_next_order{24 * 3600};

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

Result<Fd> connect_to_driver(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(Code::bad_usage, "the control socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("making the control socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno("connecting to the driver", errno);
  return fd;
}

// Ends the process as soon as the driver's end of the socket is gone, even while a library waits for ever.
class Watch {
 public:
  explicit Watch(int fd) : fd_(fd) {
    std::thread([this] {
      pollfd entry{fd_, POLLRDHUP, 0};
      while (::poll(&entry, 1, -1) < 0 && errno == EINTR) {
      }
      if (!over_.load()) ::_exit(1);
    }).detach();
  }
  void stop() { over_.store(true); }

 private:
  int fd_;
  std::atomic<bool> over_ = false;
};

class Server {
 public:
  Server(PeerLibrary& library, int fd) : library_(library), fd_(fd) {}

  Result<void> run() {
    while (true) {
      GRADRAIL_ASSIGN(const Bytes bytes, receive_frame(fd_, k_longest_peer_message, Deadline::after(k_next_order)));
      GRADRAIL_ASSIGN(const PeerRequest request, decode_peer_request(bytes));
      PeerReply reply;
      if (auto done = obey(request, reply); !done) {
        reply = {};
        reply.error = std::move(done).error();
      }
      GRADRAIL_TRY(send_frame(fd_, encode(reply), Deadline::after(k_driver_reads)));
      if (request.order == PeerOrder::end) return {};
    }
  }

 private:
  Result<void> obey(const PeerRequest& request, PeerReply& reply) {
    switch (request.order) {
      case PeerOrder::prepare: return prepare(request, reply);
      case PeerOrder::measure: return measure(request, reply);
      case PeerOrder::release:
      case PeerOrder::end: release(); return {};
    }
    return {};
  }

  void release() {
    library_.forget();
    buffers_.reset();
    ::malloc_trim(0);  // libraries' scratch, too: others may need it
  }

  Result<void> once() {
    buffers_->place(call_, library_.rank(), library_.ranks());
    return library_.run(call_);
  }

  Result<void> prepare(const PeerRequest& request, PeerReply& reply) {
    release();
    call_ = request.call;
    const int rank = library_.rank();
    const int ranks = library_.ranks();
    if (request.cache == Cache::rotate && !library_.takes_other_buffers())
      return fail(Code::unsupported, "this algorithm was made for one pair of buffers, and cannot rotate them");
    const std::uint64_t bytes =
        call_.count * size_of(call_.type) * (is_blocked(call_.collective) ? static_cast<std::uint64_t>(ranks) : 1);
    GRADRAIL_ASSIGN(buffers_, Buffers::make_plain(bytes, request.cache));
    buffers_->place(call_, rank, ranks);
    GRADRAIL_TRY(library_.prepare(call_));
    if (request.check) {
      const Payload payload(call_.collective, call_.count, call_.type, call_.op, ranks, call_.root, request.seed);
      const auto in = Buffers::in_bytes(call_, rank, ranks);
      const auto out = Buffers::out_bytes(call_, rank, ranks);
      // Whatever an earlier call left there must not pass for an answer.
      if (out > 0) std::memset(call_.out.data(), 0xA5, out);
      if (in > 0) payload.fill(rank, {call_.in.data(), in});
      GRADRAIL_TRY(library_.load(call_, in));
      GRADRAIL_TRY(library_.barrier());
      GRADRAIL_TRY(library_.run(call_));
      GRADRAIL_TRY(library_.store(call_, out));
      reply.wrong = payload.count_wrong(rank, {call_.out.data(), out});
    }
    for (int i = 0; i < std::max(1, request.warmup); ++i) GRADRAIL_TRY(once());
    GRADRAIL_TRY(library_.barrier());
    // As in block.cc.
    reply.operation_us = std::numeric_limits<double>::infinity();
    constexpr int k_estimate = 5;
    for (int i = 0; i < k_estimate; ++i) {
      buffers_->before_sample();
      const auto begin = Clock::now();
      GRADRAIL_TRY(once());
      reply.operation_us = std::min(reply.operation_us, microseconds_since(begin));
    }
    GRADRAIL_TRY(library_.barrier());
    const auto barriers = Clock::now();
    for (int i = 0; i < k_estimate; ++i) GRADRAIL_TRY(library_.barrier());
    reply.barrier_us = microseconds_since(barriers) / k_estimate;
    return {};
  }

  Result<void> measure(const PeerRequest& request, PeerReply& reply) {
    if (!buffers_) return fail(Code::bad_usage, "there is nothing prepared to measure");
    reply.samples_us.reserve(static_cast<std::size_t>(std::max(0, request.samples)));
    GRADRAIL_TRY(once());  // its code and data come back into the caches
    for (int sample = 0; sample < request.samples; ++sample) {
      buffers_->before_sample();
      GRADRAIL_TRY(library_.barrier());
      // As in block.cc: what is the harness's own is done once a sample.
      buffers_->place(call_, library_.rank(), library_.ranks());
      const auto begin = Clock::now();
      for (int i = 0; i < request.batch; ++i) {
        if (i > 0 && buffers_->rotates()) buffers_->place(call_, library_.rank(), library_.ranks());
        GRADRAIL_TRY(library_.run(call_));
      }
      reply.samples_us.push_back(microseconds_since(begin) / request.batch);
    }
    // Nobody falls asleep while another still needs it to move the last bytes.
    return library_.barrier();
  }

  PeerLibrary& library_;
  int fd_;
  Call call_;
  std::optional<Buffers> buffers_;
};

}  // namespace

Result<RunnerArguments> parse_runner_arguments(int argc, char** argv) {
  RunnerArguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (i + 1 >= argc) return fail(Code::bad_usage, fmt::format("{} needs a value", option));
    const std::string_view value = argv[++i];
    const auto number = [&](int& into) -> Result<void> {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), into);
      if (error == std::errc() && end == value.data() + value.size()) return {};
      return fail(Code::bad_usage, fmt::format("{} is a number, not '{}'", option, value));
    };
    if (option == "--control") {
      arguments.control = value;
    } else if (option == "--variant") {
      arguments.variant = value;
    } else if (option == "--folder") {
      arguments.folder = value;
    } else if (option == "--interface") {
      arguments.interface = value;
    } else if (option == "--rank") {
      GRADRAIL_TRY(number(arguments.rank));
    } else if (option == "--ranks") {
      GRADRAIL_TRY(number(arguments.ranks));
    } else if (option == "--core") {
      GRADRAIL_TRY(number(arguments.core));
    } else {
      return fail(Code::bad_usage, fmt::format("'{}' is no option of a runner", option));
    }
  }
  if (arguments.control.empty())
    return fail(Code::bad_usage, "this is one rank of another library, started by gradrail bench --against");
  return arguments;
}

int serve(const char* name, int argc, char** argv, const OpenLibrary& open) {
  const auto failed = [&](const Error& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.message.c_str());
    return error.code == Code::bad_usage ? 2 : 1;
  };
  const auto arguments = parse_runner_arguments(argc, argv);
  if (!arguments) return failed(arguments.error());
  if (arguments->core >= 0)
    if (const auto bound = bind_to_core(arguments->core); !bound) return failed(bound.error());
  const auto fd = connect_to_driver(arguments->control);
  if (!fd) return failed(fd.error());
  static Watch watch(fd->get());  // its thread outlives this function
  auto library = open(*arguments);
  if (!library) return failed(library.error());
  const PeerHello hello{(*library)->rank(), (*library)->ranks(), (*library)->version()};
  if (const auto sent = send_frame(fd->get(), encode(hello), Deadline::after(k_driver_reads)); !sent)
    return failed(sent.error());
  const auto served = Server(**library, fd->get()).run();
  watch.stop();
  if (!served) return failed(served.error());
  library->reset();
  return 0;
}

}  // namespace gradrail
