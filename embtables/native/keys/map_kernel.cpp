// Batch lookup in a KeyMap. Compiled once an instruction set; see map_view.h.
#include "keys/map_view.h"

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

std::uint32_t use(const FindWork& p, Bucket& bucket, int i) {
    // Several threads may touch one entry; all write the same.
    const std::uint32_t seen = __atomic_load_n(&bucket.seen[i], __ATOMIC_RELAXED);
    const std::uint32_t value = bucket.value(i);
    if (value >= kWaiting || p.now - seen > p.ttl) return p.missed;
    if (p.touch && seen != p.now) __atomic_store_n(&bucket.seen[i], p.now, __ATOMIC_RELAXED);
    return value;
}

// The row of a key that is not in its home bucket but may lie beyond it.
std::uint32_t find_further(const FindWork& p, std::uint64_t h) {
    const ShardView& shard = p.map.shards[MapView::shard_of(h)];
    for (std::uint64_t b = MapView::home(h, shard.num_buckets);;) {
        b = b + 1 == shard.num_buckets ? 0 : b + 1;
        Bucket& bucket = shard.buckets[b];
        const std::uint32_t found = match(bucket, h);
        if (found != 0) return use(p, bucket, __builtin_ctz(found));
        if (!bucket.has_beyond(h)) return p.missed;
    }
}

struct Block {
    std::uint64_t mixed[kBlock];
    Bucket* home[kBlock];
    std::uint32_t further[kBlock];  // keys to be looked for beyond their home bucket
    std::size_t begin, size, num_further;
};

// Asks for the home buckets of keys begin..
void ask(const FindWork& p, std::size_t begin, Block& block) {
    block.begin = begin;
    block.size = begin >= p.n ? 0 : p.n - begin < kBlock ? p.n - begin : kBlock;
    block.num_further = 0;
    for (std::size_t i = 0; i < block.size; ++i) {
        const std::uint64_t h = p.map.mixed(p.keys[begin + i]);
        const ShardView& shard = p.map.shards[MapView::shard_of(h)];
        block.mixed[i] = h;
        block.home[i] = shard.buckets + MapView::home(h, shard.num_buckets);
        __builtin_prefetch(block.home[i]->keys);
    }
}

// Looks into the home buckets; asks for the next bucket where a key may lie there.
void look(const FindWork& p, Block& block) {
    for (std::size_t i = 0; i < block.size; ++i) {
        Bucket& bucket = *block.home[i];
        const std::uint64_t h = block.mixed[i];
        std::uint32_t row = p.missed;
        if (const std::uint32_t found = match(bucket, h); found != 0 && h != 0) {
            row = use(p, bucket, __builtin_ctz(found));
        } else {
            const bool beyond = bucket.has_beyond(h);
            __builtin_prefetch((&bucket)[beyond].keys);
            block.further[block.num_further] = static_cast<std::uint32_t>(i);
            block.num_further += beyond;
            if (h == 0 && p.map.zero->values[1] != 0) row = use(p, *p.map.zero, 0);
        }
        p.rows[block.begin + i] = row;
    }
}

void look_further(const FindWork& p, const Block& block) {
    for (std::size_t j = 0; j < block.num_further; ++j) {
        const std::size_t i = block.further[j];
        if (block.mixed[i] != 0) p.rows[block.begin + i] = find_further(p, block.mixed[i]);
    }
}

}  // namespace

// Three blocks are under way: the first waits for its home buckets, the second is looked up, the third waits for what
// lies beyond its home buckets.
std::size_t find_rows(const FindWork& p) {
    Block blocks[3];
    ask(p, 0, blocks[0]);
    blocks[2].num_further = 0;
    for (std::size_t begin = 0, turn = 0; begin < p.n + kBlock; begin += kBlock, turn = (turn + 1) % 3) {
        ask(p, begin + kBlock, blocks[(turn + 1) % 3]);
        look(p, blocks[turn]);
        look_further(p, blocks[(turn + 2) % 3]);
    }
    std::size_t missed = 0;
    for (std::size_t i = 0; i < p.n; ++i) missed += p.rows[i] == p.missed;
    return missed;
}

}  // namespace embtables::EMBTABLES_KERNEL
