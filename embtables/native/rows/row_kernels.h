// What runs over rows, compiled once an instruction set: pooling, gathering, inner products, and the update.
//
// Every sum has one fixed order, so that all instruction sets and thread counts give the same bits: over a bag in the
// order of its ids; over a row in 16 virtual lanes (element j in lane j % 16) that are then added pairwise; over a row's
// gradients in their order in the batch, in pieces of kPiece. The files are compiled without contraction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows/row_arrays.h"
#include "rows/rules.h"

namespace embtables {

inline constexpr std::size_t kPiece = 512;

// One feature of a pooled lookup, bags begin..end-1.
struct PooledWork {
    const float* base;             // the table's first row
    int dim, stride;               // floats of a row, and from row to row
    const std::uint32_t* rows;     // of all keys of the lookup
    const std::int64_t* offsets;   // of the feature's bags
    const float* weights;          // of all keys, or null for ones
    std::int64_t begin, end;
    float* out;                    // the feature's first column in bag 0
    std::int64_t out_stride;
    float scale = 1.0f;            // a row is so many times what lies there
};

// n rows, each to its place in `out` (n, dim); or their inner products with the gradients of their bags.
struct GatherWork {
    const float* base;
    int dim, stride;
    const std::uint32_t* rows;
    std::int64_t begin, end;
    float* out;
    float scale = 1.0f;
};

struct DotWork {
    const float* base;
    int dim, stride;
    const std::uint32_t* rows;     // of all keys of the lookup
    const std::int64_t* offsets;   // of the feature's bags
    std::int64_t begin, end;       // bags
    const float* gradient;         // the feature's first column in bag 0
    std::int64_t gradient_stride;
    float* out;                    // of all keys
    float scale = 1.0f;
};

// A piece of the batch's gradients: bag b of it has its gradient at gradient + b * stride, which stands for times[b]
// occurrences, or, where that is null, for one.
struct GradientSource {
    const float* gradient;
    std::int64_t stride;
    const std::int32_t* times;
};

// The gradients of some rows of one table: item = row << 32 | source << bag_bits | bag, or, with weights,
// row << 32 | i with the source and bag in packed[i] and the factor in weights[i]. Items of a row lie together.
struct UpdateGroup {
    RowArrays rows;
    float weight_scale;  // weights are so many times what lies there
    int dim;
    const std::uint64_t* items;
    std::size_t size;
    const GradientSource* sources;
    bool counted;  // a source has times
    int bag_bits;
    const std::uint32_t* packed;  // null without weights
    const float* weights;
    std::uint32_t first_row;  // rows below it are left as they are
    float scale;              // of every gradient
    // Of an update:
    std::uint32_t cut, now;  // the present ones
    ImageView image;
    std::uint32_t* touched;  // receives the rows that had not changed in this cut; room for `size`
    StepRule rule;
};

struct UpdateCounts {
    std::uint64_t rows = 0, refused = 0;  // rows updated; rows left alone because their gradient was not finite
    std::uint64_t touched = 0;
};

struct RowKernels {
    void (*pooled)(const PooledWork&);
    void (*gather)(const GatherWork&);
    void (*dots)(const DotWork&);
    void (*update)(const UpdateGroup&, UpdateCounts&);
    // Sums of squares of the rows' gradients, each cut to a multiple of 2^-60, so that their sum has no order.
    // False where one is not finite or beyond 2^66.
    bool (*squares)(const UpdateGroup&, unsigned __int128& total);
    void (*sort)(std::uint64_t* items, std::uint64_t* scratch, std::size_t n, int low_bit, int high_bit);
};

namespace scalar {
extern const RowKernels row_kernels;
}
namespace avx2 {
extern const RowKernels row_kernels;
}
namespace avx512 {
extern const RowKernels row_kernels;
}

}  // namespace embtables
