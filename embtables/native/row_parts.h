// One tensor's part of given rows: what is read and written by row number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "parallel.h"
#include "table_rows.h"

namespace embtables {

// The tensors a row has a part of: the weight, optimizer state of D values, the one value of rowwise Adagrad.
enum class Part : int { weight = 0, state1 = 1, state2 = 2, row_sum = 3 };

// Floats of the part in a row. Throws std::invalid_argument where the table has no such part.
inline std::size_t width_of(const TableRows& table, int part) {
    const auto p = static_cast<Part>(part);
    const bool has = p == Part::weight || (p == Part::row_sum ? table.config().rule == Rule::rowwise_adagrad
                                                              : part > 0 && part <= table.num_states());
    if (!has) throw std::invalid_argument("the table has no such part");
    return p == Part::row_sum ? 1 : static_cast<std::size_t>(table.config().dim);
}

// Calls f(where the row's part lies, i) for every rows[i].
template <typename F>
void each_part(const RowArrays& arrays, int part, const std::uint32_t* rows, std::size_t n, int threads, F&& f) {
    constexpr std::size_t kChunk = 8192, kAhead = 16;
    const auto p = static_cast<Part>(part);
    float* const base = p == Part::weight ? arrays.weight : p == Part::state1 ? arrays.state1 : arrays.state2;
    const auto at = [&](std::size_t row) {
        return p == Part::row_sum ? &arrays.meta[row].sum : base + row * static_cast<std::size_t>(arrays.stride);
    };
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](std::size_t c) {
        const std::size_t end = std::min(n, (c + 1) * kChunk);
        for (std::size_t i = c * kChunk; i < end; ++i) {
            if (i + kAhead < end) __builtin_prefetch(at(rows[i + kAhead]));
            f(at(rows[i]), i);
        }
    });
}

}  // namespace embtables
