#include "bucket_order.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "mix.h"
#include "parallel.h"

namespace embtables {
namespace {

constexpr std::size_t kChunk = 1 << 16;

struct Entry {
    std::int64_t key;
    std::uint32_t index;
};

}  // namespace

// Chunks count their keys by bucket, then put them there, side by side; then each bucket is sorted.
void bucket_order(const std::int64_t* keys, std::size_t n, std::uint64_t seed, int threads, std::uint32_t* order) {
    const std::uint64_t offset = (seed + 1) * kGoldenGamma;
    const auto bucket_of = [=](std::int64_t key) { return mix(static_cast<std::uint64_t>(key) + offset) >> 54; };
    const std::size_t chunks = (n + kChunk - 1) / kChunk;
    std::vector<std::uint32_t> starts(chunks * kNumBuckets, 0);  // by chunk and bucket
    parallel_for(chunks, threads, [&](std::size_t c) {
        const std::size_t end = std::min(n, (c + 1) * kChunk);
        for (std::size_t i = c * kChunk; i < end; ++i) ++starts[c * kNumBuckets + bucket_of(keys[i])];
    });
    std::vector<std::uint32_t> buckets{0};
    for (std::size_t b = 0, sum = 0; b < kNumBuckets; ++b) {
        for (std::size_t c = 0; c < chunks; ++c) {
            const std::uint32_t count = starts[c * kNumBuckets + b];
            starts[c * kNumBuckets + b] = static_cast<std::uint32_t>(sum);
            sum += count;
        }
        buckets.push_back(static_cast<std::uint32_t>(sum));
    }
    const auto entries = std::make_unique_for_overwrite<Entry[]>(n);
    parallel_for(chunks, threads, [&](std::size_t c) {
        const std::size_t end = std::min(n, (c + 1) * kChunk);
        for (std::size_t i = c * kChunk; i < end; ++i)
            entries[starts[c * kNumBuckets + bucket_of(keys[i])]++] = {keys[i], static_cast<std::uint32_t>(i)};
    });
    parallel_for(kNumBuckets, threads, [&](std::size_t b) {
        std::sort(entries.get() + buckets[b], entries.get() + buckets[b + 1],
                  [](const Entry& x, const Entry& y) { return x.key < y.key; });
        for (std::uint32_t i = buckets[b]; i < buckets[b + 1]; ++i) order[i] = entries[i].index;
    });
}

}  // namespace embtables
