#include "tests/fuzz/replay.h"

namespace gradrail {

int fuzz_parcels(const std::uint8_t* data, std::size_t size);

TEST(ParcelsFuzz, TheCorpusBreaksNothing) { EXPECT_GT(replay("parcels_corpus", fuzz_parcels), 20); }

}  // namespace gradrail
