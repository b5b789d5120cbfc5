#include "transports/ucx/flights.h"

namespace gradrail::ucx {
namespace {

void finish(Flight& flight, ucs_status_t status) {
  --flight.of->under_way;
  flight.status = status;
  flight.done = true;
  flight.request = nullptr;
}

void sent(void* request, ucs_status_t status, void* data) {
  finish(*static_cast<Flight*>(data), status);
  ucp_request_free(request);
}

void received(void* request, ucs_status_t status, const ucp_tag_recv_info_t* info, void* data) {
  auto& flight = *static_cast<Flight*>(data);
  finish(flight, status);
  flight.tag = info->sender_tag;
  if (status == UCS_OK) flight.size = info->length;
  if (status != UCS_ERR_CANCELED && &flight != &flight.of->hello_recv) ++flight.of->arrived;
  ucp_request_free(request);
}

void begin(Flight& flight, ucp_request_param_t& how) {
  ++flight.of->under_way;
  flight.done = false;
  flight.request = nullptr;
  how.op_attr_mask |= UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  how.user_data = &flight;
}

}  // namespace

void Flights::begin_send(Flight& flight, ucp_request_param_t& how) {
  begin(flight, how);
  how.cb.send = &sent;
}

// What came before its receive is told by the callback too, and that from within the call: UCX 1.13 does not fill in
// what it knows of such a message otherwise.
void Flights::begin_recv(Flight& flight, ucp_request_param_t& how) {
  begin(flight, how);
  how.op_attr_mask |= UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  how.cb.recv = &received;
}

void Flights::began(Flight& flight, void* request) {
  if (flight.done) return;
  if (UCS_PTR_IS_PTR(request)) {
    flight.request = request;
  } else {
    finish(flight, UCS_PTR_STATUS(request));
  }
}

void Flights::cancel_recvs(ucp_worker_h worker) {
  for (auto& one : recvs)
    if (one.request != nullptr) ucp_request_cancel(worker, one.request);
  if (hello_recv.request != nullptr) ucp_request_cancel(worker, hello_recv.request);
}

}  // namespace gradrail::ucx
