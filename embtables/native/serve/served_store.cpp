#include "serve/served_store.h"

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

void ServedStore::pooled(const LookupView& lookup, const std::int64_t* keys, int threads, float* out,
                         std::int64_t* cold) const {
    const std::size_t num_keys = static_cast<std::size_t>(lookup.bags_of(lookup.num_lists - 1)[lookup.num_bags]);
    std::uint32_t* const rows = row_numbers(num_keys).data();
    const std::vector<std::size_t> column = columns(lookup);
    const Readers::Reading reading(readers_);
    auto one = [&](std::size_t s) {
        const ServedTable& read = table(table_of(lookup.features[s]));
        const std::int64_t* const offsets = lookup.bags_of(s);
        const std::int64_t first = offsets[0], last = offsets[lookup.num_bags];
        const std::size_t missed = read.find(keys + first, static_cast<std::size_t>(last - first), rows + first);
        if (cold != nullptr) cold[s] = static_cast<std::int64_t>(missed);
        kernels_.pooled({read.base(), read.config().dim, read.stride(), rows, offsets, lookup.weights, 0, lookup.num_bags,
                         out + column[s], static_cast<std::int64_t>(column.back())});
    };
    if (threads == 1 || num_keys <= kChunkKeys) {
        for (std::size_t s = 0; s < lookup.num_features; ++s) one(s);
    } else {
        parallel_for(lookup.num_features, threads, one);
    }
}

std::size_t ServedStore::gather(int number, const std::int64_t* keys, std::size_t n, int threads, float* out,
                                bool* is_cold) const {
    const ServedTable& read = table(number);
    std::uint32_t* const rows = row_numbers(n).data();
    const std::size_t chunks = (n + kChunkKeys - 1) / kChunkKeys;
    std::vector<std::size_t> cold(chunks);
    const Readers::Reading reading(readers_);
    auto one = [&](std::size_t chunk) {
        const std::size_t begin = chunk * kChunkKeys, end = std::min(n, begin + kChunkKeys);
        cold[chunk] = read.find(keys + begin, end - begin, rows + begin, is_cold == nullptr ? nullptr : is_cold + begin);
        kernels_.gather({read.base(), read.config().dim, read.stride(), rows, static_cast<std::int64_t>(begin),
                         static_cast<std::int64_t>(end), out});
    };
    if (threads == 1 || chunks <= 1) {
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) one(chunk);
    } else {
        parallel_for(chunks, threads, one);
    }
    std::size_t found = 0;
    for (const std::size_t part : cold) found += part;
    return found;
}

void ServedStore::cold(int number, const std::int64_t* keys, std::size_t n, bool* is_cold) const {
    const Readers::Reading reading(readers_);
    table(number).find(keys, n, row_numbers(n).data(), is_cold);
}

}  // namespace embtables
