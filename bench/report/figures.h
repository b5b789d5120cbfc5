// Figures as people read them: enough digits to tell two measurements apart, and no more than a clock can mean.
#pragma once

#include <string>

namespace gradrail {

// Without unit, for columns in microseconds: "0.087", "10.52", "262.1", "13216"; "-" for what is not a number.
[[nodiscard]] std::string format_us(double us);
// Without unit, for columns in GB/s: "0.046", "9.80", "142.7".
[[nodiscard]] std::string format_gbs(double gbs);
// With the unit that fits: "58 ns", "10.5 us", "33.0 ms", "1.25 s".
[[nodiscard]] std::string format_duration(double us);
// For waiting people: "8 s", "1 min 20 s", "2 h 5 min".
[[nodiscard]] std::string format_wait(double seconds);
// "1.84x", "12x".
[[nodiscard]] std::string format_factor(double factor);

}  // namespace gradrail
