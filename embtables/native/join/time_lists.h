// Records in lists by time, in steps of some width: what a time wheel is, for times of any range.
//
// Step n holds the times in ((n - 1) * width, n * width]; it is due when the hand has reached n * width. There are as
// many lists as steps that hold a record, so a time that is years ahead costs one list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "join/records.h"

namespace embtables {

class TimeLists {
public:
    TimeLists(JoinRecords& records, std::int64_t width) : records_(records), width_(width), last_(lists_.end()) {}

    void add(std::uint32_t record) {
        JoinRecord& of = records_.at(record);
        const std::int64_t step = step_of(of.time);
        // Most records are of the step of the one before.
        if (last_ == lists_.end() || last_->first != step)
            last_ = lists_.try_emplace(step, JoinRecords::kNone).first;
        of.next = last_->second;
        last_->second = record;
    }

    // Takes the first list that is due out, and calls each(record) for all of it; false if none is due.
    // The record may be freed or added to another TimeLists.
    template <typename F>
    bool take_due(std::int64_t hand, F&& each) {
        if (lists_.empty() || lists_.begin()->first > floor_step(hand)) return false;
        std::uint32_t record = lists_.begin()->second;
        if (last_ == lists_.begin()) last_ = lists_.end();
        lists_.erase(lists_.begin());
        while (record != JoinRecords::kNone) {
            const std::uint32_t next = records_.at(record).next;
            each(record);
            record = next;
        }
        return true;
    }

    // Calls list(first record) for every list, in order of time.
    template <typename F>
    void for_each(F&& list) const {
        for (const auto& [step, first] : lists_) list(first);
    }

    // A node of std::map: three pointers and a colour beside the pair, and the allocator's own word.
    std::size_t bytes() const { return lists_.size() * 64; }

private:
    std::int64_t floor_step(std::int64_t time) const {
        return time / width_ - (time % width_ < 0 ? 1 : 0);
    }
    std::int64_t step_of(std::int64_t time) const { return time / width_ + (time % width_ > 0 ? 1 : 0); }

    JoinRecords& records_;
    std::int64_t width_;
    std::map<std::int64_t, std::uint32_t> lists_;
    std::map<std::int64_t, std::uint32_t>::iterator last_;
};

}  // namespace embtables
