#include "transports/bootstrap/pmix.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include <array>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "transports/socket.h"

#if GRADRAIL_HAVE_PMIX
#include <pmix.h>
#endif

namespace gradrail {

#if GRADRAIL_HAVE_PMIX
namespace {

constexpr char k_key[] = "gradrail.rendezvous";

tl::unexpected<Error> pmix_fails(std::string_view what, pmix_status_t status) {
  return fail(Code::unavailable,
              fmt::format("{}: the PMIx server of mpirun or srun says {}", what, PMIx_Error_string(status)));
}

class PmixClient final : public Pmix {
 public:
  explicit PmixClient(const pmix_proc_t& self) : self_(self) {}
  ~PmixClient() override { PMIx_Finalize(nullptr, 0); }

  [[nodiscard]] Result<void> learn() {
    GRADRAIL_ASSIGN(const auto ranks, job_number(PMIX_JOB_SIZE));
    ranks_ = static_cast<int>(ranks);
    // A server that does not tell costs a listener on all addresses, no more.
    const auto local = job_number(PMIX_LOCAL_SIZE);
    one_host_ = local && *local == ranks;
    if (ranks_ < 1 || rank() < 0 || rank() >= ranks_) {
      return fail(Code::malformed, fmt::format("PMIx speaks of rank {} of {} ranks", self_.rank, ranks));
    }
    return {};
  }

  [[nodiscard]] int rank() const override { return static_cast<int>(self_.rank); }
  [[nodiscard]] int ranks() const override { return ranks_; }
  [[nodiscard]] bool one_host() const override { return one_host_; }

  [[nodiscard]] Result<void> put(const std::string& text) override {
    pmix_value_t value;
    PMIX_VALUE_CONSTRUCT(&value);
    value.type = PMIX_STRING;
    value.data.string = strdup(text.c_str());
    auto status = PMIx_Put(PMIX_GLOBAL, k_key, &value);
    PMIX_VALUE_DESTRUCT(&value);
    if (status == PMIX_SUCCESS) status = PMIx_Commit();
    if (status != PMIX_SUCCESS) return pmix_fails("publishing rank 0's address", status);
    return {};
  }

  // Without a fence: whoever is late keeps nobody else, and rank 0 can name it. A server that is asked while rank 0
  // publishes may say that there is nothing, so that answer only means "not yet".
  [[nodiscard]] Result<std::string> get(Deadline deadline) override {
    constexpr auto k_pause = std::chrono::milliseconds(20);
    for (;;) {
      GRADRAIL_ASSIGN(auto text, ask(deadline));
      if (text) return std::move(*text);
      if (deadline.passed()) return not_published();
      std::this_thread::sleep_for(k_pause);
    }
  }

 private:
  [[nodiscard]] static tl::unexpected<Error> not_published() {
    return fail(Code::timed_out, "rank 0 has not published its address through PMIx", 0);
  }

  // Asks once; nothing if the server knows of nothing.
  [[nodiscard]] Result<std::optional<std::string>> ask(Deadline deadline) const {
    struct Answer {
      std::mutex mutex;
      std::condition_variable came;
      bool done = false;
      pmix_status_t status = PMIX_ERROR;
      std::string text;
    };
    // Shared with the callback, which may come after the deadline.
    auto answer = std::make_shared<Answer>();
    auto* const handed = new std::shared_ptr<Answer>(answer);
    const auto callback = [](pmix_status_t status, pmix_value_t* value, void* context) {
      const std::unique_ptr<std::shared_ptr<Answer>> owner(static_cast<std::shared_ptr<Answer>*>(context));
      Answer& to = **owner;
      const std::lock_guard lock(to.mutex);
      to.done = true;
      to.status = status;
      if (status == PMIX_SUCCESS && value != nullptr && value->type == PMIX_STRING) to.text = value->data.string;
      to.came.notify_all();
    };
    pmix_proc_t rank_0;
    PMIX_LOAD_PROCID(&rank_0, self_.nspace, 0);
    if (const auto status = PMIx_Get_nb(&rank_0, k_key, nullptr, 0, callback, handed); status != PMIX_SUCCESS) {
      delete handed;
      return pmix_fails("asking for rank 0's address", status);
    }
    std::unique_lock lock(answer->mutex);
    if (!answer->came.wait_until(lock, deadline.when(), [&] { return answer->done; })) return not_published();
    if (answer->status == PMIX_ERR_NOT_FOUND) return std::nullopt;
    if (answer->status != PMIX_SUCCESS) return pmix_fails("asking for rank 0's address", answer->status);
    return answer->text;
  }

  [[nodiscard]] Result<std::uint32_t> job_number(const char* key) const {
    pmix_proc_t everyone;
    PMIX_LOAD_PROCID(&everyone, self_.nspace, PMIX_RANK_WILDCARD);
    pmix_value_t* value = nullptr;
    const auto status = PMIx_Get(&everyone, key, nullptr, 0, &value);
    if (status != PMIX_SUCCESS || value == nullptr) return pmix_fails("asking for the size of the job", status);
    std::uint32_t number = 0;
    const bool sound = value->type == PMIX_UINT32;
    if (sound) number = value->data.uint32;
    PMIX_VALUE_RELEASE(value);
    if (!sound) return fail(Code::malformed, "PMIx tells the size of the job in an unknown type");
    return number;
  }

  pmix_proc_t self_;
  int ranks_ = 0;
  bool one_host_ = false;
};

}  // namespace

Result<std::unique_ptr<Pmix>> Pmix::connect() {
  pmix_proc_t self;
  if (const auto status = PMIx_Init(&self, nullptr, 0); status != PMIX_SUCCESS) {
    return pmix_fails("joining the job", status);
  }
  auto client = std::make_unique<PmixClient>(self);
  GRADRAIL_TRY(client->learn());
  return std::unique_ptr<Pmix>(std::move(client));
}

#else

Result<std::unique_ptr<Pmix>> Pmix::connect() {
  return fail(Code::unavailable, "this build of gradrail lacks PMIx; install libpmix-dev and build again");
}

#endif

namespace {

// Numeric addresses of interfaces that are up: IPv4, or, where there are none, IPv6. Loopback and link-local left out.
std::vector<std::string> own_addresses(int family) {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != family) continue;
    if ((one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    std::array<char, NI_MAXHOST> host{};
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (getnameinfo(one->ifa_addr, size, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    const std::string text = host.data();
    if (text.find('%') == text.npos) found.push_back(text);
  }
  return found;
}

// "HEX PORT ADDRESS ADDRESS ..."
Result<PmixMeeting> parse(std::string_view text) {
  const auto word = [&] {
    const auto end = std::min(text.find(' '), text.size());
    const auto one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return one;
  };
  PmixMeeting meeting;
  GRADRAIL_ASSIGN(meeting.secret, Secret::from_hex(word()));
  const auto port_text = word();
  int port = 0;
  const auto [end, failed] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  while (!text.empty()) meeting.meetings.push_back({std::string(word()), port});
  if (failed != std::errc() || end != port_text.data() + port_text.size() || meeting.meetings.empty()) {
    return fail(Code::malformed, "the address of rank 0 does not parse");
  }
  return meeting;
}

}  // namespace

Result<PmixMeeting> meet_through(Pmix& pmix, Deadline deadline) {
  if (pmix.rank() != 0) {
    GRADRAIL_ASSIGN(const auto text, pmix.get(deadline));
    return parse(text);
  }
  std::string listen_on = "127.0.0.1";
  std::vector<std::string> addresses;
  if (!pmix.one_host()) {
    listen_on = "0.0.0.0";
    addresses = own_addresses(AF_INET);
    if (addresses.empty()) {
      listen_on = "::";
      addresses = own_addresses(AF_INET6);
    }
    if (addresses.empty()) listen_on = "127.0.0.1";
  }
  if (addresses.empty()) addresses.push_back(listen_on);
  PmixMeeting meeting;
  GRADRAIL_ASSIGN(meeting.secret, Secret::random());
  GRADRAIL_ASSIGN(meeting.listener, listen_tcp(listen_on, 0));
  GRADRAIL_ASSIGN(const int port, local_port(meeting.listener.get()));
  GRADRAIL_TRY(pmix.put(fmt::format("{} {} {}", meeting.secret.hex(), port, fmt::join(addresses, " "))));
  return meeting;
}

}  // namespace gradrail
