#include "tests/fuzz/replay.h"

namespace gradrail {

int fuzz_codec(const std::uint8_t* data, std::size_t size);

TEST(CodecFuzz, TheCorpusBreaksNothing) { EXPECT_GT(replay("codec_corpus", fuzz_codec), 20); }

}  // namespace gradrail
