// Which keys of a fixed table are of one part of the key space, and their places among these, as the kernels see it
// (key_index.h). Everything inline here is inlined by force: see map_view.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace embtables {

// A cache line of keys, a bit each, so that a search reads one.
struct alignas(64) RankLine {
    static constexpr std::size_t kWords = 7;
    static constexpr std::uint64_t kKeys = 64 * kWords;

    std::uint64_t before;         // keys of the part in all lines before
    std::uint64_t owned[kWords];

    [[gnu::always_inline]] bool owns(std::uint64_t place) const { return (owned[place / 64] >> (place % 64) & 1) != 0; }
};
static_assert(sizeof(RankLine) == 64);

// Looks up keys[0..n): rows[i] is how many keys of the part are below keys[i], or kMissed where it is none of them.
// Returns how many were missed.
struct RankWork {
    const RankLine* lines;
    std::uint64_t num_keys;
    const std::int64_t* keys;
    std::size_t n;
    std::uint32_t* rows;
};
using RankRows = std::size_t (*)(const RankWork&);

namespace scalar {
std::size_t rank_rows(const RankWork&);
}
namespace avx2 {
std::size_t rank_rows(const RankWork&);
}
namespace avx512 {
std::size_t rank_rows(const RankWork&);
}

}  // namespace embtables
