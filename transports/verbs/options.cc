#include "transports/verbs/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "transports/verbs/wire.h"

namespace gradrail::verbs {
namespace {

struct Number {
  std::string_view name;
  int Options::*field;
  int least, most;
};
constexpr std::array k_numbers{
    Number{"rails", &Options::rails, 1, int{k_most_rails}},
    Number{"pairs", &Options::pairs, 1, int{k_most_pairs}},
    Number{"srq", &Options::srq, 0, 1},
    Number{"port", &Options::port, 1, 255},
    Number{"gid", &Options::gid_index, 0, 65535},
    Number{"mtu", &Options::mtu, 256, 4096},
    Number{"timeout", &Options::timeout, 1, 31},
    Number{"retry", &Options::retry, 0, 7},
    Number{"traffic_class", &Options::traffic_class, 0, 255},
    Number{"service_level", &Options::service_level, 0, 15},
    Number{"inline", &Options::inline_bytes, 0, 65536},
    Number{"cache", &Options::cache_mib, 0, 1 << 20},
    Number{"chunk", &Options::chunk_kib, 8, 64 << 10},
};

struct Way {
  std::string_view name;
  MemoryPath path;
};
constexpr std::array k_ways{Way{"best", MemoryPath::host}, Way{"dma-buf", MemoryPath::dma_buf},
                            Way{"peermem", MemoryPath::peer_memory}, Way{"staged", MemoryPath::staged}};

constexpr std::array<std::string_view, 4> k_gid_kinds{"ipv4", "ipv6", "link-local", "v1"};

std::string_view next_of(std::string_view& text, char separator) {
  const auto end = text.find(separator);
  const auto one = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  return one;
}

}  // namespace

Result<Options> parse_options(std::string_view text) {
  Options options;
  while (!text.empty()) {
    auto value = next_of(text, ',');
    const auto name = next_of(value, '=');
    if (name == "device") {
      while (!value.empty()) options.devices.emplace_back(next_of(value, '+'));
      continue;
    }
    if (name == "gpu") {
      const auto* way = std::find_if(k_ways.begin(), k_ways.end(), [&](const auto& one) { return one.name == value; });
      if (way == k_ways.end())
        return fail(Code::bad_usage,
                    fmt::format("verbs setting gpu is best, dma-buf, peermem or staged, not '{}'", value));
      options.gpu = way->path;
      continue;
    }
    if (name == "gid" && std::find(k_gid_kinds.begin(), k_gid_kinds.end(), value) != k_gid_kinds.end()) {
      options.gid_kind = value;
      options.gid_index = -1;
      continue;
    }
    if (name == "connect") {
      if (value != "cm" && value != "exchange")
        return fail(Code::bad_usage, fmt::format("verbs setting connect is exchange or cm, not '{}'", value));
      options.by_cm = value == "cm";
      continue;
    }
    const auto* known =
        std::find_if(k_numbers.begin(), k_numbers.end(), [&](const auto& one) { return one.name == name; });
    if (known == k_numbers.end()) {
      std::string names = "device, gpu, connect";
      for (const auto& one : k_numbers) names += fmt::format(", {}", one.name);
      return fail(Code::bad_usage, fmt::format("verbs has no setting '{}'; it has {}", name, names));
    }
    int& field = options.*known->field;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), field);
    if (error != std::errc() || end != value.data() + value.size() || field < known->least || field > known->most)
      return fail(Code::bad_usage, fmt::format("verbs setting {} is a whole number from {} to {}, not '{}'", name,
                                               known->least, known->most, value));
  }
  if (options.mtu != 0 && (options.mtu & (options.mtu - 1)) != 0)
    return fail(Code::bad_usage,
                fmt::format("verbs setting mtu is 256, 512, 1024, 2048 or 4096, not '{}'", options.mtu));
  if (options.rails * options.pairs > int{k_most_pairs})
    return fail(Code::bad_usage,
                fmt::format("verbs settings rails={} and pairs={} make {} queue pairs a pipe; at most {} "
                            "are possible",
                            options.rails, options.pairs, options.rails * options.pairs, k_most_pairs));
  return options;
}

}  // namespace gradrail::verbs
