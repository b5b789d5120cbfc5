// The wire format must not drift: messages of every codec, kept as data in tests/property/codec_vectors, one file a
// codec. A file holds the input, as bits of floats, and the message that it must become, byte for byte, today and
// on every machine. A deliberate change of format raises the version in message.h and makes the files anew:
//
//   GRADRAIL_WRITE_VECTORS=1 build/release/tests/property_tests --gtest_filter='*CodecVectors*'
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/property/codec_cases.h"

namespace gradrail {
namespace {

constexpr Origin k_origin{.seed = 0x0123456789ABCDEF, .step = 17, .tensor = 5, .rank = 3, .first = 4096};

std::string path_of(std::string name) {
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '_';
  return std::string(GRADRAIL_SOURCE_DIR) + "/tests/property/codec_vectors/" + name + ".txt";
}

// Two inputs: ordinary numbers over a block border, and the awkward ones.
std::vector<std::vector<float>> inputs() {
  std::vector<float> ordinary(277);
  std::uint32_t state = 1;
  for (float& value : ordinary) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<std::int32_t>(state)) / 1e9f;
  }
  return {ordinary, {0.0f, -0.0f, 1e-40f, -1.0f, 3.3e38f, 65520.0f, 1.0f, 1e-8f}, {1.0f, INFINITY, -2.0f}, {}};
}

void put_hex(std::ostream& out, std::span<const std::byte> bytes) {
  char text[3];
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::snprintf(text, sizeof text, "%02x", static_cast<unsigned>(bytes[i]));
    out << text << (i % 60 == 59 ? "\n" : "");
  }
  out << "\n";
}

std::string file_text(const std::string& name) {
  std::ostringstream out;
  out << "# " << name << ": inputs as bits of float32, little endian, and the messages they become\n";
  for (const auto& input : inputs()) {
    const auto codec = codec_of(name);
    out << "input " << input.size() << "\n";
    put_hex(out, std::as_bytes(std::span(input)));
    const auto message = encode_all(*codec, input, k_origin);
    out << "message " << message.size() << "\n";
    put_hex(out, message);
  }
  return out.str();
}

class CodecVectors : public testing::TestWithParam<std::string> {};

TEST_P(CodecVectors, AreWhatIsEncodedToday) {
  const std::string path = path_of(GetParam()), now = file_text(GetParam());
  if (std::getenv("GRADRAIL_WRITE_VECTORS") != nullptr) std::ofstream(path) << now;
  std::ifstream file(path);
  ASSERT_TRUE(file) << path << " is not there";
  std::ostringstream kept;
  kept << file.rdbuf();
  EXPECT_EQ(kept.str(), now) << "the wire format of " << GetParam() << " has changed";
}

INSTANTIATE_TEST_SUITE_P(Every, CodecVectors, testing::ValuesIn(codec_names()), [](const auto& param) {
  std::string name = param.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

}  // namespace
}  // namespace gradrail
