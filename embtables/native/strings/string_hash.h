// The 64-bit hash of string ids: XXH3-64 with seed 0, pinned for ever (docs/hash.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace embtables {

// Hashes n strings of an Arrow string array: string i is data[offsets[i] .. offsets[i + 1]). The n + 1 offsets are
// checked first: where one is negative, falls, or points past data_size, the answer is false and nothing was read.
template <typename Offset>
using HashStrings = bool (*)(const std::uint8_t* data, std::size_t data_size, const Offset* offsets, std::size_t n,
                             std::int64_t* out);

#define EMBTABLES_DECLARE_KERNEL(isa)                                                                                  \
    namespace isa {                                                                                                    \
    bool hash_strings_32(const std::uint8_t*, std::size_t, const std::int32_t*, std::size_t, std::int64_t*);           \
    bool hash_strings_64(const std::uint8_t*, std::size_t, const std::int64_t*, std::size_t, std::int64_t*);           \
    }
EMBTABLES_DECLARE_KERNEL(scalar)
EMBTABLES_DECLARE_KERNEL(avx2)
EMBTABLES_DECLARE_KERNEL(avx512)
#undef EMBTABLES_DECLARE_KERNEL

}  // namespace embtables
