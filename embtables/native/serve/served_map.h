// key -> row number and when it was last seen, for readers beside one writer.
//
// The layout is that of KeyMap (keys/key_map.h): buckets of four entries in a cache line, shards by bits 32..36 of the
// key's mix. Here an entry, once it holds a key, holds it for as long as its shard's memory lives: a key that loses its row
// keeps the entry with row 0. A shard that fills up is made anew beside the old one, without such entries, and takes its
// place by one pointer; the old memory lives until its readers have gone.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "base/memory.h"
#include "base/mix.h"
#include "serve/readers.h"

namespace embtables {

class ServedMap {
public:
    // Row 0 is no row.
    struct Entry {
        std::uint32_t row, seen;
    };

    ServedMap(std::uint64_t seed, Readers& readers);
    ~ServedMap();

    std::uint64_t mixed(std::int64_t key) const { return mix(static_cast<std::uint64_t>(key) + offset_); }
    std::int64_t key_of(std::uint64_t h) const { return static_cast<std::int64_t>(unmix(h) - offset_); }

    // Calls f(i, entry of keys[i]) for each of n keys, in their order. Within a Reading.
    template <typename F>
    void find(const std::int64_t* keys, std::size_t n, F&& f) const;

    // The writer's, from here on.
    // Asks for the key's bucket, which will soon be set or removed.
    void prefetch(std::int64_t key) const {
        const std::uint64_t h = mixed(key);
        __builtin_prefetch(shards_[shard_of(h)].load(std::memory_order_relaxed)->home(h));
    }
    // Gives the key a row and returns the one that it had; 0: none.
    std::uint32_t set(std::int64_t key, Entry entry);
    // Room for so many keys in all.
    void reserve(std::size_t keys);
    // Takes its row from the key and returns it; 0: it had none.
    std::uint32_t remove(std::int64_t key);
    // Calls f(key, entry) for each key that has a row, in no order of meaning.
    template <typename F>
    void each(F&& f) const;

    std::size_t size() const { return size_; }
    std::size_t bytes() const;

private:
    static constexpr int kShardBits = 5, kEntries = 4;
    static constexpr std::size_t kShards = std::size_t{1} << kShardBits;

    struct alignas(64) Bucket {
        std::atomic<std::uint64_t> keys[kEntries];  // mixed; 0: nothing yet, here and in what follows
        std::atomic<std::uint32_t> rows[kEntries];
        std::atomic<std::uint32_t> seen[kEntries];
    };
    static_assert(sizeof(Bucket) == 64);

    struct Shard {
        Region memory;
        std::uint64_t num_buckets;
        std::size_t used = 0;  // entries that hold a key, those without a row among them

        explicit Shard(std::uint64_t buckets) : num_buckets(buckets) { memory.reserve(buckets * sizeof(Bucket)); }
        Bucket* buckets() const { return memory.as<Bucket>(); }
        Bucket* home(std::uint64_t h) const { return buckets() + (((h & 0xFFFFFFFFu) * num_buckets) >> 32); }
        Bucket* after(Bucket* bucket) const { return ++bucket == buckets() + num_buckets ? buckets() : bucket; }
    };
    struct Place {
        Bucket* bucket;
        int entry;
        bool found;
    };
    struct Retired {
        std::uint64_t epoch;
        std::unique_ptr<Shard> shard;
    };

    static constexpr std::size_t kBlock = 32;  // keys whose buckets are asked for before they are searched
    struct Block {
        std::uint64_t mixed[kBlock];
        const Shard* shards[kBlock];
        const Bucket* homes[kBlock];
    };
    void ask(const std::int64_t* keys, std::size_t n, Block& block) const;
    Entry look(const Block& block, std::size_t i) const;
    static Entry entry_of(const Bucket& bucket, int i);

    static std::size_t shard_of(std::uint64_t h) { return (h >> 32) & (kShards - 1); }
    static Place look(const Shard& shard, std::uint64_t h);
    static void put(Shard& shard, std::uint64_t h, Entry entry);
    static std::size_t limit(std::uint64_t buckets);
    void make_room(std::size_t shard);
    void grow(std::size_t shard, std::uint64_t buckets);
    void forget();

    std::uint64_t offset_;
    Readers& readers_;
    std::size_t size_ = 0;
    std::array<std::atomic<Shard*>, kShards> shards_;
    std::deque<Retired> retired_;
    Bucket zero_{};  // its first entry belongs to the key whose mix is zero
};

inline void ServedMap::ask(const std::int64_t* keys, std::size_t n, Block& block) const {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t h = mixed(keys[i]);
        const Shard* const shard = shards_[shard_of(h)].load(std::memory_order_acquire);
        block.mixed[i] = h;
        block.shards[i] = shard;
        block.homes[i] = shard->home(h);
        __builtin_prefetch(block.homes[i]);
    }
}

inline ServedMap::Entry ServedMap::entry_of(const Bucket& bucket, int i) {
    // `seen` first, which is written last: the row is at least as new. An expired row is never read with a newer time.
    const std::uint32_t seen = bucket.seen[i].load(std::memory_order_acquire);
    return {bucket.rows[i].load(std::memory_order_acquire), seen};
}

// Most keys lie at home, at any of its places: compared without branches.
inline ServedMap::Entry ServedMap::look(const Block& block, std::size_t i) const {
    const std::uint64_t h = block.mixed[i];
    const Bucket& home = *block.homes[i];
    unsigned found = 0;
    for (int e = 0; e < kEntries; ++e) found |= unsigned{home.keys[e].load(std::memory_order_acquire) == h} << e;
    if (h == 0) return entry_of(zero_, 0);
    if (found != 0) return entry_of(home, __builtin_ctz(found));
    if (home.keys[kEntries - 1].load(std::memory_order_acquire) == 0) return {0, 0};
    const Place place = look(*block.shards[i], h);
    return place.found ? entry_of(*place.bucket, place.entry) : Entry{0, 0};
}

template <typename F>
void ServedMap::find(const std::int64_t* keys, std::size_t n, F&& f) const {
    Block blocks[2];
    ask(keys, n < kBlock ? n : kBlock, blocks[0]);
    for (std::size_t begin = 0, turn = 0; begin < n; begin += kBlock, turn ^= 1) {
        const std::size_t end = n - begin < kBlock ? n : begin + kBlock;
        ask(keys + end, n - end < kBlock ? n - end : kBlock, blocks[turn ^ 1]);
        for (std::size_t i = begin; i < end; ++i) f(i, look(blocks[turn], i - begin));
    }
}

template <typename F>
void ServedMap::each(F&& f) const {
    const auto each_in = [&](const Bucket& bucket, int i, std::uint64_t h) {
        if (const Entry entry = entry_of(bucket, i); entry.row != 0) f(key_of(h), entry);
    };
    for (const std::atomic<Shard*>& pointer : shards_) {
        const Shard& shard = *pointer.load(std::memory_order_acquire);
        for (std::uint64_t b = 0; b < shard.num_buckets; ++b)
            for (int i = 0; i < kEntries; ++i)
                if (const std::uint64_t h = shard.buckets()[b].keys[i].load(std::memory_order_acquire); h != 0)
                    each_in(shard.buckets()[b], i, h);
    }
    each_in(zero_, 0, 0);
}

}  // namespace embtables
