// Batch lookup in a KeyIndex. Compiled once an instruction set; see map_view.h.
#include "keys/map_view.h"
#include "keys/rank_view.h"

namespace embtables::EMBTABLES_KERNEL {
namespace {

constexpr std::size_t kAhead = 32;  // keys whose lines are asked for before they are read

const RankLine& line_of(const RankWork& p, std::uint64_t key) {
    return p.lines[key < p.num_keys ? key / RankLine::kKeys : 0];
}

// Without a branch on the place: which word of a line a key lies in cannot be foreseen.
std::uint64_t below(const RankLine& line, std::uint64_t place) {
    std::uint64_t found = line.before;
    for (std::size_t w = 0; w < RankLine::kWords; ++w) {
        const std::uint64_t first = 64 * w, last = (std::uint64_t{1} << (place % 64)) - 1;
        const std::uint64_t mask = place >= first + 64 ? ~std::uint64_t{0} : place >= first ? last : 0;
        found += static_cast<std::uint64_t>(__builtin_popcountll(line.owned[w] & mask));
    }
    return found;
}

}  // namespace

std::size_t rank_rows(const RankWork& p) {
    std::size_t missed = 0;
    for (std::size_t i = 0; i < p.n && i < kAhead; ++i) __builtin_prefetch(&line_of(p, static_cast<std::uint64_t>(p.keys[i])));
    for (std::size_t i = 0; i < p.n; ++i) {
        if (i + kAhead < p.n) __builtin_prefetch(&line_of(p, static_cast<std::uint64_t>(p.keys[i + kAhead])));
        const auto key = static_cast<std::uint64_t>(p.keys[i]);
        const RankLine& line = line_of(p, key);
        const std::uint64_t place = key % RankLine::kKeys;
        const bool owned = key < p.num_keys && line.owns(place);
        p.rows[i] = owned ? static_cast<std::uint32_t>(below(line, place)) : kMissed;
        missed += !owned;
    }
    return missed;
}

}  // namespace embtables::EMBTABLES_KERNEL
