#include "collectives/compress/codec.h"

#include <fmt/format.h>

#include <charconv>

#include "collectives/compress/feedback.h"
#include "collectives/compress/wrap.h"

namespace gradrail {
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string known_words() {
  std::string words;
  for (const CodecKind* kind : codec_kinds()) {
    if (!words.empty()) words += ", ";
    words += kind->word;
    words += kind->parameters;
  }
  return words;
}

}  // namespace

Result<Encoded> Codec::encode_feedback(std::span<const float> from, std::span<float> residual, std::span<std::byte> to,
                                       const Origin& origin) {
  add_values(residual, from);
  GRADRAIL_ASSIGN(const Encoded encoded, encode(residual, to, origin));
  GRADRAIL_TRY(decode_subtract(to.first(encoded.bytes), residual));
  if (encoded.non_finite) drop_non_finite(residual);
  return encoded;
}

Result<std::unique_ptr<Codec>> make_codec(std::string_view name, TensorShape shape) {
  const auto links = split(name, '+');
  const auto parts = split(links.front(), ':');
  std::unique_ptr<Codec> codec;
  for (const CodecKind* kind : codec_kinds()) {
    if (kind->word != parts.front()) continue;
    GRADRAIL_ASSIGN(codec, kind->make(Parameters(parts).subspan(1), shape));
  }
  if (codec == nullptr) {
    return fail(Code::bad_usage, fmt::format("there is no codec '{}'; known are {}", parts.front(), known_words()));
  }
  for (std::size_t i = 1; i < links.size(); ++i) {
    const auto wrapper = split(links[i], ':');
    GRADRAIL_ASSIGN(codec, wrap(std::move(codec), wrapper.front(), Parameters(wrapper).subspan(1)));
  }
  return codec;
}

Result<void> expect_parameters(std::string_view word, Parameters parameters, std::size_t least, std::size_t most) {
  if (parameters.size() >= least && parameters.size() <= most) return {};
  if (most == 0) return fail(Code::bad_usage, fmt::format("'{}' takes no parameters", word));
  if (least == most) {
    return fail(Code::bad_usage, fmt::format("'{}' takes {} parameter{}, as in {}:X, and {} are given", word, least,
                                             least == 1 ? "" : "s", word, parameters.size()));
  }
  return fail(Code::bad_usage,
              fmt::format("'{}' takes {} to {} parameters, and {} are given", word, least, most, parameters.size()));
}

Result<double> parse_number(std::string_view word, std::string_view text, double least, double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Code::bad_usage, fmt::format("'{}' in '{}:{}' is no number", text, word, text));
  }
  if (!(value >= least && value <= most)) {
    return fail(Code::bad_usage,
                fmt::format("'{}:{}' is out of range: {} to {}", word, text, shortest(least), shortest(most)));
  }
  return value;
}

Result<double> parse_ratio(std::string_view word, std::string_view text) {
  GRADRAIL_ASSIGN(const double ratio, parse_number(word, text, 0, 1));
  if (ratio > 0) return ratio;
  return fail(Code::bad_usage,
              fmt::format("'{}:{}' would send nothing; the share of values sent is above 0", word, text));
}

std::string shortest(double number) { return fmt::format("{}", number); }

}  // namespace gradrail
