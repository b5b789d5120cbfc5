#include "transports/verbs/cause.h"

#include <fmt/format.h>

#include <cmath>

namespace gradrail::verbs {

std::string_view name_of(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS: return "success";
    case IBV_WC_LOC_LEN_ERR: return "local length error";
    case IBV_WC_LOC_QP_OP_ERR: return "local queue pair operation error";
    case IBV_WC_LOC_PROT_ERR: return "local protection error";
    case IBV_WC_WR_FLUSH_ERR: return "work request flushed";
    case IBV_WC_MW_BIND_ERR: return "memory window bind error";
    case IBV_WC_BAD_RESP_ERR: return "bad response";
    case IBV_WC_LOC_ACCESS_ERR: return "local access error";
    case IBV_WC_REM_INV_REQ_ERR: return "remote invalid request";
    case IBV_WC_REM_ACCESS_ERR: return "remote access error";
    case IBV_WC_REM_OP_ERR: return "remote operation error";
    case IBV_WC_RETRY_EXC_ERR: return "retry exceeded";
    case IBV_WC_RNR_RETRY_EXC_ERR: return "receiver not ready, retry exceeded";
    case IBV_WC_REM_ABORT_ERR: return "remote aborted";
    case IBV_WC_FATAL_ERR: return "fatal error";
    case IBV_WC_RESP_TIMEOUT_ERR: return "response timed out";
    default: return "general error";
  }
}

Cause cause_of(ibv_wc_status status, std::uint32_t vendor_error, const Where& where) {
  const auto sentence = [&](std::string_view what) {
    auto text = fmt::format("{}, from {}: {} (status {}: {}", where.peer, where.device, what, static_cast<int>(status),
                            name_of(status));
    if (vendor_error != 0) text += fmt::format(", vendor error {:#x}", vendor_error);
    text += ")";
    if (!where.note.empty()) text += fmt::format("; {}", where.note);
    return text;
  };
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR: {
      const double seconds = 4.096e-6 * std::ldexp(1.0, where.timeout) * (where.retry + 1);
      return {
          Code::peer_gone,
          sentence(fmt::format("no packet was acknowledged in {} tries over about {:.2g} s; its process or host is "
                               "gone, the link is down, or the network drops RoCE packets (look at path MTU, GID and "
                               "priority flow control)",
                               where.retry + 1, seconds))};
    }
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {Code::peer_gone,
              sentence("it had no receive posted, again and again; it hangs, or runs another build of gradrail")};
    case IBV_WC_REM_ACCESS_ERR:
      return {
          Code::malformed,
          sentence("it does not allow writing where it said; it freed the memory before its receive was complete, or "
                   "this transport is wrong")};
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
      return {Code::peer_gone, sentence("it refused or could not finish an operation; its own message says why")};
    case IBV_WC_WR_FLUSH_ERR:
      return {Code::peer_gone, sentence("the queue pair was taken down after an earlier error")};
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
      return {Code::bad_usage,
              sentence("this rank's own memory is not registered (any more); it was freed before the operation ended")};
    case IBV_WC_LOC_LEN_ERR:
      return {Code::system, sentence("a message is longer than the device or the receive allows")};
    default: return {Code::system, sentence("the device gave up on an operation; see dmesg")};
  }
}

std::string_view name_of(ibv_event_type event) {
  switch (event) {
    case IBV_EVENT_CQ_ERR: return "completion queue error";
    case IBV_EVENT_QP_FATAL: return "queue pair fatal error";
    case IBV_EVENT_QP_REQ_ERR: return "queue pair request error";
    case IBV_EVENT_QP_ACCESS_ERR: return "queue pair access error";
    case IBV_EVENT_COMM_EST: return "communication established";
    case IBV_EVENT_SQ_DRAINED: return "send queue drained";
    case IBV_EVENT_PATH_MIG: return "path migrated";
    case IBV_EVENT_PATH_MIG_ERR: return "path migration failed";
    case IBV_EVENT_DEVICE_FATAL: return "device fatal error";
    case IBV_EVENT_PORT_ACTIVE: return "port active";
    case IBV_EVENT_PORT_ERR: return "port error";
    case IBV_EVENT_LID_CHANGE: return "LID changed";
    case IBV_EVENT_PKEY_CHANGE: return "partition keys changed";
    case IBV_EVENT_SM_CHANGE: return "subnet manager changed";
    case IBV_EVENT_GID_CHANGE: return "GIDs changed";
    case IBV_EVENT_SRQ_ERR: return "shared receive queue error";
    case IBV_EVENT_SRQ_LIMIT_REACHED: return "shared receive queue's limit reached";
    case IBV_EVENT_QP_LAST_WQE_REACHED: return "last work request reached";
    default: return "event";
  }
}

EventMeaning meaning_of(ibv_event_type event) {
  switch (event) {
    case IBV_EVENT_CQ_ERR: return {Reach::device, true, "a completion queue overflowed or failed"};
    case IBV_EVENT_SRQ_ERR: return {Reach::device, true, "a shared receive queue failed"};
    case IBV_EVENT_QP_FATAL: return {Reach::pair, true, "the device gave the queue pair up"};
    case IBV_EVENT_QP_REQ_ERR: return {Reach::pair, true, "the peer sent a request that is not valid"};
    case IBV_EVENT_QP_ACCESS_ERR:
      return {Reach::pair, true, "the peer wrote where it may not: to memory that is not, or no more, registered"};
    case IBV_EVENT_DEVICE_FATAL: return {Reach::device, true, "the device failed; see dmesg"};
    case IBV_EVENT_PORT_ERR: return {Reach::port, false, "the port went down"};
    case IBV_EVENT_PORT_ACTIVE: return {Reach::port, false, ""};
    case IBV_EVENT_LID_CHANGE: return {Reach::port, false, "the port's LID changed"};
    case IBV_EVENT_GID_CHANGE:
      return {Reach::port, false, "the port's GIDs changed: its address was taken away or given"};
    default: return {};
  }
}

}  // namespace gradrail::verbs
