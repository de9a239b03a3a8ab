// A KeyMap as the kernels see it. Everything inline here is inlined by force: the linker may not pick one instruction
// set's copy of a function for all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/mix.h"

namespace embtables {

inline constexpr int kBucketEntries = 4;
inline constexpr std::uint32_t kWaiting = 0x80000000u;  // in a value: not a row, but a count of a waiting key
inline constexpr std::uint32_t kMissed = 0xFFFFFFFFu;

inline constexpr std::uint32_t kOverflow = 0x40000000u;  // not part of a value

// Of the keys whose home is this bucket or one before it, some lie beyond it because it was full. Two bits of a key's
// mix are its class; kOverflow in values[c] says that a key of class c may be among them, so that most searches for
// keys that are not there end at home. A bucket that is not full has nothing beyond it.
struct alignas(64) Bucket {
    std::uint64_t keys[kBucketEntries];  // mixed; 0: empty
    std::uint32_t values[kBucketEntries];
    std::uint32_t seen[kBucketEntries];

    [[gnu::always_inline]] static int class_of(std::uint64_t h) { return (h >> 37) % kBucketEntries; }
    [[gnu::always_inline]] std::uint32_t value(int i) const { return values[i] & ~kOverflow; }
    [[gnu::always_inline]] void set_value(int i, std::uint32_t value) { values[i] = (values[i] & kOverflow) | value; }
    [[gnu::always_inline]] bool has_beyond(std::uint64_t h) const { return (values[class_of(h)] & kOverflow) != 0; }
    [[gnu::always_inline]] void note_beyond(std::uint64_t h) { values[class_of(h)] |= kOverflow; }
    [[gnu::always_inline]] void note_nothing_beyond() {
        for (std::uint32_t& value : values) value &= ~kOverflow;
    }
};
static_assert(sizeof(Bucket) == 64);

struct ShardView {
    Bucket* buckets;
    std::uint64_t num_buckets;
};

// What a lookup needs, for the kernels.
struct MapView {
    static constexpr int kShardBits = 5;
    const ShardView* shards;
    Bucket* zero;  // its first entry belongs to the key whose mix is zero; values[1] != 0: it is there
    std::uint64_t offset;

    [[gnu::always_inline]] std::uint64_t mixed(std::int64_t key) const { return mix(static_cast<std::uint64_t>(key) + offset); }
    [[gnu::always_inline]] static std::size_t shard_of(std::uint64_t h) { return (h >> 32) & ((1u << kShardBits) - 1); }
    [[gnu::always_inline]] static std::uint64_t home(std::uint64_t h, std::uint64_t num_buckets) {
        return ((h & 0xFFFFFFFFu) * num_buckets) >> 32;
    }
};

// Looks up keys[0..n): rows[i] is the row of a key that has one and was seen at most `ttl` before `now`, else `missed`.
// `touch`: rows found are marked as seen now. Returns how many were missed.
struct FindWork {
    MapView map;
    const std::int64_t* keys;
    std::size_t n;
    std::uint32_t now, ttl, missed;
    bool touch;
    std::uint32_t* rows;
};
using FindRows = std::size_t (*)(const FindWork&);

namespace scalar {
std::size_t find_rows(const FindWork&);
}
namespace avx2 {
std::size_t find_rows(const FindWork&);
}
namespace avx512 {
std::size_t find_rows(const FindWork&);
}

}  // namespace embtables
