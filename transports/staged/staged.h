// Memory of GPUs over a transport that moves memory of the host only, as a program moves it there: each message is
// copied from the GPU to pinned memory of the host, sent, received there, and copied to the other GPU. Several messages
// are under way at once, so that copies of some overlap the wire of others; one message is never cut, as the peer may
// have nothing of the kind. All that is of the host goes through as it is, in the same order.
//
// The decorator owns the inner transport. It belongs to one thread, like any transport, and must outlive its endpoints
// and regions.
#pragma once

#include <memory>
#include <string>

#include "transports/cuda_driver.h"
#include "transports/transport.h"

namespace gradrail {

// Wraps `inner`. `why`: not without copies, in a few words; regions of a GPU's memory say it (ChosenRegion::how()).
[[nodiscard]] std::unique_ptr<Transport> make_staged(std::unique_ptr<Transport> inner, CudaDriver& driver,
                                                     std::string why);

}  // namespace gradrail
