// One step: the gradients kept since the last one are grouped by row and each touched row is updated once.
//
//   kept lookups -> items (row, where its gradient lies) -> groups by the row's low bits -> sorted by row -> kernels
//
// Groups hold some thousand items each and share no row, so they run in parallel; which thread takes which group changes
// nothing in the result.
#pragma once

#include <bit>
#include <cstdint>
#include <deque>
#include <numeric>
#include <vector>

#include "rows/row_kernels.h"
#include "rows/table_rows.h"

namespace embtables {

// The gradients of one feature of one lookup: key i of bag b belongs to row rows[i].
struct KeptFeature {
    const std::uint32_t* rows;     // of all keys of the lookup
    const std::int64_t* offsets;   // of the feature's bags; num_bags + 1
    const float* weights;          // of all keys, or null
    std::int64_t num_bags;
    const float* gradient;         // the feature's first column in bag 0
    std::int64_t stride;
    const std::int32_t* times;     // of its bags, or null; see GradientSource
};

// A table and what was kept for it.
struct KeptTable {
    TableRows* rows;
    std::uint32_t first_row;  // rows below it do not learn
    std::uint32_t now;        // the table's clock
    std::vector<KeptFeature> features;
};

// The keys of a feature, each a bag, without those of row 0: their bags are empty.
struct LearningKeys {
    std::vector<std::uint32_t> rows;
    std::vector<std::int64_t> offsets{0};

    // Makes it the feature's keys.
    explicit LearningKeys(KeptFeature& feature) {
        for (std::int64_t i = 0; i < feature.num_bags; ++i) {
            if (feature.rows[i] != 0) rows.push_back(feature.rows[i]);
            offsets.push_back(static_cast<std::int64_t>(rows.size()));
        }
        feature.rows = rows.data();
        feature.offsets = offsets.data();
    }
    LearningKeys(const LearningKeys&) = delete;
};

// Memory of the steps, kept from one to the next.
struct Workspace {
    Region items, scratch, packed, weights;
    std::deque<LearningKeys> learning;

    // 0, 1, 2, ...: offsets of bags of a key each. Earlier ones stay where they are.
    const std::int64_t* numbers(std::int64_t n) {
        if (counted.empty() || static_cast<std::int64_t>(counted.back().size()) < n) {
            counted.emplace_back(std::bit_ceil(static_cast<std::uint64_t>(n)));
            std::iota(counted.back().begin(), counted.back().end(), 0);
        }
        return counted.back().data();
    }

private:
    std::deque<std::vector<std::int64_t>> counted;
};

class Step {
public:
    // Throws std::length_error where a table has 2^31 or more gradients in one step.
    Step(const RowKernels& kernels, int threads, std::vector<KeptTable> tables, Workspace& space);

    // L2 norm over all rows' gradients; infinite where one is not finite.
    double norm() const;

    // Updates the rows at `factor` times their rates, gradients times `scale`. Returns counts by table.
    std::vector<UpdateCounts> update(double factor, float scale);

private:
    struct Plan {  // of one table
        std::vector<GradientSource> sources;
        int bag_bits = 0, group_bits = 0, row_bits = 0;
        std::size_t size = 0, first_item = 0;      // its items within items_
        std::vector<std::size_t> group_starts;     // within items_
        bool weighted = false, counted = false;
        std::size_t first_packed = 0;
    };
    struct Chunk {  // keys begin..end-1 of one feature
        std::size_t table, feature, first_local;      // first_local: number of its first key among the table's
        std::int64_t begin, end;
    };
    struct Group {
        std::size_t table, begin, end;
    };

    void plan();
    void fill();
    void sort();
    template <typename F>
    void each_key(const Chunk& chunk, F&& f) const;
    UpdateGroup kernel_group(const Group& group, float scale) const;

    const RowKernels& kernels_;
    int threads_;
    std::vector<KeptTable> tables_;
    std::vector<Plan> plans_;
    std::vector<Chunk> chunks_;
    std::vector<Group> groups_;
    Workspace& space_;
};

}  // namespace embtables
