// Approximate counts of keys that wait for their row: a count-min sketch with conservative update (Cormode and
// Muthukrishnan 2005; Estan and Varghese 2002), blocked so that a key costs one cache line in each of two halves.
//
// Each of the 1,024 buckets of the key space has its own: a current half, which counts, and the previous one, which
// only remembers. They change places, the older being cleared, when the current half has met its share of new keys, or
// when the table's clock enters another span of `ttl` (all ones: never). So a count is never too small while its key is
// remembered: for the bucket's last `keys of a half` new keys, and at least ttl seconds. It may be too large: four
// counters of the key's block would all have to be shared. embtables/rows/reference/count_sketch.py is the oracle.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "base/memory.h"
#include "base/mix.h"

namespace embtables {

class CountSketch {
public:
    // Room for `max_waiting` keys, counts up to `most`; `ttl` in the clock's units.
    CountSketch(std::uint64_t max_waiting, std::uint32_t most, std::uint32_t ttl)
        : bits_(bits_of(most)), most_(most), ttl_(ttl), share_(share_of(max_waiting)), blocks_(blocks_of(share_, bits_)),
          buckets_(kBuckets) {
        words_.reserve(num_words() * sizeof(std::uint64_t));
    }

    // Counts one occurrence of a key, by its mix; the count with it, at most `most`.
    std::uint32_t add(std::uint64_t h, std::uint32_t now) {
        Bucket& bucket = buckets_[h >> 54];
        turn(h >> 54, now);
        const std::uint64_t g = mix(h);
        std::uint64_t* const current = block(h >> 54, bucket.current, g);
        const std::uint32_t counted = least(current, g);
        const std::uint32_t before = counted + least(block(h >> 54, 1 - bucket.current, g), g);
        const std::uint32_t limit = (1u << bits_) - 1, raised = std::min(counted + 1, limit);
        for (int r = 0; r < kRows; ++r) {
            const auto [word, shift] = place(g, r);
            if (((current[word] >> shift) & limit) < raised)
                current[word] = (current[word] & ~(std::uint64_t{limit} << shift)) | (std::uint64_t{raised} << shift);
        }
        if (before == 0 && ++bucket.met >= share_) exchange(h >> 54);
        return std::min(before + 1, most_);
    }

    std::size_t bytes() const { return bytes_of(blocks_); }
    // Of a sketch that is made so.
    static std::size_t bytes_of(std::uint64_t max_waiting, std::uint32_t most) {
        return bytes_of(blocks_of(share_of(max_waiting), bits_of(most)));
    }

    // All of it, `bytes()` long, for a saved table.
    void save(std::uint8_t* to) const {
        std::memcpy(to, buckets_.data(), buckets_.size() * sizeof(Bucket));
        std::memcpy(to + buckets_.size() * sizeof(Bucket), words(), num_words() * sizeof(std::uint64_t));
    }

    void restore(const std::uint8_t* from) {
        std::memcpy(buckets_.data(), from, buckets_.size() * sizeof(Bucket));
        for (const Bucket& bucket : buckets_)
            if (bucket.current > 1) throw std::invalid_argument("the count sketch is damaged");
        std::memcpy(words(), from + buckets_.size() * sizeof(Bucket), num_words() * sizeof(std::uint64_t));
    }

private:
    static constexpr std::size_t kBuckets = 1024, kWordsInBlock = 8;
    static constexpr int kRows = 4;

    struct Bucket {
        std::uint32_t span = 0;     // of the clock, in which the current half began
        std::uint32_t met = 0;      // new keys in the current half
        std::uint32_t current = 0;  // which half: 0 or 1
    };
    struct Place {
        std::uint32_t word, shift;
    };

    static std::uint32_t bits_of(std::uint32_t most) { return most < 16 ? 4 : most < 256 ? 8 : 16; }
    static std::uint64_t share_of(std::uint64_t max_waiting) { return (max_waiting + 2 * kBuckets - 1) / (2 * kBuckets); }
    static std::uint64_t blocks_of(std::uint64_t share, std::uint32_t bits) { return (share + 64 / bits - 1) / (64 / bits); }
    static std::size_t words_of(std::uint64_t blocks) { return kBuckets * 2 * blocks * kWordsInBlock; }
    static std::size_t bytes_of(std::uint64_t blocks) {
        return words_of(blocks) * sizeof(std::uint64_t) + kBuckets * sizeof(Bucket);
    }

    std::uint64_t* words() const { return words_.as<std::uint64_t>(); }
    std::size_t num_words() const { return words_of(blocks_); }
    std::uint64_t* half(std::size_t bucket, std::uint32_t which) const {
        return words() + (2 * bucket + which) * blocks_ * kWordsInBlock;
    }
    std::uint64_t* block(std::size_t bucket, std::uint32_t which, std::uint64_t g) const {
        return half(bucket, which) + (((g & 0xFFFFFFFFu) * blocks_) >> 32) * kWordsInBlock;
    }

    // A row of counters is 128 bits of the block.
    Place place(std::uint64_t g, int row) const {
        const std::uint32_t counters = 128u / bits_;
        const auto bit = static_cast<std::uint32_t>(128 * row + ((g >> (32 + 5 * row)) & (counters - 1)) * bits_);
        return {bit / 64, bit % 64};
    }

    std::uint32_t least(const std::uint64_t* block, std::uint64_t g) const {
        std::uint64_t found = ~std::uint64_t{0};
        for (int r = 0; r < kRows; ++r) {
            const auto [word, shift] = place(g, r);
            found = std::min(found, (block[word] >> shift) & ((1u << bits_) - 1));
        }
        return static_cast<std::uint32_t>(found);
    }

    void exchange(std::size_t bucket) {
        Bucket& b = buckets_[bucket];
        b.current = 1 - b.current;
        b.met = 0;
        std::memset(half(bucket, b.current), 0, blocks_ * kWordsInBlock * sizeof(std::uint64_t));
    }

    void turn(std::size_t bucket, std::uint32_t now) {
        Bucket& b = buckets_[bucket];
        const std::uint32_t span = ttl_ == 0xFFFFFFFFu ? 0 : now / ttl_;
        if (span == b.span) return;
        const std::uint32_t passed = span - b.span;
        b.span = span;
        exchange(bucket);
        if (passed > 1) exchange(bucket);
    }

    std::uint32_t bits_, most_, ttl_;
    std::uint64_t share_, blocks_;
    std::vector<Bucket> buckets_;
    Region words_;
};

}  // namespace embtables
