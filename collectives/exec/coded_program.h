// A plan with a codec on its wire: the same program, told for this rank in steps that encode, send, await and decode.
// Pure data, chunk by chunk; no sizes, no addresses. Each chunk that travels is encoded by itself.
//
// What decides: once a value has been encoded here, this rank too goes on with what the others decode, so that all
// ranks end with the same bits. Data that arrived encoded and was not touched since is sent on as the very bytes; a
// value that goes to several ranks is encoded once. A sum that travels on is encoded anew (a ring does so at each hop,
// which adds one codec error a hop; two shots do it once, at the rank that sums).
//
// Encoded data is never overwritten while a call runs: every message has a place of its own. Memory is touched by local
// steps alone, which are done in order; only what is left to be written into the result, and read by nothing any more,
// waits (`later`) until there is nothing else to do.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/exec/coding.h"
#include "collectives/plan/planner.h"
#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

// A run of chunks as it travels or is kept, one after the other.
struct CodedMessage {
  std::uint32_t chunk = 0;  // first of the run
  std::uint32_t chunks = 0;
  bool coded = true;       // else float32
  bool received = false;   // else made here
  std::uint16_t peer = 0;  // received: from whom
  std::uint8_t lane = 0;
};

// Where a step finds or puts the values of its chunk.
struct CodedPlace {
  bool wire = false;
  Place memory;               // of the chunk itself
  std::uint32_t message = 0;  // wire: in which message
};

struct CodedStep {
  enum class Kind : std::uint8_t {
    encode,  // floats (memory, or wire in float32) -> wire
    store,   // to = from: decodes, copies floats, or copies encoded bytes as they are
    add,     // memory to += from
    send,    // `chunks` of message from.message, from `chunk` on, to the peer
    await,   // until message from.message has arrived; before the first main step that needs it
  };
  Kind kind = Kind::send;
  bool own = false;  // encode: what this rank contributes itself, not a sum
  std::uint16_t peer = 0;
  std::uint32_t chunk = 0;
  std::uint32_t chunks = 1;
  CodedPlace from;
  CodedPlace to;
  std::uint32_t site = 0;   // encode: which of the rank's codecs
  std::uint32_t after = 0;  // later: main steps of the lane that come first; and what it reads has arrived
};

struct CodedLane {
  std::vector<CodedStep> main;
  std::vector<CodedStep> later;
};

struct CodedProgram {
  Shape shape;
  int rank = 0;
  std::uint32_t grid = 1;
  std::uint8_t planes = 0;
  std::vector<CodedMessage> messages;  // received ones in the order in which each channel brings them
  std::vector<CodedLane> lanes;
  std::uint32_t sites = 0;
};

// `round_trip`: a result that was summed here and need not be encoded for anybody is encoded all the same, because some
// other rank gets it encoded (see agreement_of()).
[[nodiscard]] CodedProgram coded(const Program& program, CodecWhere where, bool round_trip);

// Whether all ranks end with the same bits, found by running all ranks' coded programs on symbols.
struct Agreement {
  bool round_trip = false;  // needed for it
  int requantised = 0;      // the most codec errors that one contribution to a result goes through
};
// Of the planner's programs with one lane and one piece. Errors: unsupported (they would end with different bits, or
// the planner's own refusal).
[[nodiscard]] Result<Agreement> agreement_of(const Planner& planner, Shape shape, CodecWhere where);

}  // namespace gradrail
