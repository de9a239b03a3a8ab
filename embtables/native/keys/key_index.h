// The keys of a fixed table that are of one part of the key space, and their rows: a bit a key and, in each cache line,
// how many keys of the part come before it. Row r belongs to the r-th of the part's keys. 1.14 bits for each key of the
// whole table, so that a part of it takes little more than its rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/memory.h"
#include "keys/rank_view.h"
#include "rows/bucket_order.h"

namespace embtables {

class KeyIndex {
public:
    // Of keys [0, num_keys).
    KeyIndex(std::uint64_t num_keys, std::uint64_t seed, Buckets buckets, int threads);

    // What finds the rows of keys[0..n).
    RankWork work(const std::int64_t* keys, std::size_t n, std::uint32_t* rows) const {
        return {lines(), num_keys_, keys, n, rows};
    }

    std::uint64_t num_rows() const { return num_rows_; }
    std::size_t bytes() const { return bytes_of(num_keys_); }
    static std::size_t bytes_of(std::uint64_t num_keys) {
        return (num_keys + RankLine::kKeys - 1) / RankLine::kKeys * sizeof(RankLine);
    }

    // Calls f(key, row) for the part's keys among a chunk of all.
    template <typename F>
    void each(std::size_t chunk, F&& f) const {
        const std::size_t end = std::min(num_lines(), (chunk + 1) * kChunkLines);
        for (std::size_t l = chunk * kChunkLines; l < end; ++l) {
            std::uint64_t row = lines()[l].before;
            for (std::uint64_t place = 0; place < RankLine::kKeys; ++place)
                if (lines()[l].owns(place))
                    f(static_cast<std::int64_t>(l * RankLine::kKeys + place), static_cast<std::uint32_t>(row++));
        }
    }
    std::size_t num_chunks() const { return (num_lines() + kChunkLines - 1) / kChunkLines; }

private:
    static constexpr std::size_t kChunkLines = 64;

    RankLine* lines() const { return lines_.as<RankLine>(); }
    std::size_t num_lines() const { return bytes() / sizeof(RankLine); }
    std::uint64_t mark(std::size_t chunk, std::uint64_t seed, Buckets buckets);

    std::uint64_t num_keys_, num_rows_ = 0;
    Region lines_;
};

}  // namespace embtables
