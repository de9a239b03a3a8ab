#include "keys/key_index.h"

#include <bit>
#include <utility>
#include <vector>

#include "base/parallel.h"

namespace embtables {

KeyIndex::KeyIndex(std::uint64_t num_keys, std::uint64_t seed, Buckets buckets, int threads) : num_keys_(num_keys) {
    lines_.reserve(num_lines() * sizeof(RankLine));
    std::vector<std::uint64_t> begins(num_chunks());
    parallel_for(num_chunks(), threads, [&](std::size_t c) { begins[c] = mark(c, seed, buckets); });
    for (std::uint64_t& begin : begins) num_rows_ += std::exchange(begin, num_rows_);
    parallel_for(num_chunks(), threads, [&](std::size_t c) {
        const std::size_t end = std::min(num_lines(), (c + 1) * kChunkLines);
        for (std::size_t l = c * kChunkLines; l < end; ++l) lines()[l].before += begins[c];
    });
}

// Marks the part's keys in a chunk, counting from its beginning; how many they are.
std::uint64_t KeyIndex::mark(std::size_t chunk, std::uint64_t seed, Buckets buckets) {
    const std::size_t end = std::min(num_lines(), (chunk + 1) * kChunkLines);
    std::uint64_t found = 0;
    for (std::size_t l = chunk * kChunkLines; l < end; ++l) {
        RankLine& line = lines()[l];
        line.before = found;
        for (std::size_t w = 0; w < RankLine::kWords; ++w) {
            const std::uint64_t first = l * RankLine::kKeys + 64 * w;
            std::uint64_t word = 0;
            for (std::uint64_t i = 0; i < 64 && first + i < num_keys_; ++i)
                word |= std::uint64_t{buckets.hold(bucket_of(static_cast<std::int64_t>(first + i), seed))} << i;
            line.owned[w] = word;
            found += static_cast<std::uint64_t>(std::popcount(word));
        }
    }
    return found;
}

}  // namespace embtables
