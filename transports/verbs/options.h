// What a user may say about RDMA devices, as one text: "device=mlx5_0+mlx5_1,gid=3,timeout=18". Everything has a
// default. The text is Settings::verbs, or where that is empty the variable GRADRAIL_VERBS. All ranks may differ in
// device, port and GID; path MTU is the smaller of two peers', unless one asked for more; rails and pairs are the same
// on all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "transports/base/result.h"
#include "transports/memory_path.h"

namespace gradrail::verbs {

struct Options {
  std::vector<std::string> devices;  // ranks take them in turn; empty: all that have an active port
  int rails = 1;                     // so many for each rank; its pipes (lanes) begin with them in turn, and use all
  int pairs = 1;                     // queue pairs a pipe and rail; long messages are striped over all of a pipe's
  int srq = 0;                       // 1: queue pairs of a device share their receives
  bool by_cm = false;                // connect=cm: queue pairs connect by rdma_cm; else by what ranks tell each other
  int port = 0;                      // 0: the first active one
  int gid_index = -1;                // -1: chosen, see device.h
  std::string gid_kind;              // gid=ipv4, ipv6, link-local (all RoCE v2) or v1: the first of that kind
  int mtu = 0;                       // bytes of the path MTU; 0: the port's
  int timeout = 16;                  // a packet is sent again after 4.096 us * 2^timeout: 0.27 s
  int retry = 6;                     // so often, before the peer counts as lost; 7 is for ever on some devices (rxe)
  int traffic_class = 0;
  int service_level = 0;
  int inline_bytes = 512;             // at most, and as far as the device can
  int cache_mib = 256;                // memory that stays registered when nobody uses it, at most; see registrations.h
  int chunk_kib = 256;                // of copies from a GPU that the device does not reach; see staging.h
  MemoryPath gpu = MemoryPath::host;  // the only way to reach memory of GPUs; host: the best there is
};

// Errors: bad_usage, naming what is known.
[[nodiscard]] Result<Options> parse_options(std::string_view text);

}  // namespace gradrail::verbs
