// Batch lookup in a KeyMap. Compiled once an instruction set; see map_view.h.
#include "map_view.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace embtables::EMBTABLES_KERNEL {
namespace {

constexpr std::size_t kBlock = 32;  // keys whose buckets are asked for before they are searched

// Bit i: keys[i] == h.
inline std::uint32_t match(const Bucket& bucket, std::uint64_t h) {
#if defined(__AVX2__)
    const __m256i keys = _mm256_load_si256(reinterpret_cast<const __m256i*>(bucket.keys));
    const __m256i same = _mm256_cmpeq_epi64(keys, _mm256_set1_epi64x(static_cast<long long>(h)));
    return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(same)));
#else
    std::uint32_t bits = 0;
    for (int i = 0; i < kBucketEntries; ++i) bits |= static_cast<std::uint32_t>(bucket.keys[i] == h) << i;
    return bits;
#endif
}

std::uint32_t use(const FindPart& p, Bucket& bucket, int i) {
    // Several threads may touch one entry; all write the same.
    const std::uint32_t seen = __atomic_load_n(&bucket.seen[i], __ATOMIC_RELAXED);
    if (bucket.values[i] >= kWaiting || p.now - seen > p.ttl) return p.missed;
    if (p.touch && seen != p.now) __atomic_store_n(&bucket.seen[i], p.now, __ATOMIC_RELAXED);
    return bucket.values[i];
}

std::uint32_t find_one(const FindPart& p, std::uint64_t h) {
    if (h == 0) return p.map.zero->values[1] != 0 ? use(p, *p.map.zero, 0) : p.missed;
    const ShardView& shard = p.map.shards[MapView::shard_of(h)];
    for (std::uint64_t b = MapView::home(h, shard.num_buckets);; b = b + 1 == shard.num_buckets ? 0 : b + 1) {
        Bucket& bucket = shard.buckets[b];
        const std::uint32_t found = match(bucket, h);
        if (found != 0) return use(p, bucket, __builtin_ctz(found));
        if (match(bucket, 0) != 0) return p.missed;
    }
}

void prepare(const FindPart& p, std::size_t begin, std::size_t end, std::uint64_t* mixed) {
    for (std::size_t i = begin; i < end; ++i) {
        const std::uint64_t h = p.map.mixed(p.keys[i]);
        mixed[i - begin] = h;
        const ShardView& shard = p.map.shards[MapView::shard_of(h)];
        const Bucket* const bucket = shard.buckets + MapView::home(h, shard.num_buckets);
        __builtin_prefetch(bucket->keys);
    }
}

}  // namespace

std::size_t find_rows(const FindPart& p) {
    std::uint64_t mixed[2][kBlock];
    std::size_t missed = 0;
    prepare(p, 0, p.n < kBlock ? p.n : kBlock, mixed[0]);
    for (std::size_t begin = 0, turn = 0; begin < p.n; begin += kBlock, turn ^= 1) {
        const std::size_t end = begin + kBlock < p.n ? begin + kBlock : p.n;
        prepare(p, end, end + kBlock < p.n ? end + kBlock : p.n, mixed[turn ^ 1]);
        for (std::size_t i = begin; i < end; ++i) {
            p.rows[i] = find_one(p, mixed[turn][i - begin]);
            missed += p.rows[i] == p.missed;
        }
    }
    return missed;
}

}  // namespace embtables::EMBTABLES_KERNEL
