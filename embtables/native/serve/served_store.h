// The tables that a server reads, and lookups of them. Any number of threads may look up while one applies changes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "rows/row_kernels.h"
#include "serve/readers.h"
#include "serve/served_table.h"
#include "store/lookup_view.h"

namespace embtables {

class ServedStore {
public:
    ServedStore(const RowKernels& kernels, const std::vector<ServedConfig>& tables, std::vector<int> feature_tables);

    // (bags, width): weighted sums of rows, a feature's columns beside each other. Each row is of one version of its table.
    // Throws std::out_of_range for a key outside a fixed table.
    void pooled(const LookupView& lookup, const std::int64_t* keys, int threads, float* out) const;

    // (n, dim): rows of keys of one table. `is_cold`, (n) or null: which had none. Returns how many.
    std::size_t gather(int table, const std::int64_t* keys, std::size_t n, int threads, float* out, bool* is_cold) const;

    // The same without the rows.
    void cold(int table, const std::int64_t* keys, std::size_t n, bool* is_cold) const;

    // The clock when each key of a table was last seen, (n); 0 for one without a row.
    void seen(int table, const std::int64_t* keys, std::size_t n, std::uint32_t* clocks) const;

    ServedTable& table(int number) const { return *tables_.at(static_cast<std::size_t>(number)); }
    int table_of(int feature) const { return feature_tables_.at(static_cast<std::size_t>(feature)); }
    std::size_t width(const LookupView& lookup) const { return columns(lookup).back(); }

private:
    std::vector<std::size_t> columns(const LookupView& lookup) const;  // where each feature's begin, and their number

    void gather_rows(const ServedTable& read, const ServedTable::Found& found, const std::uint32_t* rows, std::size_t n,
                     float* out) const;
    void pool_mixed(const ServedTable& read, const ServedTable::Found& found, std::int64_t first, std::int64_t last,
                    PooledWork work) const;

    const RowKernels& kernels_;
    mutable Readers readers_;
    std::vector<std::unique_ptr<ServedTable>> tables_;
    std::vector<int> feature_tables_;
};

}  // namespace embtables
