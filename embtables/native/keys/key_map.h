// key -> row number and when it was last seen: buckets of four entries, each a cache line, shards that grow alone.
//
// A key is stored as its mix (a bijection), zero marking an empty place; the one key whose mix is zero lies out of line.
// Bits 32..36 of the mix choose the shard, the low 32 bits the bucket; the top ten are left to ownership among ranks. A
// full bucket overflows into the next, cyclically in its shard. A shard grows by two fifths, at a load of .72 to .80 that
// differs between shards, so that they do not all grow in the same batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "keys/map_view.h"

namespace embtables {

class KeyMap {
public:
    static constexpr std::size_t kShards = std::size_t{1} << MapView::kShardBits;

    // Where a key lies, or would be put.
    struct Place {
        Bucket* bucket;
        int entry;
        bool found;

        std::uint32_t value() const { return bucket->value(entry); }
        void set_value(std::uint32_t value) const { bucket->set_value(entry, value); }
        std::uint32_t& seen() const { return bucket->seen[entry]; }
    };

    explicit KeyMap(std::uint64_t seed);

    MapView view() const { return {views_.data(), &zero_, offset_}; }
    std::uint64_t mixed(std::int64_t key) const { return view().mixed(key); }
    std::int64_t key_of(std::uint64_t h) const { return static_cast<std::int64_t>(unmix(h) - offset_); }

    // Void after the next insert or remove.
    Place find(std::uint64_t h) const;

    // Adds a key that was not found, at the place where it was looked for.
    void insert(const Place& place, std::uint64_t h, std::uint32_t value, std::uint32_t seen);

    // Makes an empty map hold key i with value `first` + i. Throws std::invalid_argument where a key comes twice.
    void fill(const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, std::uint32_t first, int threads);

    // Removes a key; false where it is not there.
    bool remove(std::uint64_t h);

    void prefetch(std::uint64_t h) const;

    std::size_t size() const { return size_; }
    std::size_t bytes() const;
    // Bytes of a map into which so many keys were inserted, as many into each shard.
    static std::size_t bytes_of(std::uint64_t entries);
    std::size_t num_buckets(std::size_t shard) const { return views_[shard].num_buckets; }

    // Calls f(h, value, seen) for every entry of a shard, in no order of meaning.
    template <typename F>
    void each(std::size_t shard, F&& f) const {
        const ShardView& view = views_[shard];
        for (std::uint64_t b = 0; b < view.num_buckets; ++b) each_in(view.buckets[b], f);
        if (shard == 0 && zero_.values[1] != 0) f(std::uint64_t{0}, zero_.value(0), zero_.seen[0]);
    }

    // The same for buckets begin..end-1 of a shard; the entry out of line counts to the first bucket of shard 0.
    template <typename F>
    void each(std::size_t shard, std::size_t begin, std::size_t end, F&& f) const {
        const ShardView& view = views_[shard];
        for (std::uint64_t b = begin; b < end && b < view.num_buckets; ++b) each_in(view.buckets[b], f);
        if (shard == 0 && begin == 0 && zero_.values[1] != 0) f(std::uint64_t{0}, zero_.value(0), zero_.seen[0]);
    }

private:
    template <typename F>
    static void each_in(const Bucket& bucket, F&& f) {
        for (int i = 0; i < kBucketEntries; ++i)
            if (bucket.keys[i] != 0) f(bucket.keys[i], bucket.value(i), bucket.seen[i]);
    }

    void insert_in_shard(const Place& place, std::uint64_t h, std::uint32_t value, std::uint32_t seen);
    void fill_shard(std::size_t shard, const std::int64_t* keys, const std::uint32_t* seen, const std::uint32_t* which,
                    std::size_t n, std::uint32_t first);
    void put(std::size_t shard, std::uint64_t h, std::uint32_t value, std::uint32_t seen);
    void grow(std::size_t shard);
    void close_hole(std::size_t shard, std::uint64_t bucket, int place);

    std::uint64_t offset_;
    std::size_t size_ = 0;
    struct Saved {
        std::uint64_t h;
        std::uint32_t value, seen;
    };

    std::vector<Region> regions_;
    Region saved_;  // the entries of a shard while it grows
    std::vector<ShardView> views_;
    std::vector<std::size_t> counts_;
    mutable Bucket zero_{};
};

}  // namespace embtables
