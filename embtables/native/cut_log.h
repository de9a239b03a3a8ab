// What a collisionless table remembers by cut: the keys that have lost their row, which a delta has to tell, and when the
// cut began, which tells where not to look for rows that changed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace embtables {

class CutLog {
public:
    // Nobody can ask for what was lost before the first cut, so nothing is kept until then.
    void add(std::int64_t key) {
        if (starts_.empty()) return;
        if (keys_.size() >= kMost) {  // whoever wants the changes since an older cut needs a snapshot
            begin_anew(starts_.back().cut, starts_.back().now);
            return;
        }
        keys_.push_back(key);
    }

    // Rows are changed that nothing has seen: the clock does not tell them.
    void note_written() {
        if (!starts_.empty()) starts_.back().written = true;
    }

    // Rows that changed after `cut` were seen at this clock or later.
    std::uint32_t seen_since(std::uint32_t cut) const {
        std::uint32_t now = 0;
        for (const Start& start : starts_) {
            if (start.cut == cut + 1) now = start.now;
            if (start.cut > cut && start.written) return 0;
        }
        return now;
    }

    // What is lost from now on is lost in `cut`, which begins when the clock is `now`.
    void begin(std::uint32_t cut, std::uint32_t now) {
        if (starts_.empty()) whole_since_ = cut - 1;
        starts_.push_back({cut, keys_.size(), now, false});
    }

    // The same where the table was emptied in `cut`: what it held before is not known.
    void begin_anew(std::uint32_t cut, std::uint32_t now) {
        keys_.clear();
        starts_.assign(1, {cut, 0, now, true});
        whole_since_ = cut;
    }

    // Nobody will ask for what was lost in cuts up to `cut`.
    void forget(std::uint32_t cut) {
        std::size_t first = 0;
        while (first + 1 < starts_.size() && starts_[first].cut <= cut) ++first;
        if (first == 0) return;
        const std::size_t dropped = starts_[first].begin;
        keys_.erase(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(dropped));
        starts_.erase(starts_.begin(), starts_.begin() + static_cast<std::ptrdiff_t>(first));
        for (Start& start : starts_) start.begin -= dropped;
        whole_since_ = std::max(whole_since_, starts_[0].cut - 1);
    }

    // Keys lost after `cut`, ascending, each once; some may have a row again. Throws std::invalid_argument where they
    // are not known any more.
    std::vector<std::int64_t> since(std::uint32_t cut) const {
        if (starts_.empty() || cut < whole_since_)
            throw std::invalid_argument("changes since cut " + std::to_string(cut) + " are not known");
        std::size_t begin = keys_.size();
        for (const Start& start : starts_)
            if (start.cut > cut) begin = std::min(begin, start.begin);
        std::vector<std::int64_t> found(keys_.begin() + static_cast<std::ptrdiff_t>(begin), keys_.end());
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        return found;
    }

private:
    struct Start {
        std::uint32_t cut;
        std::size_t begin;
        std::uint32_t now;
        bool written;
    };
    static constexpr std::size_t kMost = std::size_t{1} << 24;  // 128 MB

    std::vector<std::int64_t> keys_;
    std::vector<Start> starts_;
    std::uint32_t whole_since_ = 0;  // the least cut that may be asked for
};

}  // namespace embtables
