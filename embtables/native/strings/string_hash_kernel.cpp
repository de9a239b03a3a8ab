// Compiled once for each instruction set, with EMBTABLES_KERNEL as its namespace. Ids are mostly short, so strings go
// through in groups: the words of those of 4 to 8 bytes are gathered, then one loop without branches, which the
// compiler turns into vector code, finishes them. A group of mixed lengths is first dealt out by length class, because
// a branch on each string's length would often be mispredicted.
#include <algorithm>

#include "strings/string_hash.h"
#include "strings/xxh3.h"

namespace embtables::EMBTABLES_KERNEL {

namespace {

constexpr std::size_t kGroup = 64;

// Positions within a group that share a length class. Every position is written, and kept by moving `count`.
struct Positions {
    std::uint8_t at[kGroup];
    std::size_t count = 0;

    void push_if(std::size_t i, bool keep) {
        at[count] = static_cast<std::uint8_t>(i);
        count += keep;
    }
};

template <typename Offset>
struct Strings {
    const u8* data;
    const Offset* offsets;
    std::int64_t* out;

    std::size_t length(std::size_t i) const { return static_cast<std::size_t>(offsets[i + 1] - offsets[i]); }
    const u8* begin(std::size_t i) const { return data + offsets[i]; }
    void put(std::size_t i, u64 hash) const { out[i] = static_cast<std::int64_t>(hash); }
};

// `at(k)` is the position of the k-th of `count` strings, all of 4 to 8 bytes.
template <typename Offset, typename At>
inline void hash_4_to_8(Strings<Offset> group, std::size_t count, At at) {
    u64 words[kGroup], lengths[kGroup];
    for (std::size_t k = 0; k < count; ++k) {
        lengths[k] = group.length(at(k));
        words[k] = word_4_to_8(group.begin(at(k)), lengths[k]);
    }
    for (std::size_t k = 0; k < count; ++k) words[k] = finish_4_to_8(words[k], lengths[k]);
    for (std::size_t k = 0; k < count; ++k) group.put(at(k), words[k]);
}

template <typename Offset>
void hash_mixed(Strings<Offset> group) {
    Positions small, middle, others;
    for (std::size_t i = 0; i < kGroup; ++i) {
        const std::size_t length = group.length(i);
        const bool is_small = length - 4 <= 4, is_middle = length - 9 <= 7;  // unsigned: false where they wrap
        small.push_if(i, is_small);
        middle.push_if(i, is_middle);
        others.push_if(i, !is_small && !is_middle);
    }
    hash_4_to_8(group, small.count, [&](std::size_t k) { return small.at[k]; });
    for (std::size_t k = 0; k < middle.count; ++k)
        group.put(middle.at[k], hash_9_to_16(group.begin(middle.at[k]), group.length(middle.at[k])));
    for (std::size_t k = 0; k < others.count; ++k)
        group.put(others.at[k], hash_one(group.begin(others.at[k]), group.length(others.at[k])));
}

template <typename Offset>
void hash_group(Strings<Offset> group) {
    std::size_t least = group.length(0), greatest = least;
    for (std::size_t i = 1; i < kGroup; ++i) {
        least = std::min(least, group.length(i));
        greatest = std::max(greatest, group.length(i));
    }
    if (least >= 4 && greatest <= 8) {
        hash_4_to_8(group, kGroup, [](std::size_t k) { return k; });
    } else if (least >= 9 && greatest <= 16) {
        for (std::size_t i = 0; i < kGroup; ++i) group.put(i, hash_9_to_16(group.begin(i), group.length(i)));
    } else if (least > 16 || greatest < 4) {
        for (std::size_t i = 0; i < kGroup; ++i) group.put(i, hash_one(group.begin(i), group.length(i)));
    } else {
        hash_mixed(group);
    }
}

template <typename Offset>
bool offsets_are_sound(const Offset* offsets, std::size_t n, std::size_t data_size) {
    if (offsets[0] < 0 || offsets[n] < 0 || static_cast<std::uint64_t>(offsets[n]) > data_size) return false;
    bool falls = false;
    for (std::size_t i = 0; i < n; ++i) falls |= offsets[i + 1] < offsets[i];
    return !falls;
}

template <typename Offset>
bool hash_strings(const u8* data, std::size_t data_size, const Offset* offsets, std::size_t n, std::int64_t* out) {
    if (!offsets_are_sound(offsets, n, data_size)) return false;
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup) hash_group(Strings<Offset>{data, offsets + i, out + i});
    const Strings<Offset> rest{data, offsets, out};
    for (; i < n; ++i) rest.put(i, hash_one(rest.begin(i), rest.length(i)));
    return true;
}

}  // namespace

bool hash_strings_32(const u8* data, std::size_t data_size, const std::int32_t* offsets, std::size_t n,
                     std::int64_t* out) {
    return hash_strings(data, data_size, offsets, n, out);
}

bool hash_strings_64(const u8* data, std::size_t data_size, const std::int64_t* offsets, std::size_t n,
                     std::int64_t* out) {
    return hash_strings(data, data_size, offsets, n, out);
}

}  // namespace embtables::EMBTABLES_KERNEL
