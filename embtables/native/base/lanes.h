// Rows as blocks of eight floats, for any instruction set; element j of a row adds to virtual lane j % 16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace embtables::EMBTABLES_KERNEL {

typedef float Block __attribute__((vector_size(32)));

inline constexpr int kMaxDim = 4096;

inline Block load(const float* p) {
    Block block;
    std::memcpy(&block, p, sizeof block);
    return block;
}

inline void store(float* p, Block block) { std::memcpy(p, &block, sizeof block); }

inline Block spread(float value) { return Block{value, value, value, value, value, value, value, value}; }

inline Block root(Block x) {
    for (int j = 0; j < 8; ++j) x[j] = __builtin_sqrtf(x[j]);
    return x;
}

// The sum of 16 lanes, halves added three times over: lanes 8 apart, 4 apart, 2 apart, neighbours.
inline float add_lanes(Block low, Block high) {
    const Block x = low + high;
    const float a = x[0] + x[4], b = x[1] + x[5], c = x[2] + x[6], d = x[3] + x[7];
    return (a + c) + (b + d);
}

// The floats of one row: D of them where the compiler knows (a multiple of 8, or fewer than 8), `dim` where D is 0.
// Elements beyond the last are zero and are not stored.
template <int D>
struct Row {
    static_assert(D % 8 == 0 || D < 8);
    Block block[D == 0 ? kMaxDim / 8 : (D + 7) / 8];
    int dim;

    explicit Row(int width) : dim(D == 0 ? width : D) {
        for (int v = 0; v < count(); ++v) block[v] = Block{};
    }

    Row(const float* p, int width) : dim(D == 0 ? width : D) {
        const int whole = (D == 0 ? dim : D) / 8, rest = (D == 0 ? dim : D) % 8;
        for (int v = 0; v < whole; ++v) block[v] = load(p + 8 * v);
        if (rest != 0) {
            block[whole] = Block{};
            std::memcpy(&block[whole], p + 8 * whole, rest * sizeof(float));
        }
    }

    int count() const { return D == 0 ? (dim + 7) / 8 : (D + 7) / 8; }

    void to(float* p) const {
        const int whole = (D == 0 ? dim : D) / 8, rest = (D == 0 ? dim : D) % 8;
        for (int v = 0; v < whole; ++v) store(p + 8 * v, block[v]);
        if (rest != 0) std::memcpy(p + 8 * whole, &block[whole], rest * sizeof(float));
    }

    void add(const Row& other) {
        for (int v = 0; v < count(); ++v) block[v] += other.block[v];
    }

    void add_scaled(const Row& other, float factor) {
        const Block f = spread(factor);
        for (int v = 0; v < count(); ++v) block[v] += other.block[v] * f;
    }

    void scale(float factor) {
        const Block f = spread(factor);
        for (int v = 0; v < count(); ++v) block[v] *= f;
    }

    float dot(const Row& other) const {
        Block lanes[2] = {Block{}, Block{}};
        for (int v = 0; v < count(); ++v) lanes[v % 2] += block[v] * other.block[v];
        return add_lanes(lanes[0], lanes[1]);
    }

    // x * 0 is 0 for every finite x and NaN for every other.
    bool finite() const {
        Block sum{};
        for (int v = 0; v < count(); ++v) sum += block[v] * 0.0f;
        return add_lanes(sum, Block{}) == 0.0f;
    }
};

inline void prefetch_row(const float* row, int floats) {
    for (int j = 0; j < floats; j += 16) __builtin_prefetch(row + j);
}

}  // namespace embtables::EMBTABLES_KERNEL
