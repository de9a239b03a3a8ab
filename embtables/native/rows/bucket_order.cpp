#include "rows/bucket_order.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::size_t kChunk = 1 << 16, kAhead = 16;

}  // namespace

// Each piece counts its keys by bucket, then puts them where its share of the bucket begins; then buckets are sorted.
KeyList in_bucket_order(const std::vector<std::vector<Listed>>& pieces, std::uint64_t seed, int threads) {
    std::vector<std::uint32_t> starts(pieces.size() * kNumBuckets, 0);
    parallel_for(pieces.size(), threads, [&](std::size_t p) {
        for (const Listed& e : pieces[p]) ++starts[p * kNumBuckets + bucket_of(e.key, seed)];
    });
    std::vector<std::uint32_t> begins;
    std::uint32_t sum = 0;
    for (std::size_t b = 0; b < kNumBuckets; ++b) {
        begins.push_back(sum);
        for (std::size_t p = 0; p < pieces.size(); ++p) sum += std::exchange(starts[p * kNumBuckets + b], sum);
    }
    begins.push_back(sum);
    const auto entries = std::make_unique_for_overwrite<Listed[]>(sum);
    parallel_for(pieces.size(), threads, [&](std::size_t p) {
        for (const Listed& e : pieces[p]) entries[starts[p * kNumBuckets + bucket_of(e.key, seed)]++] = e;
    });
    KeyList list;
    list.begins.assign(kNumBuckets + 1, 0);
    parallel_for(kNumBuckets, threads, [&](std::size_t b) {
        Listed *const first = entries.get() + begins[b], *const last = entries.get() + begins[b + 1];
        std::sort(first, last, [](const Listed& x, const Listed& y) { return x.key < y.key; });
        const Listed* const end = std::unique(first, last, [](const Listed& x, const Listed& y) { return x.key == y.key; });
        list.begins[b + 1] = static_cast<std::uint64_t>(end - first);
    });
    for (std::size_t b = 0; b < kNumBuckets; ++b) list.begins[b + 1] += list.begins[b];
    list.keys.resize(list.begins.back());
    list.values.resize(list.begins.back());
    list.seen.resize(list.begins.back());
    parallel_for(kNumBuckets, threads, [&](std::size_t b) {
        const Listed* entry = entries.get() + begins[b];
        for (std::uint64_t i = list.begins[b]; i < list.begins[b + 1]; ++i, ++entry) {
            list.keys[i] = entry->key;
            list.values[i] = entry->value;
            list.seen[i] = entry->seen;
        }
    });
    return list;
}

KeyList list_rows(const RowArrays& rows, std::uint64_t begin, std::uint64_t end,
                  const std::vector<std::uint32_t>* among, const RowFilter& filter, std::uint64_t seed, int threads) {
    const std::uint64_t n = among != nullptr ? among->size() : end - std::min(begin, end);
    std::vector<std::vector<Listed>> pieces((n + kChunk - 1) / kChunk);
    parallel_for(pieces.size(), threads, [&](std::size_t p) {
        const auto row_at = [&](std::uint64_t i) { return among != nullptr ? (*among)[i] : static_cast<std::uint32_t>(begin + i); };
        const std::uint64_t stop = std::min<std::uint64_t>(n, (p + 1) * kChunk);
        for (std::uint64_t i = p * kChunk; i < stop; ++i) {
            if (among != nullptr && i + kAhead < stop) {
                __builtin_prefetch(rows.meta + row_at(i + kAhead));
                if (rows.keys != nullptr) __builtin_prefetch(rows.keys + row_at(i + kAhead));
            }
            const std::uint32_t row = row_at(i);
            const RowMeta& meta = rows.meta[row];
            if (row < begin || meta.cut <= filter.after || filter.now - meta.seen > filter.ttl) continue;
            pieces[p].push_back({rows.keys != nullptr ? rows.keys[row] : static_cast<std::int64_t>(row), row, meta.seen});
        }
    });
    return in_bucket_order(pieces, seed, threads);
}

}  // namespace embtables
