// Rows of one table for many readers beside one writer: no optimizer state, no waiting keys, no counts.
//
// A row that changes is written to memory that nobody reads, then takes the key's place in the map by one store; what it
// replaces is used again when the readers who may see it have gone. So a reader never sees a part of a row, and waits for
// nothing; the writer waits for nobody either, and needs memory for the rows that readers still hold.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "serve/arena.h"
#include "serve/readers.h"
#include "serve/row_scales.h"
#include "serve/served_map.h"

namespace embtables {

struct ServedConfig {
    int dim;
    std::uint64_t seed;
    std::uint64_t num_rows;     // of a fixed table, whose keys are 0..num_rows - 1; 0: collisionless
    std::uint32_t ttl_seconds;  // 2^32 - 1: rows stay
};

// What a table takes over, or a piece of it: keys that lose their rows, and then rows to set, by key.
struct ServedChange {
    const std::int64_t* keys;
    const float* weights;        // (n, dim)
    const std::uint32_t* seen;   // (n), the clock when each was last seen; null of a fixed table
    std::size_t n;
    const std::int64_t* tombstones;
    std::size_t num_tombstones;
    const float* cold;           // (dim), what a key without a row reads; null: as before, at first zeros
    std::uint32_t now;           // the table's clock
    float scale;                 // of all weights of the table from now on, these and the others
    bool more;                   // further pieces of the same version will come
};

class ServedTable {
public:
    // `readers`: whoever reads the table; of several tables, if they are read together.
    ServedTable(const ServedConfig& config, Readers& readers);

    const ServedConfig& config() const { return config_; }

    // What a lookup found.
    struct Found {
        std::size_t cold;                       // keys without a row
        const RowScales::Generation* ended;
        bool has_one_scale;                     // ended->scale is that of all rows found
    };

    // The row numbers of keys[0..n), those past their ttl and those without a row at the cold row. Within a Reading, as is
    // what is done with them. `is_cold`, (n) or null: which were. Throws std::out_of_range for a key outside a fixed table.
    Found find(const std::int64_t* keys, std::size_t n, std::uint32_t* rows, bool* is_cold = nullptr) const;
    // The table's clock when each of keys[0..n) was last seen; 0 for one without a row, and in a fixed table. Within a
    // Reading.
    void seen(const std::int64_t* keys, std::size_t n, std::uint32_t* clocks) const;
    // What a row that was found is to be multiplied by.
    float scale_of(const Found& found, std::uint32_t row) const { return scales_.of_row(*found.ended, row); }
    const float* base() const { return arena_.as<float>(); }
    int stride() const { return stride_; }

    // Takes a change over; readers see each row before or after it. Where the scale rises, the version has all rows: a key
    // that it lacks has none any more.
    // Throws, with the change taken over in part, for a key outside a fixed table, where memory ends, where the scale is not
    // that of the piece before, or where a fixed table's scale rises without all of its rows: the same can be given again.
    void apply(const ServedChange& change);

    // Room for so many rows in all, so that filling the table moves nothing. The writer's.
    void reserve(std::uint64_t rows);

    std::uint64_t num_rows() const { return held_.load(std::memory_order_relaxed); }
    std::uint32_t now() const { return now_.load(std::memory_order_acquire); }
    std::size_t bytes() const;

private:
    struct Retired {
        std::uint64_t epoch;
        std::uint32_t row;
    };

    void set_rows(const ServedChange& change);
    void end_scale();
    // Asks for a row's first line: the rest of it follows when it is read.
    void prefetch(std::uint32_t row) const { __builtin_prefetch(base() + std::size_t{row} * static_cast<std::size_t>(stride_)); }
    std::uint32_t write(const float* values);
    std::uint32_t free_row();
    void retire(std::uint32_t row);
    void end_epoch();
    std::atomic<std::uint32_t>& place_of(std::int64_t key) const;

    ServedConfig config_;
    int stride_;
    Readers& readers_;
    Arena arena_;
    Arena places_;  // of a fixed table: the row number of each key
    ServedMap map_;
    RowScales scales_;
    std::atomic<std::uint32_t> cold_{0}, now_{0};
    std::atomic<std::uint64_t> held_{0};
    std::uint32_t next_ = 1;              // row 0 is zeros
    std::vector<std::uint32_t> free_, leaving_;  // leaving: out of reach of readers to come, in the epoch that lasts
    std::deque<Retired> retired_;
    mutable std::mutex writer_;
};

}  // namespace embtables
