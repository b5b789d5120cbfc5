// Decoding whatever arrives must give values or an error, and never anything else. The first byte picks a codec, the
// second the count that the reader expects; the rest is the message. A message that is taken is taken again in the
// other two ways; and where messages are pairs, whoever sums them must agree with whoever decodes them.
//
// With libFuzzer: configure with clang and -DGRADRAIL_FUZZ=ON, then build/NAME/tests/codec_fuzz
// tests/fuzz/codec_corpus. In ctest the kept corpus is replayed (codec_replay_test.cc).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "collectives/compress/codec.h"
#include "collectives/compress/sparse_sum.h"

namespace gradrail {

int fuzz_codec(const std::uint8_t* data, std::size_t size);

int fuzz_codec(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto kinds = codec_kinds();
  static const auto codecs = [&] {
    std::vector<std::unique_ptr<Codec>> all;
    for (const CodecKind* kind : kinds) all.push_back(make_codec(kind->example).value());
    return all;
  }();
  const Codec& codec = *codecs[data[0] % codecs.size()];
  const std::span message(reinterpret_cast<const std::byte*>(data) + 2, size - 2);
  std::uint64_t count = std::size_t{data[1]} * 7;
  if (data[1] == 255 && message.size() >= 16) {  // as many as the message says, within reason
    std::memcpy(&count, message.data() + 8, sizeof count);
    count = std::min<std::uint64_t>(count, 1 << 16);
  }
  std::vector<float> to(count);
  const bool taken = codec.decode(message, to).has_value();
  if (taken && (!codec.decode_add(message, to) || !codec.decode_subtract(message, to))) std::abort();
  if (const std::size_t width = codec.traits().pair_width; width > 0) {
    const auto open = open_sparse(message, count, "fuzz", width);
    if (!open && taken) std::abort();
    if (open) {
      std::vector<SparseReader> twice(2, SparseReader(*open));
      SparseSum sum(width);
      const bool summed = !sum.sum(twice, open->places);
      if (summed != taken || (summed && sum.pairs().size() != open->pairs)) std::abort();
    }
  }
  return 0;
}

}  // namespace gradrail

#ifdef GRADRAIL_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return gradrail::fuzz_codec(data, size);
}
#endif
