#include "keys/key_map.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::uint64_t kFirstBuckets = 2;

// Bit i: keys[i] == h. Without branches: which place matches cannot be foreseen.
std::uint32_t match(const Bucket& bucket, std::uint64_t h) {
    std::uint32_t bits = 0;
    for (int i = 0; i < kBucketEntries; ++i) bits |= static_cast<std::uint32_t>(bucket.keys[i] == h) << i;
    return bits;
}

bool is_full(const Bucket& bucket) { return match(bucket, 0) == 0; }

// How many of a shard's places may be taken: .72 of them in the first shard, .80 in the last.
std::size_t limit(std::size_t shard, std::uint64_t num_buckets) {
    const std::uint64_t places = num_buckets * kBucketEntries;
    return static_cast<std::size_t>(places * (720 + 80 * shard / KeyMap::kShards) / 1000);
}

std::uint64_t grown(std::uint64_t num_buckets) { return num_buckets + 2 * num_buckets / 5 + 1; }

}  // namespace

KeyMap::KeyMap(std::uint64_t seed)
    : offset_((seed + 1) * kGoldenGamma), regions_(kShards), views_(kShards), counts_(kShards, 0) {
    for (std::size_t s = 0; s < kShards; ++s) {
        regions_[s].reserve(kFirstBuckets * sizeof(Bucket));
        views_[s] = {regions_[s].as<Bucket>(), kFirstBuckets};
    }
}

KeyMap::Place KeyMap::find(std::uint64_t h) const {
    if (h == 0) return {&zero_, 0, zero_.values[1] != 0};
    const ShardView& shard = views_[MapView::shard_of(h)];
    for (std::uint64_t b = MapView::home(h, shard.num_buckets);; b = b + 1 == shard.num_buckets ? 0 : b + 1) {
        Bucket* const bucket = shard.buckets + b;
        if (const std::uint32_t found = match(*bucket, h)) return {bucket, __builtin_ctz(found), true};
        if (const std::uint32_t free = match(*bucket, 0)) return {bucket, __builtin_ctz(free), false};
    }
}

void KeyMap::prefetch(std::uint64_t h) const {
    const ShardView& shard = views_[MapView::shard_of(h)];
    const Bucket* const bucket = shard.buckets + MapView::home(h, shard.num_buckets);
    __builtin_prefetch(bucket->keys);
}

void KeyMap::insert(const Place& place, std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
    ++size_;
    insert_in_shard(place, h, value, seen);
}

void KeyMap::insert_in_shard(const Place& place, std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
    if (h == 0) {
        zero_.values[1] = 1;
    } else {
        const std::size_t shard = MapView::shard_of(h);
        if (counts_[shard] + 1 > limit(shard, views_[shard].num_buckets)) {
            grow(shard);
            ++counts_[shard];
            return put(shard, h, value, seen);
        }
        ++counts_[shard];
        const ShardView& view = views_[shard];
        for (std::uint64_t b = MapView::home(h, view.num_buckets); view.buckets + b != place.bucket;
             b = b + 1 == view.num_buckets ? 0 : b + 1)
            view.buckets[b].note_beyond(h);
        place.bucket->keys[place.entry] = h;
    }
    place.set_value(value);
    place.seen() = seen;
}

void KeyMap::put(std::size_t shard, std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
    const ShardView& view = views_[shard];
    for (std::uint64_t b = MapView::home(h, view.num_buckets);; b = b + 1 == view.num_buckets ? 0 : b + 1) {
        Bucket& bucket = view.buckets[b];
        const std::uint32_t free = match(bucket, 0);
        if (free == 0) {
            bucket.note_beyond(h);
            continue;
        }
        const int i = __builtin_ctz(free);
        bucket.keys[i] = h;
        bucket.set_value(i, value);
        bucket.seen[i] = seen;
        return;
    }
}

// In place where there is room, so that only the new part of a shard is fresh memory. Homes grow with the low bits of the mix whatever the
// number of buckets, so the entries go back in the order in which they were taken out.
void KeyMap::grow(std::size_t shard) {
    ShardView& view = views_[shard];
    const std::uint64_t num_buckets = grown(view.num_buckets);
    saved_.reserve(counts_[shard] * sizeof(Saved));
    Saved* const saved = saved_.as<Saved>();
    std::size_t n = 0;
    for (std::uint64_t b = 0; b < view.num_buckets; ++b)
        each_in(view.buckets[b], [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
            saved[n++] = {h, value, seen};
        });
    const std::size_t bytes = num_buckets * sizeof(Bucket);
    Region& region = regions_[shard];
    if (bytes > region.capacity() && region.capacity() < Region::kHugePage) {
        region = Region();  // fresh and not moved: small pages would stay small
        region.reserve(2 * bytes);
    } else {
        region.reserve(bytes);
        std::memset(region.as<char>(), 0, view.num_buckets * sizeof(Bucket));
    }
    view = {region.as<Bucket>(), num_buckets};
    for (std::size_t i = 0; i < n; ++i) put(shard, saved[i].h, saved[i].value, saved[i].seen);
}

// Keys are sorted out by shard, chunk by chunk; then the shards are filled, each at the size it needs.
void KeyMap::fill(const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, std::uint32_t first, int threads) {
    constexpr std::size_t kChunk = 1 << 16;
    const std::size_t chunks = (n + kChunk - 1) / kChunk;
    std::vector<std::uint32_t> starts(chunks * kShards, 0);
    const auto each = [&](std::size_t c, auto&& f) {
        for (std::size_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i)
            f(starts[c * kShards + MapView::shard_of(mixed(keys[i]))], static_cast<std::uint32_t>(i));
    };
    parallel_for(chunks, threads, [&](std::size_t c) { each(c, [](std::uint32_t& count, std::uint32_t) { ++count; }); });
    std::vector<std::uint32_t> begins;
    std::uint32_t sum = 0;
    for (std::size_t s = 0; s < kShards; ++s) {
        begins.push_back(sum);
        for (std::size_t c = 0; c < chunks; ++c) sum += std::exchange(starts[c * kShards + s], sum);
    }
    begins.push_back(sum);
    const auto which = std::make_unique_for_overwrite<std::uint32_t[]>(n);
    parallel_for(chunks, threads, [&](std::size_t c) {
        each(c, [&](std::uint32_t& at, std::uint32_t i) { which[at++] = i; });
    });
    parallel_for(kShards, threads, [&](std::size_t s) {
        fill_shard(s, keys, seen, which.get() + begins[s], begins[s + 1] - begins[s], first);
    });
    size_ = n;
}

void KeyMap::fill_shard(std::size_t shard, const std::int64_t* keys, const std::uint32_t* seen,
                        const std::uint32_t* which, std::size_t n, std::uint32_t first) {
    std::uint64_t num_buckets = kFirstBuckets;
    while (limit(shard, num_buckets) < n) num_buckets += num_buckets / 16 + 1;
    regions_[shard].reserve(num_buckets * sizeof(Bucket));
    views_[shard] = {regions_[shard].as<Bucket>(), num_buckets};
    constexpr std::size_t kAhead = 16;
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) prefetch(mixed(keys[which[i + kAhead]]));
        const std::uint64_t h = mixed(keys[which[i]]);
        const Place place = find(h);
        if (place.found) throw std::invalid_argument("key " + std::to_string(keys[which[i]]) + " comes twice");
        insert_in_shard(place, h, first + which[i], seen[which[i]]);
    }
}

bool KeyMap::remove(std::uint64_t h) {
    const Place place = find(h);
    if (!place.found) return false;
    --size_;
    if (h == 0) {
        zero_.values[1] = 0;
        return true;
    }
    const std::size_t shard = MapView::shard_of(h);
    --counts_[shard];
    close_hole(shard, static_cast<std::uint64_t>(place.bucket - views_[shard].buckets), place.entry);
    return true;
}

// Empties a place. Nothing may lie beyond a bucket that is not full, so keys that do move back into it.
void KeyMap::close_hole(std::size_t shard, std::uint64_t bucket, int hole) {
    const ShardView& view = views_[shard];
    const std::uint64_t n = view.num_buckets;
    const bool was_full = is_full(view.buckets[bucket]);
    view.buckets[bucket].keys[hole] = 0;
    if (!was_full) return;
    bool full = true;
    for (std::uint64_t b = bucket + 1 == n ? 0 : bucket + 1; full && b != bucket; b = b + 1 == n ? 0 : b + 1) {
        Bucket& next = view.buckets[b];
        full = is_full(next);
        const std::uint64_t distance = (b + n - bucket) % n;
        for (int i = 0; i < kBucketEntries; ++i) {
            if (next.keys[i] == 0) continue;
            const std::uint64_t overflowed = (b + n - MapView::home(next.keys[i], n)) % n;
            if (overflowed < distance) continue;
            Bucket& to = view.buckets[bucket];
            to.keys[hole] = next.keys[i];
            to.set_value(hole, next.value(i));
            to.seen[hole] = next.seen[i];
            next.keys[i] = 0;
            bucket = b;
            hole = i;
            break;
        }
    }
    view.buckets[bucket].note_nothing_beyond();
}

std::size_t KeyMap::bytes_of(std::uint64_t entries) {
    const std::uint64_t of_shard = (entries + kShards - 1) / kShards;
    std::size_t sum = 0;
    for (std::size_t shard = 0; shard < kShards; ++shard) {
        std::uint64_t num_buckets = kFirstBuckets;
        while (of_shard > limit(shard, num_buckets)) num_buckets = grown(num_buckets);
        sum += num_buckets * sizeof(Bucket);
    }
    return sum;
}

std::size_t KeyMap::bytes() const {
    std::size_t sum = 0;
    for (const ShardView& view : views_) sum += view.num_buckets * sizeof(Bucket);
    return sum;
}

}  // namespace embtables
