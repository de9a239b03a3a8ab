#include "serve/served_map.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace embtables {
namespace {

constexpr std::uint64_t kFirstBuckets = 4;
constexpr double kMostLoad = 0.75;

}  // namespace

ServedMap::ServedMap(std::uint64_t seed, Readers& readers) : offset_(seed * kGoldenGamma), readers_(readers) {
    for (std::atomic<Shard*>& shard : shards_) shard.store(new Shard(kFirstBuckets), std::memory_order_release);
}

ServedMap::~ServedMap() {
    for (std::atomic<Shard*>& shard : shards_) delete shard.load();
}

ServedMap::Place ServedMap::look(const Shard& shard, std::uint64_t h) {
    for (Bucket* bucket = shard.home(h);; bucket = shard.after(bucket))
        for (int i = 0; i < kEntries; ++i) {
            const std::uint64_t key = bucket->keys[i].load(std::memory_order_acquire);
            if (key == h) return {bucket, i, true};
            if (key == 0) return {bucket, i, false};
        }
}

std::uint32_t ServedMap::set(std::int64_t key, Entry entry) {
    const std::uint64_t h = mixed(key);
    Place place{&zero_, 0, true};
    if (h != 0) {
        make_room(shard_of(h));
        Shard& shard = *shards_[shard_of(h)].load(std::memory_order_relaxed);
        place = look(shard, h);
        if (!place.found) {
            put(shard, h, entry);
            ++size_;
            return 0;
        }
    }
    const std::uint32_t former = place.bucket->rows[place.entry].exchange(entry.row, std::memory_order_acq_rel);
    place.bucket->seen[place.entry].store(entry.seen, std::memory_order_release);
    size_ += former == 0;
    return former;
}

std::uint32_t ServedMap::remove(std::int64_t key) {
    const std::uint64_t h = mixed(key);
    const Place place = h == 0 ? Place{&zero_, 0, true} : look(*shards_[shard_of(h)].load(std::memory_order_relaxed), h);
    if (!place.found) return 0;
    const std::uint32_t former = place.bucket->rows[place.entry].exchange(0, std::memory_order_acq_rel);
    size_ -= former != 0;
    return former;
}

// Of a key that is not there. The key comes last: who sees it sees its row.
void ServedMap::put(Shard& shard, std::uint64_t h, Entry entry) {
    const Place place = look(shard, h);
    place.bucket->seen[place.entry].store(entry.seen, std::memory_order_relaxed);
    place.bucket->rows[place.entry].store(entry.row, std::memory_order_relaxed);
    place.bucket->keys[place.entry].store(h, std::memory_order_release);
    ++shard.used;
}

// How many keys so many buckets may hold.
std::size_t ServedMap::limit(std::uint64_t buckets) {
    return static_cast<std::size_t>(kMostLoad * kEntries * static_cast<double>(buckets));
}

void ServedMap::reserve(std::size_t keys) {
    // Keys lie in shards as coins fall: few have more than the mean and some deviations.
    const double mean = static_cast<double>(keys) / kShards;
    const auto most = static_cast<std::size_t>(mean + 6.0 * std::sqrt(mean)) + 8;
    const auto buckets = static_cast<std::uint64_t>(static_cast<double>(most) / (kMostLoad * kEntries)) + 1;
    for (std::size_t shard = 0; shard < kShards; ++shard)
        if (shards_[shard].load(std::memory_order_relaxed)->num_buckets < buckets) grow(shard, buckets);
}

// Another key will fit into the shard.
void ServedMap::make_room(std::size_t number) {
    const Shard& old = *shards_[number].load(std::memory_order_relaxed);
    if (old.used < limit(old.num_buckets)) return;
    std::size_t alive = 0;
    for (std::uint64_t b = 0; b < old.num_buckets; ++b)
        for (int i = 0; i < kEntries; ++i) alive += old.buckets()[b].rows[i].load(std::memory_order_relaxed) != 0;
    std::uint64_t buckets = old.num_buckets;
    while (limit(buckets) <= alive + alive / 8) buckets += buckets / 2;
    grow(number, buckets);
}

// Makes the shard anew, with so many buckets and without keys that have no row.
void ServedMap::grow(std::size_t number, std::uint64_t buckets) {
    const Shard& old = *shards_[number].load(std::memory_order_relaxed);
    auto made = std::make_unique<Shard>(buckets);
    for (std::uint64_t b = 0; b < old.num_buckets; ++b)
        for (int i = 0; i < kEntries; ++i) {
            if (const Entry entry = entry_of(old.buckets()[b], i); entry.row != 0)
                put(*made, old.buckets()[b].keys[i].load(std::memory_order_relaxed), entry);
        }
    std::unique_ptr<Shard> former(shards_[number].exchange(made.release(), std::memory_order_acq_rel));
    retired_.push_back({readers_.retire(), std::move(former)});
    forget();
}

void ServedMap::forget() {
    const std::uint64_t oldest = readers_.oldest();
    while (!retired_.empty() && retired_.front().epoch < oldest) retired_.pop_front();
}

std::size_t ServedMap::bytes() const {
    std::size_t found = 0;
    for (const std::atomic<Shard*>& shard : shards_) found += shard.load(std::memory_order_acquire)->memory.capacity();
    for (const Retired& retired : retired_) found += retired.shard->memory.capacity();
    return found;
}

}  // namespace embtables
