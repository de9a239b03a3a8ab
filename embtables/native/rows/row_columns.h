// One column of given rows: what is read and written by row number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "base/parallel.h"
#include "rows/row_arrays.h"

namespace embtables {

// What a row consists of: the weight, optimizer state of D values, the one value of rowwise Adagrad.
enum class Column : int { weight = 0, state1 = 1, state2 = 2, row_sum = 3 };

// Where a row has the column.
inline float* place_of(const RowArrays& arrays, Column column, std::size_t row) {
    if (column == Column::row_sum) return &arrays.meta[row].sum;
    float* const base = column == Column::weight   ? arrays.weight
                        : column == Column::state1 ? arrays.state1
                                                   : arrays.state2;
    return base + row * static_cast<std::size_t>(arrays.stride);
}

// Calls f(where the row has the column, i) for every rows[i].
template <typename F>
void each_row(const RowArrays& arrays, int column, const std::uint32_t* rows, std::size_t n, int threads, F&& f) {
    constexpr std::size_t kChunk = 8192, kAhead = 16;
    const auto at = [&](std::size_t row) { return place_of(arrays, static_cast<Column>(column), row); };
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](std::size_t c) {
        const std::size_t end = std::min(n, (c + 1) * kChunk);
        for (std::size_t i = c * kChunk; i < end; ++i) {
            if (i + kAhead < end) __builtin_prefetch(at(rows[i + kAhead]));
            f(at(rows[i]), i);
        }
    });
}

}  // namespace embtables
