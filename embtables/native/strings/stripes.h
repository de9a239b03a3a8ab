// The eight accumulators of XXH3's path for more than 240 bytes. Each 64-byte stripe adds, to lane i, its word of lane
// i ^ 1 and the product of the two halves of (word ^ secret). Two 32-byte registers serve AVX2 and AVX-512 alike.
#pragma once

#include "strings/words.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace embtables::EMBTABLES_KERNEL {

inline constexpr std::size_t kStripe = 64;

#if defined(__AVX2__)

class Accumulators {
public:
    explicit Accumulators(const u64 (&start)[8]) : lanes_{load(start), load(start + 4)} {}

    void add(const u8* stripe, const u8* secret) {
        for (int half = 0; half < 2; ++half) {
            const __m256i word = load(stripe + 32 * half);
            const __m256i key = _mm256_xor_si256(word, load(secret + 32 * half));
            const __m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
            const __m256i swapped = _mm256_shuffle_epi32(word, _MM_SHUFFLE(1, 0, 3, 2));
            lanes_[half] = _mm256_add_epi64(lanes_[half], _mm256_add_epi64(product, swapped));
        }
    }

    void scramble(const u8* secret) {
        for (int half = 0; half < 2; ++half) {
            const __m256i mixed = _mm256_xor_si256(lanes_[half], _mm256_srli_epi64(lanes_[half], 47));
            const __m256i key = _mm256_xor_si256(mixed, load(secret + 32 * half));
            const __m256i prime = _mm256_set1_epi64x(static_cast<long long>(kPrime32_1));
            const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(key, 32), prime);
            lanes_[half] = _mm256_add_epi64(_mm256_mul_epu32(key, prime), _mm256_slli_epi64(high, 32));
        }
    }

    void store(u64 (&out)[8]) const {
        for (int half = 0; half < 2; ++half)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * half), lanes_[half]);
    }

private:
    static __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

    __m256i lanes_[2];
};

#else

class Accumulators {
public:
    explicit Accumulators(const u64 (&start)[8]) { std::memcpy(lanes_, start, sizeof lanes_); }

    void add(const u8* stripe, const u8* secret) {
        for (std::size_t i = 0; i < 8; ++i) {
            const u64 word = read64(stripe + 8 * i);
            const u64 key = word ^ read64(secret + 8 * i);
            lanes_[i ^ 1] += word;
            lanes_[i] += (key & 0xFFFFFFFFu) * (key >> 32);
        }
    }

    void scramble(const u8* secret) {
        for (std::size_t i = 0; i < 8; ++i)
            lanes_[i] = (lanes_[i] ^ (lanes_[i] >> 47) ^ read64(secret + 8 * i)) * kPrime32_1;
    }

    void store(u64 (&out)[8]) const { std::memcpy(out, lanes_, sizeof lanes_); }

private:
    u64 lanes_[8];
};

#endif

}  // namespace embtables::EMBTABLES_KERNEL
