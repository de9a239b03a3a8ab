// A table's rows as bare arrays, for the kernels and for copies. Inlined by force: see map_view.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace embtables {

// Beside each row: the state of rowwise Adagrad; the cut in which it last changed (0: it is in no list, for it is
// free, or fresh and not yet part of a step); how many gradients it had; the clock when it was last seen.
struct RowMeta {
    float sum;
    std::uint32_t cut, count, seen;
};

struct RowArrays {
    float* weight;
    float* state1;  // null where the optimizer has none
    float* state2;
    RowMeta* meta;
    std::int64_t* keys;  // null of a fixed table, whose keys are row numbers
    int stride;          // floats from row to row
};

// What is stored of a weight that is `scale` times it: a finite one, though the weight may then be smaller. A scale is
// 2^-32 or more, so that this concerns weights beyond 2^96 alone.
[[gnu::always_inline]] inline float unscaled(float weight, float scale) {
    constexpr float kMost = 0x1.fffffep127f;
    const float stored = weight / scale;
    return __builtin_isinf(stored) && !__builtin_isinf(weight) ? __builtin_copysignf(kMost, weight) : stored;
}

[[gnu::always_inline]] inline void copy_row(const RowArrays& from, const RowArrays& to, std::size_t row) {
    const std::size_t at = row * static_cast<std::size_t>(from.stride), bytes = sizeof(float) * static_cast<std::size_t>(from.stride);
    std::memcpy(to.weight + at, from.weight + at, bytes);
    if (from.state1 != nullptr) std::memcpy(to.state1 + at, from.state1 + at, bytes);
    if (from.state2 != nullptr) std::memcpy(to.state2 + at, from.state2 + at, bytes);
    if (from.keys != nullptr) to.keys[row] = from.keys[row];
    to.meta[row] = from.meta[row];
}

// Where rows go before they change while a table is captured: those that last changed in a cut up to `cut`. 0: nowhere.
struct ImageView {
    RowArrays rows;
    std::uint8_t* saved;  // by row
    std::uint32_t cut;

    [[gnu::always_inline]] bool wants(const RowMeta& meta) const { return meta.cut - 1 < cut; }
    [[gnu::always_inline]] void save(const RowArrays& from, std::size_t row) const {
        if (!wants(from.meta[row])) return;
        copy_row(from, rows, row);
        saved[row] = 1;
    }
};

}  // namespace embtables
