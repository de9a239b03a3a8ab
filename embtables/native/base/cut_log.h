// What happened in which cut: items in their order, forgotten from the oldest on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace embtables {

template <typename T>
class CutLog {
public:
    // Nobody can ask for what happened before the first cut, so nothing is kept until then.
    bool is_kept() const { return !starts_.empty(); }

    // Where there is no room, the oldest cuts are forgotten, and where that is not enough what happened in this one too.
    void add(const T* items, std::size_t n) {
        if (!is_kept()) return;
        if (!has_room(n)) forget_oldest(n);
        if (!has_room(n)) return begin_anew(starts_.back().cut);
        try {
            items_.insert(items_.end(), items, items + n);
        } catch (const std::bad_alloc&) {
            begin_anew(starts_.back().cut);
        }
    }

    // Bytes that the items take, at most.
    static std::uint64_t most_bytes(std::uint64_t items) { return std::min<std::uint64_t>(items * sizeof(T), kMostBytes); }

    // What is added from now on happened in `cut`.
    void begin(std::uint32_t cut) {
        if (!is_kept()) whole_since_ = cut - 1;
        starts_.push_back({cut, items_.size()});
    }

    // The same where what happened so far in `cut` is not known.
    void begin_anew(std::uint32_t cut) {
        items_.clear();
        starts_.assign(1, {cut, 0});
        whole_since_ = cut;
    }

    // Nobody will ask for what happened in cuts up to `cut`.
    void forget(std::uint32_t cut) {
        std::size_t first = 0;
        while (first + 1 < starts_.size() && starts_[first].cut <= cut) ++first;
        drop(first);
    }

    // Whether all that happened after a cut is known.
    bool knows(std::uint32_t cut) const { return is_kept() && cut >= whole_since_; }

    // What happened after a cut, as far as it is known; an item may come more than once.
    std::vector<T> since(std::uint32_t cut) const {
        std::size_t begin = items_.size();
        for (const Start& start : starts_)
            if (start.cut > cut) begin = std::min(begin, start.begin);
        return {items_.begin() + static_cast<std::ptrdiff_t>(begin), items_.end()};
    }

private:
    struct Start {
        std::uint32_t cut;
        std::size_t begin;
    };
    static constexpr std::size_t kMostBytes = std::size_t{128} << 20;
    static constexpr std::size_t kMost = kMostBytes / sizeof(T);

    bool has_room(std::size_t n) const { return items_.size() + n <= kMost; }

    // Forgets as many of the oldest cuts as give room to n items: who asks for what happened since is not concerned.
    // More of them go where they are small, for each time what stays is moved.
    void forget_oldest(std::size_t n) {
        std::size_t first = 0;
        while (first + 1 < starts_.size()) {
            const bool has_enough = items_.size() - starts_[first].begin + n <= kMost;
            if (has_enough && starts_[first + 1].begin > kMost / 8) break;
            ++first;
        }
        drop(first);
    }

    // The first cuts go, and what happened in them.
    void drop(std::size_t cuts) {
        if (cuts == 0) return;
        const std::size_t dropped = starts_[cuts].begin;
        items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(dropped));
        starts_.erase(starts_.begin(), starts_.begin() + static_cast<std::ptrdiff_t>(cuts));
        for (Start& start : starts_) start.begin -= dropped;
        whole_since_ = std::max(whole_since_, starts_[0].cut - 1);
    }

    std::vector<T> items_;
    std::vector<Start> starts_;
    std::uint32_t whole_since_ = 0;  // the least cut that may be asked for
};

}  // namespace embtables
