// A plan for people and for other programs: text, JSON (and back), SVG.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

// One table a rank: step, lane, operation, peer, chunks, places, after.
[[nodiscard]] std::string to_text(const Schedule& schedule);
// {"schema":1,"shape":{...},"programs":[{"rank":0,"grid":4,"planes":0,"steps":[...]}]}
[[nodiscard]] std::string to_json(const Schedule& schedule);
// Errors: malformed, naming the field. Every number is checked against its range.
[[nodiscard]] Result<Schedule> schedule_from_json(std::string_view text);
// Ranks as rows, rounds as columns, messages as arrows; colours are lanes. A round is a message's time if all take
// equally long and none waits for its receive. Legible for up to about 16 ranks. The schedule must be one that verify()
// accepts. `title` goes in front of the headline: the algorithm's name.
[[nodiscard]] std::string to_svg(const Schedule& schedule, std::string_view title = {});

// The names used in all of them: "recv_reduce", "scratch".
[[nodiscard]] std::string_view to_string(Op op);
[[nodiscard]] std::string_view to_string(Store store);
// "in 0..3", "scratch1 4": a run of chunks, first and last.
[[nodiscard]] std::string to_string(Place place, std::uint32_t chunks);

}  // namespace gradrail
