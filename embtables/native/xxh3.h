// XXH3-64 with seed 0, written from the algorithm's published description
// (Yann Collet, "xxHash fast digest algorithm", doc/xxhash_spec.md, XXH3 part).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace embtables::EMBTABLES_KERNEL {

using u8 = std::uint8_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

static_assert(std::endian::native == std::endian::little, "the hash reads little-endian words");

// Default secret of XXH3: 192 bytes given by the specification.
alignas(64) inline constexpr u8 kSecret[] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d,
    0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0,
    0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0,
    0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b,
    0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0,
    0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3,
    0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3,
    0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1,
    0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40,
    0x7e,
};

static_assert(sizeof kSecret == 192);

inline constexpr u64 kPrime32_1 = 0x9E3779B1u, kPrime32_2 = 0x85EBCA77u, kPrime32_3 = 0xC2B2AE3Du;
inline constexpr u64 kPrime64_1 = 0x9E3779B185EBCA87u, kPrime64_2 = 0xC2B2AE3D27D4EB4Fu;
inline constexpr u64 kPrime64_3 = 0x165667B19E3779F9u, kPrime64_4 = 0x85EBCA77C2B2AE63u;
inline constexpr u64 kPrime64_5 = 0x27D4EB2F165667C5u;
inline constexpr u64 kPrimeMx1 = 0x165667919E3779F9u, kPrimeMx2 = 0x9FB21C651E98DF25u;

inline u64 read64(const u8* p) {
    u64 value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

inline u32 read32(const u8* p) {
    u32 value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

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

inline void accumulate(u64 (&acc)[8], const u8* p, const u8* secret) {
    for (std::size_t i = 0; i < 8; ++i) {
        const u64 value = read64(p + 8 * i);
        const u64 key = value ^ read64(secret + 8 * i);
        acc[i ^ 1] += value;
        acc[i] += (key & 0xFFFFFFFFu) * (key >> 32);
    }
}

inline u64 hash_over_240(const u8* p, std::size_t n) {
    constexpr std::size_t stripe = 64, stripes_a_block = (sizeof kSecret - stripe) / 8;
    constexpr std::size_t block = stripe * stripes_a_block;
    u64 acc[8] = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3, kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
    const std::size_t blocks = (n - 1) / block;
    for (std::size_t b = 0; b < blocks; ++b) {
        for (std::size_t s = 0; s < stripes_a_block; ++s) accumulate(acc, p + b * block + s * stripe, kSecret + 8 * s);
        for (std::size_t i = 0; i < 8; ++i) {
            acc[i] = (acc[i] ^ (acc[i] >> 47) ^ read64(kSecret + sizeof kSecret - stripe + 8 * i)) * kPrime32_1;
        }
    }
    const std::size_t stripes = (n - 1 - block * blocks) / stripe;
    for (std::size_t s = 0; s < stripes; ++s) accumulate(acc, p + blocks * block + s * stripe, kSecret + 8 * s);
    accumulate(acc, p + n - stripe, kSecret + sizeof kSecret - stripe - 7);
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
