// The tables of one model and their lookups: what bindings.cpp shows to Python.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "base/output_pool.h"
#include "base/turns.h"
#include "keys/key_index.h"
#include "rows/row_image.h"
#include "rows/row_kernels.h"
#include "rows/table_rows.h"
#include "store/collisionless.h"
#include "store/lookup_view.h"
#include "store/step.h"

namespace embtables {

struct Kernels {
    const RowKernels* rows;
    FindRows find;
    RankRows rank;
};

struct TableSpec {
    TableConfig config;
    std::uint64_t num_rows;        // of a fixed table
    std::optional<Policy> policy;  // of a collisionless one
    bool cold_row_learns;
    Buckets buckets{};  // which it has the keys of
    int keys_of = -1;      // a table before it whose keys it shares: a key has the same row number in both

    bool is_keyed() const { return policy || !buckets.are_all(); }  // its rows belong to keys that are not their numbers
    bool has_keys_like(const TableSpec& other) const {
        return num_rows == other.num_rows && policy == other.policy && buckets == other.buckets &&
               config.initial.seed == other.config.initial.seed;
    }
};

// Bytes that a store's table takes.
struct TableBytes {
    std::uint64_t row;     // of one row
    std::uint64_t rows;    // of all of them
    std::uint64_t keys;    // of the map of its keys, waiting ones in it, or of the index of a part's keys
    std::uint64_t counts;  // of the sketch of waiting keys
    std::uint64_t listed;  // of the list of rows that changed since a cut, at most
};

// Of a table in which so many keys have got rows, one after the other, and so many wait for one.
TableBytes bytes_of(const TableSpec& spec, std::uint64_t rows, std::uint64_t waiting);

struct KeptLookup {
    LookupView lookup;
    const std::uint32_t* rows;
    const float* gradient;  // (B, sum of the features' dims)
};

// Keys that several ranks ask for: F features, of each feature as many segments, one a rank; and where the rows of a segment
// lie, one after the other, in a message.
struct SegmentsView {
    const std::int32_t* features;
    std::size_t num_features, per_feature;
    const std::int64_t* bounds;  // F * per_feature + 1: segment i has the keys bounds[i]..bounds[i + 1] - 1
    const std::int64_t* places;  // F * per_feature: its first float; below 0: of its rows there are none
};

struct KeptSegments {
    SegmentsView segments;
    const std::uint32_t* rows;
    const float* message;       // gradients, one a key
    const std::int32_t* times;  // how many occurrences the gradient of a key stands for; null: one
};

using KeptGradients = std::variant<KeptLookup, KeptSegments>;

class Store {
public:
    Store(const Kernels& kernels, const std::vector<TableSpec>& tables, const std::vector<int>& feature_tables, int threads);

    // The row of every key, a list for each feature. Throws std::out_of_range for a key outside a fixed table or its part. A
    // key that occurred m times is admitted as m occurrences in a row. In training, a table that shares another's keys
    // reads the rows that lookups of that one, this one among them, have made: it counts and admits nothing itself.
    void resolve(const LookupView& lookup, const std::int64_t* keys, bool train, int threads, std::uint32_t* rows);

    // The same for keys of one table, changing nothing.
    void find(int table, const std::int64_t* keys, std::size_t n, int threads, std::uint32_t* rows) const;

    void pooled(const LookupView& lookup, const std::uint32_t* rows, int threads, float* out) const;
    void dots(const LookupView& lookup, const std::uint32_t* rows, const float* gradient, int threads, float* out) const;
    void gather(const SegmentsView& segments, const std::uint32_t* rows, int threads, float* message) const;

    // Outlives the store while Python holds an output.
    const std::shared_ptr<OutputPool>& outputs() const { return outputs_; }

    // Of a part's trained cold row nothing that segments bring counts: its gradients are summed over all parts first.
    double gradient_norm(const std::vector<KeptGradients>& kept, int threads);
    std::vector<UpdateCounts> update(const std::vector<KeptGradients>& kept, double factor, float scale, int threads);

    std::size_t width(const LookupView& lookup) const;  // floats of one bag's output
    int table_of(int feature) const { return feature_tables_.at(static_cast<std::size_t>(feature)); }

    TableRows& rows(int table) { return *tables_.at(static_cast<std::size_t>(table)).rows; }
    const TableConfig& config(int table) const { return tables_.at(static_cast<std::size_t>(table)).spec.config; }
    Collisionless* keys(int table) { return tables_.at(static_cast<std::size_t>(table)).keys.get(); }
    std::uint64_t num_rows(int table) const;  // addressable: of a fixed table all, else the rows ever taken
    const KeyIndex* index(int table) const { return tables_.at(static_cast<std::size_t>(table)).index.get(); }
    // Whether the table has its keys for itself, or is the one that others share the keys of.
    bool leads(int table) const { return leads(tables_.at(static_cast<std::size_t>(table))); }
    // Empties a collisionless table, and those that share its keys, as they were made.
    void clear(int table);

    // Rows for keys of a saved collisionless table; see Collisionless::place.
    void place(int table, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, int threads,
               std::uint32_t* rows);

    // Changes from now on belong to the next cut; returns the one that ends here, 1 being the first.
    std::uint32_t draw_cut();
    // Nobody will ask for what changed in cuts up to this one.
    void forget(std::uint32_t cut);

    // Gives keys of a collisionless table that have no row a fresh one; of a fixed table makes their rows fresh.
    void make(int table, const std::int64_t* keys, std::size_t n);
    void make_fresh(int table, const std::uint32_t* rows, std::size_t n);

    // Training has seen these rows.
    void see(int table, const std::uint32_t* rows, std::size_t n);

    // Keys alive whose rows changed after a cut (0: all), with their rows.
    KeyList list_rows(int table, std::uint32_t after, int threads) const;
    // The same of all rows of an image, in slices between changes; `now`: the clock when it was taken.
    KeyList list_rows(int table, RowImage& image, std::uint32_t now, int threads);

    // Whoever changes rows takes a turn; what copies them in the background yields to it.
    Turns& turns() { return turns_; }

private:
    struct Missed {  // keys that a lookup found no row for, and where in it; kept for their memory
        std::vector<std::int64_t> places, keys;
        std::vector<std::int32_t> counts;  // where the lookup has any
        std::vector<std::uint32_t> rows;
        std::vector<FreshRow> fresh;
    };
    struct Table {
        TableSpec spec;
        std::unique_ptr<TableRows> rows;
        std::shared_ptr<Collisionless> keys;  // of a collisionless table
        std::shared_ptr<KeyIndex> index;      // of a part of a fixed one
        Missed missed;
        std::vector<std::size_t> sharing;  // it and the tables that share its keys; of one of these nothing
    };
    struct Span {  // keys begin..end-1 of a lookup, in one table
        std::size_t table;
        std::int64_t begin, end;
    };

    static bool leads(const Table& table) { return table.spec.keys_of < 0; }
    Table& leader_of(Table& table) { return leads(table) ? table : tables_[static_cast<std::size_t>(table.spec.keys_of)]; }
    void add_table(const TableSpec& spec, int threads);
    void make_collisionless(Table& leader);
    RowFilter filter_of(const Table& table, std::uint32_t after, std::uint32_t now) const;
    std::vector<KeptTable> by_table(const std::vector<KeptGradients>& kept);
    void add(const KeptLookup& kept, std::vector<KeptTable>& tables) const;
    void add(const KeptSegments& kept, std::vector<KeptTable>& tables);
    std::vector<int> columns(const LookupView& lookup) const;
    void make_fixed_rows(Table& table, int threads) const;
    void resolve_fixed(const Span& span, const std::int64_t* keys, std::uint32_t* rows) const;
    [[noreturn]] void refuse(const Table& table, std::int64_t key) const;
    void admit_missed(Table& table, const std::vector<Span>& pieces, const std::int64_t* keys,
                      const std::int32_t* counts, std::uint32_t* rows);
    void reset_fresh(int threads);
    void resolve_collisionless(const std::vector<Span>& spans, const std::int64_t* keys, const std::int32_t* counts,
                               bool train, int threads, std::uint32_t* rows);

    Kernels kernels_;
    std::vector<Table> tables_;
    std::vector<int> feature_tables_;
    Workspace space_;
    std::shared_ptr<OutputPool> outputs_ = std::make_shared<OutputPool>();
    std::uint32_t cut_ = 1;
    Turns turns_;
};

}  // namespace embtables
