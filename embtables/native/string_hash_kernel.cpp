// Compiled once for each instruction set, with EMBTABLES_KERNEL as its namespace. Ids are mostly short, so strings of
// 4 to 8 bytes go through in groups: their words are gathered, then one loop without branches, which the compiler
// turns into vector code, finishes the group.
#include "string_hash.h"
#include "xxh3.h"

namespace embtables::EMBTABLES_KERNEL {

namespace {

constexpr std::size_t kGroup = 64;

template <typename Offset>
bool all_4_to_8(const Offset* offsets) {
    bool outside = false;
    for (std::size_t i = 0; i < kGroup; ++i)
        outside |= static_cast<u64>(offsets[i + 1] - offsets[i]) - 4 > 4;  // unsigned: also catches lengths below 4
    return !outside;
}

template <typename Offset>
void hash_group(const u8* data, const Offset* offsets, std::int64_t* out) {
    u64 words[kGroup], lengths[kGroup];
    for (std::size_t i = 0; i < kGroup; ++i) {
        const std::size_t length = static_cast<std::size_t>(offsets[i + 1] - offsets[i]);
        words[i] = word_4_to_8(data + offsets[i], length);
        lengths[i] = length;
    }
    for (std::size_t i = 0; i < kGroup; ++i) out[i] = static_cast<std::int64_t>(finish_4_to_8(words[i], lengths[i]));
}

template <typename Offset>
void hash_strings(const u8* data, const Offset* offsets, std::size_t n, std::int64_t* out) {
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        if (all_4_to_8(offsets + i)) {
            hash_group(data, offsets + i, out + i);
            continue;
        }
        for (std::size_t j = i; j < i + kGroup; ++j)
            out[j] = static_cast<std::int64_t>(
                hash_one(data + offsets[j], static_cast<std::size_t>(offsets[j + 1] - offsets[j])));
    }
    for (; i < n; ++i)
        out[i] = static_cast<std::int64_t>(
            hash_one(data + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])));
}

}  // namespace

void hash_strings_32(const std::uint8_t* data, const std::int32_t* offsets, std::size_t n, std::int64_t* out) {
    hash_strings(data, offsets, n, out);
}

void hash_strings_64(const std::uint8_t* data, const std::int64_t* offsets, std::size_t n, std::int64_t* out) {
    hash_strings(data, offsets, n, out);
}

}  // namespace embtables::EMBTABLES_KERNEL
