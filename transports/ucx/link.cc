#include "transports/ucx/link.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>

namespace gradrail::ucx {
namespace {

// How long a close may take that exchanges something with the peer.
constexpr Seconds k_close{1};

}  // namespace

Result<std::unique_ptr<Link>> Link::open(Worker& worker, const Introduction& own, const Introduction& peer,
                                         bool plain) {
  const bool one_host = !own.host.empty() && own.host == peer.host;
  const bool through_memory = one_host && own.shares_memory && peer.shares_memory;
  std::unique_ptr<Link> link(new Link(worker, peer.address, !through_memory && !plain));
  ucp_ep_params_t wish{};
  wish.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  wish.address = reinterpret_cast<const ucp_address_t*>(peer.address.data());
  wish.err_mode = UCP_ERR_HANDLING_MODE_NONE;
  if (link->handles_errors_) {
    wish.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER;
    wish.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    wish.err_handler.arg = link.get();
    wish.err_handler.cb = [](void* self, ucp_ep_h, ucs_status_t status) {
      static_cast<Link*>(self)->fail_with(status);
    };
  }
  forget_complaints();
  const auto status = ucp_ep_create(worker.id(), &wish, &link->endpoint_);
  if (status == UCS_OK) return link;
  link->endpoint_ = nullptr;
  if (status == UCS_ERR_UNREACHABLE)
    return fail(Code::unavailable,
                fmt::format("UCX has no way from one to the other: here are {}, there {}; set UCX_TLS and "
                            "UCX_NET_DEVICES to what both have ({})",
                            own.resources, peer.resources, complaint()));
  return fail(Code::system, fmt::format("UCX made no endpoint: {}{}{}", text_of(status),
                                        complaint().empty() ? "" : "; ", complaint()));
}

void Link::begin_flush() {
  if (given_up_ || failed()) return;
  const ucp_request_param_t plain{};
  void* const request = ucp_ep_flush_nbx(endpoint_, &plain);
  if (UCS_PTR_IS_PTR(request)) flush_ = request;
}

Link::~Link() {
  if (endpoint_ == nullptr) return;
  const bool quiet = flushed();
  if (flush_ != nullptr) ucp_request_free(flush_);
  // A close that is not forced waits for the peer, but without error handling there is no other; where the peer has
  // gone, the endpoint ends with the worker.
  if (!handles_errors_ && (given_up_ || failed() || !quiet)) return;
  ucp_request_param_t how{};
  how.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  how.flags = handles_errors_ ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  void* const request = ucp_ep_close_nbx(endpoint_, &how);
  if (!UCS_PTR_IS_PTR(request)) return;
  const auto until = Deadline::after(k_close);
  while (ucp_request_check_status(request) == UCS_INPROGRESS && !until.passed())
    if (!worker_.progress()) ::sched_yield();
  ucp_request_free(request);
}

void Link::fail_with(ucs_status_t status) {
  if (failed()) return;
  failure_ = status;
  failed_at_ = Clock::now();
}

std::string Link::lanes() const {
  // "#    lane[0]:  3:sysv/memory.0 md[2]   -> md[2]/sysv/sysdev[255] am am_bw#0"; there is no other way to ask.
  const auto text = printed([&](FILE* stream) { ucp_ep_print_info(endpoint_, stream); });
  std::string out;
  for (std::size_t at = text.find("lane["); at != std::string::npos; at = text.find("lane[", at + 1)) {
    const auto colon = text.find(':', text.find(':', at) + 1);
    const auto end = text.find_first_of(" \n", colon);
    if (colon == std::string::npos || end == std::string::npos) break;
    auto name = text.substr(colon + 1, end - colon - 1);
    name = name.substr(0, name.rfind('.'));
    if (out.find(name) != std::string::npos) continue;
    out += fmt::format("{}{}", out.empty() ? "" : " + ", name);
  }
  return out;
}

std::string host_identity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  if (!std::getline(file, boot)) return {};
  std::array<char, 64> space{};
  if (::readlink("/proc/self/ns/ipc", space.data(), space.size() - 1) < 0) return {};
  struct stat memory {};
  if (::stat("/dev/shm", &memory) != 0) return {};
  return fmt::format("{} {} {}", boot, space.data(), memory.st_dev);
}

}  // namespace gradrail::ucx
