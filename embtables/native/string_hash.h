// The 64-bit hash of string ids: XXH3-64 with seed 0, pinned for ever (docs/hash.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace embtables {

// Hashes n strings of an Arrow string array: string i is data[offsets[i] .. offsets[i + 1]).
// The caller has checked that offsets never fall and stay within the data (check_offsets).
template <typename Offset>
using HashStrings = void (*)(const std::uint8_t* data, const Offset* offsets, std::size_t n, std::int64_t* out);

#define EMBTABLES_DECLARE_KERNEL(isa)                                                                          \
    namespace isa {                                                                                            \
    void hash_strings_32(const std::uint8_t*, const std::int32_t*, std::size_t, std::int64_t*);                \
    void hash_strings_64(const std::uint8_t*, const std::int64_t*, std::size_t, std::int64_t*);                \
    }
EMBTABLES_DECLARE_KERNEL(scalar)
EMBTABLES_DECLARE_KERNEL(avx2)
EMBTABLES_DECLARE_KERNEL(avx512)
#undef EMBTABLES_DECLARE_KERNEL

// Whether n + 1 offsets start at 0 or later, never fall, and end within data_size bytes.
template <typename Offset>
bool check_offsets(const Offset* offsets, std::size_t n, std::size_t data_size) {
    if (offsets[0] < 0 || static_cast<std::uint64_t>(offsets[n]) > data_size || offsets[n] < 0) return false;
    bool falls = false;
    for (std::size_t i = 0; i < n; ++i) falls |= offsets[i + 1] < offsets[i];
    return !falls;
}

}  // namespace embtables
