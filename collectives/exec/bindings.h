// What a communicator has bound so far: plans by shape, and their bindings by what calls must share to share one.
// Private to the communicator's sources.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>

#include "collectives/exec/coded_program.h"
#include "collectives/exec/communicator.h"
#include "collectives/exec/exchange.h"
#include "collectives/exec/gathering.h"

namespace gradrail {

struct Communicator::Bound {
  Ran ran;
  BoundProgram program;
  // What carries it out is one of these.
  std::unique_ptr<Execution> execution;
  std::unique_ptr<Gathering> gathering;
  std::unique_ptr<ExchangeRun> exchange;  // of encoded data
  std::uint64_t used = 0;                 // when it was last looked up, as a count of look-ups
};

struct Communicator::Bindings {
  struct Key {
    Collective collective;
    std::uint64_t count;
    Type type;
    ReduceOp op;
    int root;
    bool in_place;
    int lanes;
    int pieces;
    std::size_t place;
    bool direct;  // the output is memory that peers reach themselves
    std::string algorithm;
  };
  // A call finds its binding without making a Key.
  struct Lookup {
    const Call& call;
    std::size_t place;
    bool direct;
  };

  static auto fields(const auto& key, std::size_t place, bool direct) {
    return std::make_tuple(key.count, place, direct, key.collective, key.type, key.op, key.root, key.in_place,
                           key.lanes, key.pieces, std::string_view(key.algorithm));
  }
  static auto fields(const Key& key) { return fields(key, key.place, key.direct); }
  static auto fields(const Lookup& lookup) { return fields(lookup.call, lookup.place, lookup.direct); }
  [[nodiscard]] static bool same(const Lookup& a, const Key& b) {
    const Call& call = a.call;
    return call.count == b.count && a.place == b.place && a.direct == b.direct && call.collective == b.collective &&
           call.type == b.type && call.op == b.op && call.root == b.root && call.in_place == b.in_place &&
           call.lanes == b.lanes && call.pieces == b.pieces && call.algorithm == b.algorithm;
  }
  struct Less {
    using is_transparent = void;
    bool operator()(const auto& a, const auto& b) const { return fields(a) < fields(b); }
  };

  // So many are kept; then the one that was not used for longest goes, and is bound anew if it is called again. All
  // ranks make the same calls, so all drop the same.
  static constexpr std::size_t k_most = 512;
  static constexpr std::size_t k_most_programs = 128;

  std::map<Key, std::unique_ptr<Bound>, Less> all;
  struct Planned {
    Program program;
    std::uint64_t used = 0;
  };
  std::map<std::string, Planned> programs;  // by algorithm and shape; many sizes share one
  std::uint64_t lookups = 0;
  // The binding used last is looked at first.
  const Key* last_key = nullptr;
  Bound* last = nullptr;
};

struct Communicator::Encodings {
  // Whatever calls must share to share the state of codecs; with the place in flight, to share a binding.
  struct Key {
    std::string codec;
    std::string algorithm;
    std::uint64_t count;
    std::uint64_t seed;
    std::uint32_t tensor;
    CodecWhere where;
    Collective collective;
    ReduceOp op;
    bool in_place;
    int lanes;
    int pieces;
    std::size_t place;
  };
  struct Lookup {
    const Call& call;
    std::size_t place;
  };
  static auto fields(const Key& key) {
    return std::make_tuple(std::string_view(key.codec), std::string_view(key.algorithm), key.count, key.seed,
                           key.tensor, key.where, key.collective, key.op, key.in_place, key.lanes, key.pieces,
                           key.place);
  }
  static auto fields(const Lookup& lookup) {
    const Call& call = lookup.call;
    return std::make_tuple(call.coding.codec, call.algorithm, call.count, call.coding.seed, call.coding.tensor,
                           call.coding.where, call.collective, call.op, call.in_place, call.lanes, call.pieces,
                           lookup.place);
  }
  struct Less {
    using is_transparent = void;
    bool operator()(const auto& a, const auto& b) const { return fields(a) < fields(b); }
  };

  // States are not dropped for being old: what a codec has not sent yet would be lost. Bindings may be.
  static constexpr std::size_t k_most = 512;
  std::map<Key, std::unique_ptr<Bound>, Less> all;
  std::map<Key, std::shared_ptr<CodecState>, Less> states;  // place 0 stands for all
  std::map<std::string, Agreement> agreements;              // by algorithm and where data is encoded
  // What answers "auto" said of calls that bear an error.
  using Bearing = std::tuple<Collective, std::uint64_t, bool, Reached, double>;  // bytes, in place; error budget
  std::map<Bearing, Selection> chosen;
  std::uint64_t lookups = 0;
};

}  // namespace gradrail
