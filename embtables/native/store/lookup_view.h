// A lookup of several features as the native core takes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace embtables {

// Keys of L lists for B bags each, as embtables/rows/protocol.py has them. Features i, L + i, ... read list i.
struct LookupView {
    const std::int32_t* features;
    std::size_t num_features, num_lists;
    const std::int64_t* offsets;  // L * B + 1
    const float* weights;         // or null
    std::int64_t num_bags;
    const std::int32_t* counts = nullptr;  // how often each key occurred; null: once

    // The offsets of the bags of a feature.
    const std::int64_t* bags_of(std::size_t feature) const {
        return offsets + (feature % num_lists) * static_cast<std::size_t>(num_bags);
    }
};

}  // namespace embtables
