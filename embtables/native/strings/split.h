// Strings split at a separator into their non-empty pieces.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace embtables {

struct Pieces {
    std::vector<std::uint8_t> data;
    std::vector<std::int64_t> offsets;  // (pieces + 1,) into `data`
    std::vector<std::int64_t> starts;   // (n + 1,) of each string's pieces
};

// Splits n strings of an Arrow string array, data[offsets[i] .. offsets[i + 1]), at a separator of at least one byte.
// The n + 1 offsets must be sound.
template <typename Offset>
Pieces split_strings(const std::uint8_t* data, const Offset* offsets, std::size_t n, std::string_view separator) {
    Pieces found;
    const auto bytes = static_cast<std::size_t>(offsets[n] - offsets[0]);
    found.data.reserve(bytes);
    found.starts.reserve(n + 1);
    found.offsets.push_back(0);
    found.starts.push_back(0);
    const auto keep = [&](std::string_view piece) {
        if (piece.empty()) return;
        found.data.insert(found.data.end(), piece.begin(), piece.end());
        found.offsets.push_back(static_cast<std::int64_t>(found.data.size()));
    };
    for (std::size_t i = 0; i < n; ++i) {
        std::string_view rest(reinterpret_cast<const char*>(data) + offsets[i],
                              static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
        for (std::size_t at = rest.find(separator); at != rest.npos; at = rest.find(separator)) {
            keep(rest.substr(0, at));
            rest.remove_prefix(at + separator.size());
        }
        keep(rest);
        found.starts.push_back(static_cast<std::int64_t>(found.offsets.size()) - 1);
    }
    return found;
}

}  // namespace embtables
