// What one lookup asks of the ranks that own its keys, and what is made of their answers (docs/sharding.md).
//
//   occurrences of keys -> distinct keys by (rank, block) -> sent; rows come back in the same order -> pooled by bag
//   gradients by bag -> summed by distinct key, in the order of the batch -> sent, in the same order
//
// A block is what is deduplicated together: the features of one table, or one feature. Keys of a (rank, block) stand in the
// order of their first occurrence. A message with rows holds, for each rank, `header` floats and then its rows, block
// after block.
#pragma once

#include <cstdint>
#include <vector>

#include "rows/row_kernels.h"
#include "store/store.h"

namespace embtables {

struct ExchangeBlock {
    std::uint64_t seed;  // of the table
    int dim;
    int holder;  // the rank that has all of the table's keys; -1: each the keys of its buckets
};

class KeyExchange {
public:
    // owners: the rank of each of the 1,024 buckets. Throws std::length_error where a message would have 2^32 floats.
    KeyExchange(const RowKernels& kernels, std::vector<ExchangeBlock> blocks, const LookupView& lookup,
                const std::int32_t* block_of_feature, const std::int64_t* keys, const std::uint16_t* owners, int ranks,
                int header, int threads);

    std::size_t ranks() const { return ranks_; }
    std::size_t num_blocks() const { return blocks_.size(); }
    const std::vector<std::int64_t>& keys() const { return keys_; }      // distinct
    const std::vector<std::int32_t>& counts() const { return counts_; }  // how often each occurred
    const std::vector<std::int64_t>& sizes() const { return sizes_; }    // (ranks, blocks) distinct keys
    std::size_t num_floats() const { return num_floats_; }               // of a message with their rows
    std::size_t num_occurrences() const { return numbers_.size(); }
    std::size_t num_features() const { return features_.size(); }
    std::size_t width() const { return width_; }  // of a pooled bag
    int dim(std::size_t feature) const { return blocks_[features_[feature].block].dim; }
    std::int64_t size(std::size_t feature) const { return features_[feature].end - features_[feature].begin; }

    // From a message with rows: weighted sums (bags, width); rows of a feature's keys; products with the gradients of
    // their bags, one for each occurrence.
    void pooled(const float* rows, const LookupView& lookup, int threads, float* out) const;
    void gather(const float* rows, std::size_t feature, int threads, float* out) const;
    void dots(const float* rows, const LookupView& lookup, const float* gradient, int threads, float* out) const;

    // Into a message: gradients summed over the occurrences of each key; of sums (bags, width), or of each feature's rows
    // (null: none).
    void sum_pooled(const float* gradient, const LookupView& lookup, int threads, float* rows) const;
    void sum_gathered(const std::vector<const float*>& gradients, int threads, float* rows) const;

private:
    struct Feature {
        std::size_t block;
        std::int64_t begin, end;  // its occurrences
        std::size_t column;       // within a pooled bag
    };
    struct Distinct {  // of a block, in the order of first occurrence
        std::vector<std::int64_t> keys;
        std::vector<std::int32_t> counts;
        std::vector<std::uint16_t> owners;
        std::vector<std::int64_t> by_rank;
    };

    Distinct find_distinct(std::size_t block, const std::int64_t* keys, const std::uint16_t* owners);
    void lay_out(const std::vector<Distinct>& found);
    void number(std::size_t block, const Distinct& found);
    std::size_t at(std::size_t rank, std::size_t block) const { return rank * blocks_.size() + block; }
    template <typename F>
    void sum(const std::vector<const float*>& bases, const float* weights, int threads, float* rows, F&& place) const;

    const RowKernels& kernels_;
    std::vector<ExchangeBlock> blocks_;
    std::vector<Feature> features_;
    std::vector<std::vector<std::size_t>> features_of_;  // by block
    std::size_t ranks_, header_, width_ = 0, num_floats_ = 0;
    std::vector<std::uint32_t> numbers_, places_;  // of each occurrence: its key's number, its row's first float
    std::vector<std::int64_t> keys_, sizes_, first_key_;
    std::vector<std::int32_t> counts_;
    std::vector<std::size_t> first_float_;
};

}  // namespace embtables
