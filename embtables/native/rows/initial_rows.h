// Fresh rows: a pure function of (table seed, key), the same bits as embtables/rows/initial.py.
#pragma once

#include <cstdint>

namespace embtables {

enum class Initial : int { zeros = 0, constant = 1, normal = 2, uniform = 3 };

struct InitialRow {
    Initial kind;
    std::uint64_t seed;
    float a;  // constant: the value; normal: what the centred sum of four 16-bit uniforms is times; uniform: low
    float b;  // uniform: high - low
};

namespace philox {

struct Words {
    std::uint32_t w[4];
};

// Philox4x32-10 (Salmon et al. 2011) of counter (key low, key high, block, 0) under the table's seed.
inline Words words(std::uint64_t seed, std::uint64_t key, std::uint32_t block) {
    std::uint32_t c0 = static_cast<std::uint32_t>(key), c1 = static_cast<std::uint32_t>(key >> 32), c2 = block, c3 = 0;
    std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
        c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<std::uint32_t>(p1);
        c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<std::uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace philox

// Writes the `dim` values of the key's fresh row.
inline void fill_initial_row(const InitialRow& initial, std::int64_t key, int dim, float* row) {
    const auto k = static_cast<std::uint64_t>(key);
    if (initial.kind == Initial::normal) {
        for (int j = 0; j < dim; j += 2) {
            const philox::Words r = philox::words(initial.seed, k, static_cast<std::uint32_t>(j / 2));
            for (int i = 0; i < 2 && j + i < dim; ++i) {
                const std::uint32_t x = r.w[2 * i], y = r.w[2 * i + 1];
                const auto sum = static_cast<std::int32_t>((x & 0xFFFFu) + (x >> 16) + (y & 0xFFFFu) + (y >> 16));
                row[j + i] = static_cast<float>(sum - 2 * 0xFFFF) * initial.a;
            }
        }
    } else if (initial.kind == Initial::uniform) {
        for (int j = 0; j < dim; j += 4) {
            const philox::Words r = philox::words(initial.seed, k, static_cast<std::uint32_t>(j / 4));
            for (int i = 0; i < 4 && j + i < dim; ++i) {
                const float scaled = initial.b * (static_cast<float>(r.w[i] >> 8) * 0x1p-24f);
                row[j + i] = initial.a + scaled;
            }
        }
    } else {
        for (int j = 0; j < dim; ++j) row[j] = initial.a;
    }
}

}  // namespace embtables
