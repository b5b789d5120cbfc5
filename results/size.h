// Sizes as people type and read them: "256M" and "256 MiB". K, M, G and T are powers of 1024, as in nccl-tests, with or
// without B or iB behind them, in upper or lower case.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "transports/base/result.h"

namespace gradrail {

// At least 1 byte. A fraction is taken if it comes to whole bytes: "1.5K" is 1536. Anything else is bad_usage with a
// sentence that quotes the text.
[[nodiscard]] Result<std::int64_t> parse_size(std::string_view text);

// "4 KiB", "1.5 KiB", "1000 B". Rounded to two decimals where the bytes do not come out even; what is exact parses back
// to the same number.
[[nodiscard]] std::string format_size(std::int64_t bytes);

}  // namespace gradrail
