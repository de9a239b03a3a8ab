// Large outputs, used again once Python has let go of them: fresh memory for each batch would be faulted in page by page.
#pragma once

#include <mutex>
#include <vector>

#include "base/memory.h"

namespace embtables {

class OutputPool {
public:
    // A region of at least `bytes`, with whatever an earlier output left in it.
    Region take(std::size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = 0; i < free_.size(); ++i) {
            if (free_[i].capacity() < bytes || free_[i].capacity() > kSlack * bytes) continue;
            std::swap(free_[i], free_.back());
            Region found = std::move(free_.back());
            free_.pop_back();
            return found;
        }
        Region made;
        made.reserve(bytes);
        return made;
    }

    void give(Region region) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (free_.size() < kKept) free_.push_back(std::move(region));
    }

private:
    static constexpr std::size_t kKept = 8, kSlack = 4;
    std::mutex mutex_;
    std::vector<Region> free_;
};

}  // namespace embtables
