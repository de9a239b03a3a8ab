// The fixed 64-bit bijective mix (embtables/ids/mix.py states and pins it) and its inverse.
#pragma once

#include <cstdint>

namespace embtables {

inline constexpr std::uint64_t kGoldenGamma = 0x9E3779B97F4A7C15u;

[[gnu::always_inline]] inline std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

[[gnu::always_inline]] inline std::uint64_t unmix(std::uint64_t x) {
    x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642B2D24D8EC3u;
    x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96DE1B173F119089u;
    return x ^ (x >> 30) ^ (x >> 60);
}

}  // namespace embtables
