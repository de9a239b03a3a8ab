// Messages with keys: for each rank its keys, block after block, and then how often each occurred (where that is sent), as
// words of four bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "exchange/key_exchange.h"

namespace embtables {

inline std::size_t words_of_key(bool counted) { return counted ? 3 : 2; }

// The message with an exchange's own keys.
inline std::vector<std::int32_t> key_message(const KeyExchange& exchange, bool counted) {
    std::vector<std::int32_t> words(exchange.keys().size() * words_of_key(counted));
    const std::size_t blocks = exchange.num_blocks();
    std::size_t key = 0, at = 0;
    for (std::size_t r = 0; r < exchange.ranks(); ++r) {
        const std::int64_t* const sizes = exchange.sizes().data() + r * blocks;
        const auto n = static_cast<std::size_t>(std::accumulate(sizes, sizes + blocks, std::int64_t{0}));
        if (n == 0) continue;
        std::memcpy(&words[at], &exchange.keys()[key], n * sizeof(std::int64_t));
        if (counted) std::memcpy(&words[at + 2 * n], &exchange.counts()[key], n * sizeof(std::int32_t));
        key += n;
        at += n * words_of_key(counted);
    }
    return words;
}

struct KeysByBlock {
    std::vector<std::int64_t> keys;
    std::vector<std::int32_t> counts;  // empty where they are not sent
};

// What the messages of ranks hold, one after the other, by block and within it by rank; sizes (ranks, blocks) add up to it.
inline KeysByBlock keys_by_block(const std::int32_t* message, const std::int64_t* sizes, std::size_t ranks,
                                 std::size_t blocks, bool counted) {
    struct Place {
        std::size_t n, keys, counts;  // words
    };
    std::vector<Place> places;  // by rank and block
    std::size_t all = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
        const std::int64_t* const of = sizes + r * blocks;
        const auto own = static_cast<std::size_t>(std::accumulate(of, of + blocks, std::int64_t{0}));
        std::size_t before = 0;
        for (std::size_t b = 0; b < blocks; ++b) {
            const auto n = static_cast<std::size_t>(of[b]);
            const std::size_t begin = all * words_of_key(counted);
            places.push_back({n, begin + 2 * before, begin + 2 * own + before});
            before += n;
        }
        all += own;
    }
    KeysByBlock found{std::vector<std::int64_t>(all), std::vector<std::int32_t>(counted ? all : 0)};
    std::size_t at = 0;
    for (std::size_t b = 0; b < blocks; ++b)
        for (std::size_t r = 0; r < ranks; ++r) {
            const Place& place = places[r * blocks + b];
            if (place.n == 0) continue;
            std::memcpy(&found.keys[at], message + place.keys, place.n * sizeof(std::int64_t));
            if (counted) std::memcpy(&found.counts[at], message + place.counts, place.n * sizeof(std::int32_t));
            at += place.n;
        }
    return found;
}

}  // namespace embtables
