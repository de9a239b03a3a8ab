// Compiled once for each instruction set, with EMBTABLES_KERNEL as its namespace. Ids are mostly short, so strings go
// through in groups. The words of 4 to 8 byte strings are gathered, then one loop without branches, which the compiler
// turns into vector code, finishes the group. A group of mixed lengths is first sorted by length class, since a branch
// per string on its length is mispredicted about as often as not.
#include "string_hash.h"
#include "xxh3.h"

namespace embtables::EMBTABLES_KERNEL {

namespace {

constexpr std::size_t kGroup = 64;

// The strings of one group. Unsigned lengths: the offsets have been checked.
template <typename Offset>
struct Group {
    const u8* data;
    const Offset* offsets;
    std::int64_t* out;

    std::size_t length(std::size_t i) const { return static_cast<std::size_t>(offsets[i + 1] - offsets[i]); }
    const u8* begin(std::size_t i) const { return data + offsets[i]; }
    void put(std::size_t i, u64 hash) const { out[i] = static_cast<std::int64_t>(hash); }
};

bool is_4_to_8(std::size_t length) { return length - 4 <= 4; }  // unsigned: also false below 4
bool is_9_to_16(std::size_t length) { return length - 9 <= 7; }

template <typename Offset>
bool all_4_to_8(Group<Offset> group) {
    bool outside = false;
    for (std::size_t i = 0; i < kGroup; ++i) outside |= !is_4_to_8(group.length(i));
    return !outside;
}

template <typename Offset>
void hash_4_to_8(Group<Offset> group) {
    u64 words[kGroup], lengths[kGroup];
    for (std::size_t i = 0; i < kGroup; ++i) {
        lengths[i] = group.length(i);
        words[i] = word_4_to_8(group.begin(i), lengths[i]);
    }
    for (std::size_t i = 0; i < kGroup; ++i) group.put(i, finish_4_to_8(words[i], lengths[i]));
}

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
void hash_mixed(Group<Offset> group) {
    Positions words_4_to_8, words_9_to_16, others;
    for (std::size_t i = 0; i < kGroup; ++i) {
        const bool small = is_4_to_8(group.length(i)), middle = is_9_to_16(group.length(i));
        words_4_to_8.push_if(i, small);
        words_9_to_16.push_if(i, middle);
        others.push_if(i, !small && !middle);
    }
    u64 words[kGroup], lengths[kGroup];
    for (std::size_t k = 0; k < words_4_to_8.count; ++k) {
        const std::size_t i = words_4_to_8.at[k];
        lengths[k] = group.length(i);
        words[k] = word_4_to_8(group.begin(i), lengths[k]);
    }
    for (std::size_t k = 0; k < words_4_to_8.count; ++k) words[k] = finish_4_to_8(words[k], lengths[k]);
    for (std::size_t k = 0; k < words_4_to_8.count; ++k) group.put(words_4_to_8.at[k], words[k]);
    for (std::size_t k = 0; k < words_9_to_16.count; ++k) {
        const std::size_t i = words_9_to_16.at[k];
        group.put(i, hash_9_to_16(group.begin(i), group.length(i)));
    }
    for (std::size_t k = 0; k < others.count; ++k) {
        const std::size_t i = others.at[k];
        group.put(i, hash_one(group.begin(i), group.length(i)));
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
    for (; i + kGroup <= n; i += kGroup) {
        const Group<Offset> group{data, offsets + i, out + i};
        if (all_4_to_8(group)) {
            hash_4_to_8(group);
        } else {
            hash_mixed(group);
        }
    }
    const Group<Offset> rest{data, offsets, out};
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
