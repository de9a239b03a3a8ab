#include "key_map.h"

#include <utility>

namespace embtables {
namespace {

constexpr std::uint64_t kFirstBuckets = 2;

int free_place(const Bucket& bucket) {
    for (int i = 0; i < kBucketEntries; ++i)
        if (bucket.keys[i] == 0) return i;
    return -1;
}

// How many of a shard's places may be taken: .72 of them in the first shard, .82 in the last.
std::size_t limit(std::size_t shard, std::uint64_t num_buckets) {
    const std::uint64_t places = num_buckets * kBucketEntries;
    return static_cast<std::size_t>(places * (720 + 100 * shard / KeyMap::kShards) / 1000);
}

}  // namespace

KeyMap::KeyMap(std::uint64_t seed)
    : offset_((seed + 1) * kGoldenGamma), regions_(kShards), views_(kShards), counts_(kShards, 0) {
    for (std::size_t s = 0; s < kShards; ++s) {
        regions_[s].reserve(kFirstBuckets * sizeof(Bucket));
        views_[s] = {regions_[s].as<Bucket>(), kFirstBuckets};
    }
}

bool KeyMap::locate(std::uint64_t h, Bucket*& bucket, int& place) const {
    if (h == 0) {
        bucket = &zero_;
        place = 0;
        return zero_.values[1] != 0;
    }
    const ShardView& shard = views_[MapView::shard_of(h)];
    for (std::uint64_t b = MapView::home(h, shard.num_buckets);; b = b + 1 == shard.num_buckets ? 0 : b + 1) {
        bucket = shard.buckets + b;
        bool full = true;
        for (int i = 0; i < kBucketEntries; ++i) {
            if (bucket->keys[i] == h) {
                place = i;
                return true;
            }
            full = full && bucket->keys[i] != 0;
        }
        if (!full) return false;
    }
}

KeyMap::Entry KeyMap::find(std::uint64_t h) const {
    Bucket* bucket;
    int place;
    if (!locate(h, bucket, place)) return {nullptr, nullptr};
    return {&bucket->values[place], &bucket->seen[place]};
}

void KeyMap::prefetch(std::uint64_t h) const {
    const ShardView& shard = views_[MapView::shard_of(h)];
    const Bucket* const bucket = shard.buckets + MapView::home(h, shard.num_buckets);
    __builtin_prefetch(bucket->keys);
    __builtin_prefetch(bucket->values);
}

void KeyMap::insert(std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
    ++size_;
    if (h == 0) {
        zero_.values[0] = value;
        zero_.seen[0] = seen;
        zero_.values[1] = 1;
        return;
    }
    const std::size_t shard = MapView::shard_of(h);
    if (counts_[shard] + 1 > limit(shard, views_[shard].num_buckets)) grow(shard);
    ++counts_[shard];
    place(shard, h, value, seen);
}

void KeyMap::place(std::size_t shard, std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
    const ShardView& view = views_[shard];
    for (std::uint64_t b = MapView::home(h, view.num_buckets);; b = b + 1 == view.num_buckets ? 0 : b + 1) {
        Bucket& bucket = view.buckets[b];
        const int i = free_place(bucket);
        if (i < 0) continue;
        bucket.keys[i] = h;
        bucket.values[i] = value;
        bucket.seen[i] = seen;
        return;
    }
}

void KeyMap::grow(std::size_t shard) {
    // Homes grow with the low bits of the mix whatever the number of buckets, so both arrays are walked in order.
    const ShardView old = views_[shard];
    Region region;
    const std::uint64_t num_buckets = old.num_buckets + old.num_buckets / 4 + 1;
    region.reserve(num_buckets * sizeof(Bucket));
    views_[shard] = {region.as<Bucket>(), num_buckets};
    for (std::uint64_t b = 0; b < old.num_buckets; ++b)
        each_in(old.buckets[b], [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
            place(shard, h, value, seen);
        });
    regions_[shard] = std::move(region);
}

bool KeyMap::remove(std::uint64_t h) {
    Bucket* bucket;
    int i;
    if (!locate(h, bucket, i)) return false;
    --size_;
    if (h == 0) {
        zero_.values[1] = 0;
        return true;
    }
    const std::size_t shard = MapView::shard_of(h);
    --counts_[shard];
    close_hole(shard, static_cast<std::uint64_t>(bucket - views_[shard].buckets), i);
    return true;
}

// Empties a place. A search stops at the first bucket that is not full, so keys that overflowed past a bucket that was
// full move back into it.
void KeyMap::close_hole(std::size_t shard, std::uint64_t bucket, int hole) {
    const ShardView& view = views_[shard];
    const std::uint64_t n = view.num_buckets;
    const bool was_full = free_place(view.buckets[bucket]) < 0;
    view.buckets[bucket].keys[hole] = 0;
    if (!was_full) return;
    for (std::uint64_t b = bucket + 1 == n ? 0 : bucket + 1; b != bucket; b = b + 1 == n ? 0 : b + 1) {
        Bucket& next = view.buckets[b];
        const bool full = free_place(next) < 0;
        const std::uint64_t distance = (b + n - bucket) % n;
        for (int i = 0; i < kBucketEntries; ++i) {
            if (next.keys[i] == 0) continue;
            const std::uint64_t overflowed = (b + n - MapView::home(next.keys[i], n)) % n;
            if (overflowed < distance) continue;
            Bucket& to = view.buckets[bucket];
            to.keys[hole] = next.keys[i];
            to.values[hole] = next.values[i];
            to.seen[hole] = next.seen[i];
            next.keys[i] = 0;
            bucket = b;
            hole = i;
            break;
        }
        if (!full) return;
    }
}

std::size_t KeyMap::bytes() const {
    std::size_t sum = 0;
    for (const ShardView& view : views_) sum += view.num_buckets * sizeof(Bucket);
    return sum;
}

}  // namespace embtables
