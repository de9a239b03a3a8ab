// The order of keys in files: by bucket, the top ten bits of the mix of (table seed, key), and then by value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace embtables {

inline constexpr std::size_t kNumBuckets = 1024;

// order[0..n): where the keys of bucket 0, 1, ... lie among `keys`. n below 2^32.
void bucket_order(const std::int64_t* keys, std::size_t n, std::uint64_t seed, int threads, std::uint32_t* order);

}  // namespace embtables
