// A codec turns float32 gradients into bytes for the wire and back. This is the interface, the header that every
// message opens with, and how a codec is named; each codec is one file and one line in list.cc.
//
// A Codec object belongs to one tensor of one rank and to one thread: some keep state between steps (what was not sent
// yet, a warm start). It owns that state and nothing else; the caller owns all spans. Decoding keeps no state.
//
// What comes off the wire is data of others: decode checks every length, count and index before it uses them, and a
// damaged message is an Error (malformed), never a crash. After an error the destination's values are unspecified.
//
// A value that is no finite number is never lost silently: it is carried as such, or the block of values around it
// becomes NaN on the other side; the header of each codec says which, and encode() reports that it happened.
//
// The bits of a message depend on nothing but the values, the origin and the codec's state: not on the instruction
// set, not on how a tensor was cut, as long as it is cut at multiples of traits().block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/types.h"
#include "transports/base/result.h"

namespace gradrail {

// Names the random numbers of a stochastic codec: the number for an element depends on these and on nothing else.
struct Origin {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t tensor = 0;
  std::uint32_t rank = 0;   // who contributes; ranks round independently of each other
  std::uint64_t first = 0;  // where the span begins in its tensor
};

struct Encoded {
  std::size_t bytes = 0;
  bool non_finite = false;  // a value was NaN or infinite, or is so in its encoded form
};

struct CodecTraits {
  bool fixed_size = false;  // a message for n values always has max_bytes(n) bytes
  bool stochastic = false;  // decode(encode(x)) is x on average
  bool sparse = false;      // values that were not sent decode as 0
  bool whole = false;       // cut into parts that are encoded one by one, a tensor takes more bytes
  // Messages are pairs as sparse.h has them, of so many values each: they may be cut and merged. 0: they are not.
  std::size_t pair_width = 0;
  std::size_t block = 1;  // values that are encoded together
  // Encoded data may be summed: two messages of the same count, and of an origin that differs in nothing but the rank,
  // have the same first `header_bytes`, and the values after them may be added one by one in this type.
  std::optional<Type> sums = std::nullopt;
  std::size_t header_bytes = 0;
};

// The matrix that a tensor is, for codecs that care; 0 by 0: not known, and the codec makes one.
struct TensorShape {
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;
};

// A codec whose data may also be made by all ranks together, in two rounds: what each round gives is summed over the
// ranks, in place and with the same bits for all, before the next. All ranks pass the same seed, step and tensor.
class Rounds {
 public:
  [[nodiscard]] virtual bool suits(std::size_t count) const = 0;  // two rounds are fewer bytes than the values
  // Spans belong to the codec. Errors: unsupported (a count that it does not suit).
  [[nodiscard]] virtual Result<std::span<float>> first(std::span<const float> from, const Origin& origin) = 0;
  [[nodiscard]] virtual std::span<float> second() = 0;
  // The sum over `ranks` ranks.
  virtual void apply_rounds(std::span<float> to, int ranks) = 0;

 protected:
  ~Rounds() = default;
};

class Codec {
 public:
  virtual ~Codec() = default;

  [[nodiscard]] virtual std::string name() const = 0;  // as codecs are named, with all parameters: "topk:0.01"
  [[nodiscard]] virtual CodecTraits traits() const = 0;
  [[nodiscard]] virtual std::size_t max_bytes(std::size_t count) const = 0;

  // Errors: exhausted (`to` is smaller than max_bytes), unsupported (a count this codec cannot take).
  [[nodiscard]] virtual Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                               const Origin& origin) = 0;
  // With error feedback: adds `from`, which is as long, to `residual`, encodes the sum, and takes what the message
  // carries away from it. As if done one after the other, but for values that are not finite any more: those become 0.
  [[nodiscard]] virtual Result<Encoded> encode_feedback(std::span<const float> from, std::span<float> residual,
                                                        std::span<std::byte> to, const Origin& origin);

  // The message is for exactly to.size() values. Errors: malformed.
  [[nodiscard]] Result<void> decode(std::span<const std::byte> message, std::span<float> to) const {
    return apply(message, to, Apply::store);
  }
  [[nodiscard]] Result<void> decode_add(std::span<const std::byte> message, std::span<float> to) const {
    return apply(message, to, Apply::add);
  }
  [[nodiscard]] Result<void> decode_subtract(std::span<const std::byte> message, std::span<float> to) const {
    return apply(message, to, Apply::subtract);
  }
  // What is done to the sum of all ranks' decoded values before it is the result: nothing, but for a vote.
  virtual void finish(std::span<float> /*sum*/) const {}
  // Takes back pairs that encode() gave to the wire last and that reached nobody: what was not sent goes where a codec
  // keeps such. `indices` ascend; each pair holds traits().pair_width values.
  virtual void give_back(std::span<const std::uint32_t> /*indices*/, std::span<const float> /*values*/) {}
  [[nodiscard]] virtual Rounds* rounds() { return nullptr; }  // itself, if it is made so
  // The share of values that is sent: above 0 and at most 1, or 0 if the codec has no such thing.
  [[nodiscard]] virtual double ratio() const { return 0; }
  virtual bool set_ratio(double /*ratio*/) { return false; }  // from now on; false likewise

 protected:
  enum class Apply : std::uint8_t { store, add, subtract };

 private:
  [[nodiscard]] virtual Result<void> apply(std::span<const std::byte> message, std::span<float> to,
                                           Apply how) const = 0;
};

// --- Names. A codec is named by a word and its parameters, and by wrappers after it, applied from left to right:
// "int8", "topk:0.01", "powersgd:4", "topk:0.001+momentum:0.9+warmup:4". See wrap.h for wrappers.

using Parameters = std::span<const std::string_view>;

struct CodecKind {
  std::string_view word;
  std::string_view parameters;  // as help shows them: ":RATIO"
  std::string_view summary;
  std::string_view example;  // a name that can be made
  Result<std::unique_ptr<Codec>> (*make)(Parameters parameters, TensorShape shape);
};

[[nodiscard]] std::span<const CodecKind* const> codec_kinds();

// Errors: bad_usage, in one sentence that quotes what was typed.
[[nodiscard]] Result<std::unique_ptr<Codec>> make_codec(std::string_view name, TensorShape shape = {});

// For the codecs' own make functions.
[[nodiscard]] Result<void> expect_parameters(std::string_view word, Parameters parameters, std::size_t least,
                                             std::size_t most);
[[nodiscard]] Result<double> parse_number(std::string_view word, std::string_view text, double least, double most);
[[nodiscard]] Result<double> parse_ratio(std::string_view word, std::string_view text);  // above 0, at most 1
[[nodiscard]] std::string shortest(double number);                                       // as people write it

}  // namespace gradrail
