#include "serve/served_store.h"

#include <atomic>
#include <algorithm>
#include <utility>

#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::size_t kChunkKeys = 4096;  // of a lookup, on one thread

std::vector<std::uint32_t>& row_numbers(std::size_t n) {
    static thread_local std::vector<std::uint32_t> rows;
    if (rows.size() < n) rows.resize(n);
    return rows;
}

}  // namespace

ServedStore::ServedStore(const RowKernels& kernels, const std::vector<ServedConfig>& tables,
                         std::vector<int> feature_tables)
    : kernels_(kernels), feature_tables_(std::move(feature_tables)) {
    for (const ServedConfig& config : tables) tables_.push_back(std::make_unique<ServedTable>(config, readers_));
    for (const int number : feature_tables_) table(number);
}

std::vector<std::size_t> ServedStore::columns(const LookupView& lookup) const {
    std::vector<std::size_t> found{0};
    for (std::size_t s = 0; s < lookup.num_features; ++s)
        found.push_back(found.back() + static_cast<std::size_t>(table(table_of(lookup.features[s])).config().dim));
    return found;
}

void ServedStore::pooled(const LookupView& lookup, const std::int64_t* keys, int threads, float* out) const {
    const std::size_t num_keys = static_cast<std::size_t>(lookup.bags_of(lookup.num_lists - 1)[lookup.num_bags]);
    std::uint32_t* const rows = row_numbers(num_keys).data();
    const std::vector<std::size_t> column = columns(lookup);
    const Readers::Reading reading(readers_);
    auto one = [&](std::size_t s) {
        const ServedTable& read = table(table_of(lookup.features[s]));
        const std::int64_t* const offsets = lookup.bags_of(s);
        const std::int64_t first = offsets[0], last = offsets[lookup.num_bags];
        const auto n = static_cast<std::size_t>(last - first);
        const ServedTable::Found found = read.find(keys + first, n, rows + first);
        PooledWork work{read.base(), read.config().dim, read.stride(), rows, offsets, lookup.weights, 0, lookup.num_bags,
                        out + column[s], static_cast<std::int64_t>(column.back())};
        if (found.has_one_scale) {
            work.scale = found.ended->scale;
            kernels_.pooled(work);
        } else {
            pool_mixed(read, found, first, last, work);
        }
    };
    if (threads == 1 || num_keys <= kChunkKeys) {
        for (std::size_t s = 0; s < lookup.num_features; ++s) one(s);
    } else {
        parallel_for(lookup.num_features, threads, one);
    }
}

// The same where rows have scales of their own: sums of a copy of the rows.
void ServedStore::pool_mixed(const ServedTable& read, const ServedTable::Found& found, std::int64_t first,
                             std::int64_t last, PooledWork work) const {
    const std::size_t n = static_cast<std::size_t>(last - first), dim = static_cast<std::size_t>(work.dim);
    std::vector<float> copies(n * dim);
    gather_rows(read, found, work.rows + first, n, copies.data());
    std::vector<std::uint32_t> places(n);
    std::vector<std::int64_t> offsets(work.offsets, work.offsets + work.end + 1);
    for (std::size_t i = 0; i < n; ++i) places[i] = static_cast<std::uint32_t>(i);
    for (std::int64_t& offset : offsets) offset -= first;
    work.base = copies.data();
    work.stride = work.dim;
    work.rows = places.data();
    work.offsets = offsets.data();
    if (work.weights != nullptr) work.weights += first;
    kernels_.pooled(work);
}

void ServedStore::gather_rows(const ServedTable& read, const ServedTable::Found& found, const std::uint32_t* rows,
                              std::size_t n, float* out) const {
    GatherWork work{read.base(), read.config().dim, read.stride(), rows, 0, static_cast<std::int64_t>(n), out};
    if (found.has_one_scale) work.scale = found.ended->scale;
    kernels_.gather(work);
    if (found.has_one_scale) return;
    const auto dim = static_cast<std::size_t>(work.dim);
    for (std::size_t i = 0; i < n; ++i)
        if (const float scale = read.scale_of(found, rows[i]); scale != 1.0f)
            for (std::size_t j = i * dim; j < (i + 1) * dim; ++j) out[j] *= scale;
}

std::size_t ServedStore::gather(int number, const std::int64_t* keys, std::size_t n, int threads, float* out,
                                bool* is_cold) const {
    const ServedTable& read = table(number);
    std::uint32_t* const rows = row_numbers(n).data();
    const std::size_t chunks = (n + kChunkKeys - 1) / kChunkKeys, dim = static_cast<std::size_t>(read.config().dim);
    std::atomic<std::size_t> cold{0};
    const Readers::Reading reading(readers_);
    auto one = [&](std::size_t chunk) {
        const std::size_t begin = chunk * kChunkKeys, size = std::min(n - begin, kChunkKeys);
        const ServedTable::Found found =
            read.find(keys + begin, size, rows + begin, is_cold == nullptr ? nullptr : is_cold + begin);
        cold.fetch_add(found.cold, std::memory_order_relaxed);
        gather_rows(read, found, rows + begin, size, out + begin * dim);
    };
    if (threads == 1 || chunks <= 1) {
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) one(chunk);
    } else {
        parallel_for(chunks, threads, one);
    }
    return cold.load();
}

void ServedStore::cold(int number, const std::int64_t* keys, std::size_t n, bool* is_cold) const {
    const Readers::Reading reading(readers_);
    table(number).find(keys, n, row_numbers(n).data(), is_cold);
}

void ServedStore::seen(int number, const std::int64_t* keys, std::size_t n, std::uint32_t* clocks) const {
    const Readers::Reading reading(readers_);
    table(number).seen(keys, n, clocks);
}

}  // namespace embtables
