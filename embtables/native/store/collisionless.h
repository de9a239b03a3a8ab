// A collisionless table: which key has a row, which waits for one, and which has lost it (docs/tables.md).
//
//   lookup in training: count every missed occurrence -> admit -> look up -> fresh rows are initialised
//   advance: the clock of the lookups to come          end_step: sweep a little, evict what is too much
//
// Row 0 is the cold row. All decisions depend on keys, counts and times alone, never on row numbers or on how far the
// sweep has come, so a restored table goes on like the one that was saved.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cut_log.h"
#include "keys/count_sketch.h"
#include "keys/key_map.h"
#include "rows/bucket_order.h"
#include "rows/table_rows.h"

namespace embtables {

inline constexpr std::uint32_t kForever = 0xFFFFFFFFu;

struct Policy {
    std::uint64_t seed;
    std::uint32_t min_count;     // a key gets its row at this occurrence; 1: at once
    double probability;          // or: with this probability, anew at every step that sees it; 1: always
    std::uint64_t max_waiting;   // keys that are counted and have no row
    bool sketch;                 // they are counted in a sketch, and only rows are in the map
    std::uint32_t ttl_seconds;   // kForever: rows do not expire
    std::uint64_t max_rows;      // 0: no limit
    bool is_part = false;        // of the key space: whoever has the other parts keeps max_rows and max_waiting

    bool operator==(const Policy&) const = default;
};

struct KeyCounts {
    std::uint64_t admitted = 0;
    std::uint64_t expired = 0, evicted = 0, deleted = 0;  // rows lost: past their ttl; above max_rows; by request
    std::uint64_t waiting_expired = 0, waiting_evicted = 0;
    std::uint64_t cold_reads = 0;   // occurrences in training that read the cold row
    std::uint64_t surplus = 0;      // occurrences of keys that no row was left for within one step
};

struct FreshRow {
    std::uint32_t row;
    std::int64_t key;
};

struct Candidate {  // for eviction, in its order
    std::uint32_t seen;
    std::uint64_t h;
    std::uint32_t value;
    bool operator<(const Candidate& other) const { return seen != other.seen ? seen < other.seen : h < other.h; }
};

class Collisionless {
public:
    // Throws std::length_error where max_rows is beyond 2^29.
    Collisionless(const Policy& policy, TableRows& rows);

    // Rows of another table that belong to the same keys: they have the same numbers, and are free at the same time.
    // Before any key has a row.
    void share_with(TableRows& rows);

    // What finds the rows of keys[0..n). Where `train` is false, keys without a row read row 0; else they are kMissed,
    // and `admit` comes next.
    FindWork find_work(const std::int64_t* keys, std::size_t n, bool train, std::uint32_t* rows) const;

    // Rows that a lookup of training found, kMissed among them. A step with more distinct keys than max_rows gives rows
    // to no more than that, those that had one counted first.
    void note(const std::uint32_t* rows, std::size_t n);
    bool is_bounded() const { return policy_.max_rows != 0; }

    // Counts occurrences keys[0..n) that were missed, admits, and says their rows. The rows of `fresh` are to be reset.
    // `counts`: how many occurrences in a row each is; null: one.
    void admit(const std::int64_t* keys, const std::int32_t* counts, std::size_t n, std::uint32_t* rows,
               std::vector<FreshRow>& fresh);

    // The clock of the lookups that follow, in seconds; never back.
    void advance(std::uint32_t now) { now_ = now > now_ ? now : now_; }

    // After the update of a step: expiry (a bounded piece of the sweep) and the limits on rows and waiting keys.
    void end_step(int threads);

    // What the limits are made of, so that the parts of a table can agree. How many rows or waiting keys lie in each bin
    // of age; what is past its ttl is dropped.
    std::vector<std::uint64_t> age_bins(bool waiting, int threads);
    // Those in a bin.
    std::vector<Candidate> of_age(bool waiting, std::size_t bin, int threads) const;
    // Drops those in older bins, and of that bin what comes up to `last` in the order of eviction.
    void evict(bool waiting, std::size_t bin, const Candidate& last, int threads);

    bool remove(std::int64_t key);

    // Counts of waiting keys, where they are in a sketch.
    CountSketch* sketch() { return sketch_.get(); }
    const CountSketch* sketch() const { return sketch_.get(); }

    // Keys that have lost their row, by cut; some may have one again.
    CutLog<std::int64_t>& lost() { return lost_; }
    const CutLog<std::int64_t>& lost() const { return lost_; }

    std::uint32_t now() const { return now_; }
    std::uint64_t num_rows() const { return num_rows_; }
    std::uint64_t num_waiting() const { return num_waiting_; }
    const KeyCounts& counts() const { return counts_; }
    std::uint64_t steps() const { return steps_; }
    std::size_t map_bytes() const { return map_.bytes(); }
    std::size_t map_entries() const { return map_.size(); }
    std::uint64_t rows_in_use() const { return next_row_; }  // ever taken, the cold row included

    // Keys that wait and are alive at the clock, with their counts.
    KeyList list_waiting(int threads) const;

    // For every row alive of one of the tables, in no order: seconds (or steps) since it was seen, and how often it
    // learned.
    void ages_and_counts(const TableRows& of, std::vector<std::uint32_t>& ages,
                         std::vector<std::uint32_t>& counts) const;

    // Rows for keys of a saved table `of`, those they have or others; what is in a row is then to be written. Other
    // tables with the same keys get fresh rows where the keys had none. An empty table gives key i row i + 1. Throws
    // std::invalid_argument where an empty table is given a key twice.
    void place(TableRows& of, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, int threads,
               std::uint32_t* rows);

    // Makes these keys the ones that wait. Throws std::invalid_argument where one has a row.
    void set_waiting(const std::int64_t* keys, const std::uint32_t* counts, const std::uint32_t* seen, std::size_t n);

    // The row of a key, made now where it has none; true where it is then to be reset.
    bool make_row(std::int64_t key, std::uint32_t& row);

    void set_clock(std::uint32_t now, std::uint64_t steps) {
        now_ = now;
        steps_ = steps;
    }

private:
    struct Oldest {  // by shard of the map
        std::vector<std::vector<Candidate>> older, of_bin;
    };

    bool row_fits();
    bool dead(std::uint32_t seen) const { return now_ - seen > policy_.ttl_seconds; }
    std::uint32_t admit_one(std::int64_t key, std::uint64_t h, std::vector<FreshRow>& fresh);
    void set(const KeyMap::Place& place, std::uint64_t h, std::uint32_t value);
    bool wants_row(std::uint64_t h, std::uint32_t count) const;
    std::uint32_t take_row();
    void make_room();
    void place_in_others(const TableRows& of, const std::uint32_t* rows, const std::int64_t* keys,
                         const std::uint32_t* seen, std::size_t n, int threads);
    void free_row(std::uint64_t h, std::uint32_t row);
    void drop(std::uint64_t h, std::uint32_t value);
    void sweep();
    void limit(bool waiting, std::uint64_t most, int threads);
    Oldest oldest(bool waiting, std::size_t bin, int threads) const;
    void drop_oldest(bool waiting, Oldest oldest, const Candidate& last);
    void drop_all(const std::vector<Candidate>& gone, std::uint64_t& counter);

    Policy policy_;
    std::vector<TableRows*> rows_;  // of each table with these keys
    KeyMap map_;
    std::unique_ptr<CountSketch> sketch_;
    KeyCounts counts_;
    std::uint32_t now_ = 0;
    std::uint64_t steps_ = 0, num_rows_ = 0, num_waiting_ = 0;
    std::uint32_t next_row_ = 1;
    std::vector<std::uint32_t> free_rows_;
    std::vector<std::uint32_t> step_rows_;  // rows read in this step, where max_rows bounds them
    std::vector<bool> in_step_;             // by row; made once the step has more occurrences than max_rows
    std::uint64_t num_in_step_ = 0;
    CutLog<std::int64_t> lost_;
    std::size_t sweep_shard_ = 0, sweep_bucket_ = 0;
};

}  // namespace embtables
