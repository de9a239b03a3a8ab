// XXH3-64 with seed 0, written from the algorithm's published description
// (Yann Collet, "xxHash fast digest algorithm", doc/xxhash_spec.md, XXH3 part).
#pragma once

#include "strings/stripes.h"
#include "strings/words.h"

namespace embtables::EMBTABLES_KERNEL {

inline u64 fold128(u64 a, u64 b) {
    __extension__ typedef unsigned __int128 u128;
    const u128 product = static_cast<u128>(a) * b;
    return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
}

inline u64 avalanche64(u64 h) {
    h = (h ^ (h >> 33)) * kPrime64_2;
    h = (h ^ (h >> 29)) * kPrime64_3;
    return h ^ (h >> 32);
}

inline u64 avalanche3(u64 h) {
    h = (h ^ (h >> 37)) * kPrimeMx1;
    return h ^ (h >> 32);
}

inline u64 mix16(const u8* p, const u8* secret) {
    return fold128(read64(p) ^ read64(secret), read64(p + 8) ^ read64(secret + 8));
}

inline u64 hash_0(void) { return avalanche64(read64(kSecret + 56) ^ read64(kSecret + 64)); }

inline u64 hash_1_to_3(const u8* p, std::size_t n) {
    const u32 packed = (static_cast<u32>(p[0]) << 16) | (static_cast<u32>(p[n >> 1]) << 24) | p[n - 1] |
                       (static_cast<u32>(n) << 8);
    return avalanche64(static_cast<u64>(packed) ^ (read32(kSecret) ^ read32(kSecret + 4)));
}

// The word of a 4 to 8 byte string, and its finaliser: apart, so that the finaliser runs over many strings at once.
inline u64 word_4_to_8(const u8* p, std::size_t n) {
    return read32(p + n - 4) + (static_cast<u64>(read32(p)) << 32);
}

inline u64 finish_4_to_8(u64 word, u64 n) {
    u64 h = word ^ (read64(kSecret + 8) ^ read64(kSecret + 16));
    h ^= std::rotl(h, 49) ^ std::rotl(h, 24);
    h *= kPrimeMx2;
    h ^= (h >> 35) + n;
    h *= kPrimeMx2;
    return h ^ (h >> 28);
}

inline u64 hash_9_to_16(const u8* p, std::size_t n) {
    const u64 low = read64(p) ^ (read64(kSecret + 24) ^ read64(kSecret + 32));
    const u64 high = read64(p + n - 8) ^ (read64(kSecret + 40) ^ read64(kSecret + 48));
    return avalanche3(n + __builtin_bswap64(low) + high + fold128(low, high));
}

inline u64 hash_17_to_128(const u8* p, std::size_t n) {
    u64 acc = n * kPrime64_1;
    for (std::size_t i = (n - 1) / 32 + 1; i-- > 0;)
        acc += mix16(p + 16 * i, kSecret + 32 * i) + mix16(p + n - 16 * (i + 1), kSecret + 32 * i + 16);
    return avalanche3(acc);
}

inline u64 hash_129_to_240(const u8* p, std::size_t n) {
    u64 acc = n * kPrime64_1;
    for (std::size_t i = 0; i < 8; ++i) acc += mix16(p + 16 * i, kSecret + 16 * i);
    acc = avalanche3(acc);
    for (std::size_t i = 8; i < n / 16; ++i) acc += mix16(p + 16 * i, kSecret + 16 * (i - 8) + 3);
    return avalanche3(acc + mix16(p + n - 16, kSecret + 136 - 17));
}

inline u64 hash_over_240(const u8* p, std::size_t n) {
    constexpr std::size_t stripes_a_block = (sizeof kSecret - kStripe) / 8, block = kStripe * stripes_a_block;
    constexpr u64 start[8] = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
                              kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
    const u8* const last_stripe = p + n - kStripe;
    Accumulators accumulators(start);
    const std::size_t blocks = (n - 1) / block;
    for (std::size_t b = 0; b < blocks; ++b, p += block) {
        for (std::size_t s = 0; s < stripes_a_block; ++s) accumulators.add(p + kStripe * s, kSecret + 8 * s);
        accumulators.scramble(kSecret + sizeof kSecret - kStripe);
    }
    const std::size_t stripes = (n - 1 - block * blocks) / kStripe;
    for (std::size_t s = 0; s < stripes; ++s) accumulators.add(p + kStripe * s, kSecret + 8 * s);
    accumulators.add(last_stripe, kSecret + sizeof kSecret - kStripe - 7);
    u64 acc[8];
    accumulators.store(acc);
    u64 result = n * kPrime64_1;
    for (std::size_t i = 0; i < 4; ++i)
        result += fold128(acc[2 * i] ^ read64(kSecret + 11 + 16 * i), acc[2 * i + 1] ^ read64(kSecret + 19 + 16 * i));
    return avalanche3(result);
}

inline u64 hash_one(const u8* p, std::size_t n) {
    if (n <= 16) {
        if (n > 8) return hash_9_to_16(p, n);
        if (n >= 4) return finish_4_to_8(word_4_to_8(p, n), n);
        return n > 0 ? hash_1_to_3(p, n) : hash_0();
    }
    if (n <= 128) return hash_17_to_128(p, n);
    return n <= 240 ? hash_129_to_240(p, n) : hash_over_240(p, n);
}

}  // namespace embtables::EMBTABLES_KERNEL
