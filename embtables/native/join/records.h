// What a joiner holds of an event: 28 bytes in one array, chained in lists by number.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace embtables {

// What became of an impression; or `waiting`: an action whose impression has not come.
enum class JoinState : std::uint8_t {
    open,      // no action yet, the window is open
    overdue,   // the window is open, and an action came that is later than the window: negative, then corrected
    positive,  // an action joined, the window is open
    negative,  // closed without an action; a late one may correct it
    settled,   // closed, and positive or corrected: known so that repeated events are recognised
    waiting,
    dead,  // replaced by another record of its key; goes with its list
};

// Whether the payload of the event is still needed.
inline bool needs_payload(JoinState state) {
    return state != JoinState::positive && state != JoinState::settled && state != JoinState::dead;
}

struct [[gnu::packed, gnu::aligned(4)]] JoinRecord {
    static constexpr std::uint32_t kMaxRow = (std::uint32_t{1} << 29) - 1;

    std::uint64_t key;
    std::int64_t time;
    std::uint32_t entry;
    std::uint32_t row_and_state;
    std::uint32_t next;  // in its list

    std::uint32_t row() const { return row_and_state & kMaxRow; }
    JoinState state() const { return static_cast<JoinState>(row_and_state >> 29); }
    void set(JoinState state) { row_and_state = row() | static_cast<std::uint32_t>(state) << 29; }
};
static_assert(sizeof(JoinRecord) == 28);

// Records by number. A number that was freed is given again.
class JoinRecords {
public:
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;

    // Not set. Records stay where they are: to move the pages of many takes a second.
    std::uint32_t allocate() {
        if (free_ != kNone) {
            const std::uint32_t number = free_;
            free_ = at(number).next;
            return number;
        }
        if (used_ >= kNone - 1) throw std::length_error("a joiner holds at most 2^32 - 2 open impressions");
        if (used_ % kChunk == 0) {
            Region chunk;
            chunk.reserve(kChunk * sizeof(JoinRecord));
            chunks_.push_back(std::move(chunk));
        }
        return used_++;
    }

    void free(std::uint32_t number) {
        at(number).next = free_;
        free_ = number;
    }

    JoinRecord& at(std::uint32_t number) { return chunks_[number / kChunk].as<JoinRecord>()[number % kChunk]; }
    const JoinRecord& at(std::uint32_t number) const {
        return chunks_[number / kChunk].as<JoinRecord>()[number % kChunk];
    }
    std::size_t bytes() const { return std::size_t{used_} * sizeof(JoinRecord); }

private:
    static constexpr std::uint32_t kChunk = std::uint32_t{1} << 20;  // what is not touched of one takes no memory

    std::vector<Region> chunks_;
    std::uint32_t used_ = 0;
    std::uint32_t free_ = kNone;
};

}  // namespace embtables
