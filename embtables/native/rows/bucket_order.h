// The order of keys in files: by bucket, the top ten bits of the mix of (table seed, key), and then by value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/mix.h"
#include "rows/row_arrays.h"

namespace embtables {

inline constexpr std::size_t kNumBuckets = 1024;

inline std::size_t bucket_of(std::int64_t key, std::uint64_t seed) {
    return mix(static_cast<std::uint64_t>(key) + (seed + 1) * kGoldenGamma) >> 54;
}

// A range [first, end) of them.
struct Buckets {
    std::uint32_t first = 0, end = kNumBuckets;

    bool are_all() const { return first == 0 && end == kNumBuckets; }
    bool hold(std::size_t bucket) const { return first <= bucket && bucket < end; }
    bool operator==(const Buckets&) const = default;
};

// A key with its row, or with the count of one that waits, and when it was last seen.
struct Listed {
    std::int64_t key;
    std::uint32_t value, seen;
};

// Keys in the order of files.
struct KeyList {
    std::vector<std::int64_t> keys;
    std::vector<std::uint32_t> values, seen;
    std::vector<std::uint64_t> begins;  // of the buckets among them; the last one is their number
};

// The keys of all pieces, fewer than 2^32; one that comes twice is listed once.
KeyList in_bucket_order(const std::vector<std::vector<Listed>>& pieces, std::uint64_t seed, int threads);

// Which rows are listed: those that changed after a cut (0: all that are not free), were seen at most `ttl` before `now`.
struct RowFilter {
    std::uint32_t after, now, ttl;
};

// Rows [begin, end); or, where it is not null, those of `among`.
KeyList list_rows(const RowArrays& rows, std::uint64_t begin, std::uint64_t end,
                  const std::vector<std::uint32_t>* among, const RowFilter& filter, std::uint64_t seed, int threads);

}  // namespace embtables
