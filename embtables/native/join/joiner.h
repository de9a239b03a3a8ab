// Joins impressions and actions with the same key by event time (docs/online.md, "From impressions to samples").
//
// Times are microseconds. An action at a joins an impression at t if t - skew <= a <= t + window, and corrects it if
// t + window < a <= t + window + late, or if it joins but comes after the window was closed. A window is closed when the
// watermark has passed t + window, and an impression is forgotten when it has passed t + window + late; both in steps
// of a thousandth (1/1024) of that length, rounded so that nothing happens too early.
//
// Results depend on the events and on the order of the calls alone, not on where records lie in memory.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "join/key_slots.h"
#include "join/records.h"
#include "join/time_lists.h"

namespace embtables {

struct JoinWindows {
    std::int64_t window, late, skew;  // microseconds; window > 0, the others >= 0
};

// Where an event's payload lies.
struct Payload {
    std::uint32_t entry, row;
};

// What an event has done.
enum class JoinOutcome : std::uint8_t {
    opened,     // an impression whose window is open
    joined,     // the impression is positive
    overdue,    // the action is later than the window, which is still open: it is corrected when the window closes
    corrected,  // a negative is positive after all
    duplicate,  // the key has had such an event
    waiting,    // an action without its impression
    too_late,   // the action is later than the late window
    too_early,  // the action is earlier than the impression by more than the skew
};

// Impressions whose windows closed without an action, ordered by (time, key); a correction follows where one is due.
struct Closed {
    std::vector<std::uint64_t> keys;
    std::vector<std::int64_t> times;
    std::vector<std::uint32_t> entries, rows;
    std::vector<std::uint8_t> corrected;
    std::vector<std::uint32_t> orphan_entries, orphan_rows;  // actions whose impression did not come in time
    bool done = false;  // false: call again with the same watermark
};

// All records, ordered by list and then by (time, key).
struct JoinArrays {
    std::vector<std::uint64_t> keys;
    std::vector<std::int64_t> times;
    std::vector<std::uint32_t> entries, rows;
    std::vector<std::uint8_t> states;
};

struct JoinArraysView {
    const std::uint64_t* keys;
    const std::int64_t* times;
    const std::uint32_t* entries;
    const std::uint32_t* rows;
    const std::uint8_t* states;
    std::size_t size;
};

class Joiner {
public:
    // Times lie within 2^60 microseconds, 36,000 years, of 1970.
    static constexpr std::int64_t kMaxTime = std::int64_t{1} << 60;
    static constexpr std::int64_t kBegin = std::numeric_limits<std::int64_t>::min() / 4;

    explicit Joiner(JoinWindows windows);
    Joiner(const Joiner&) = delete;
    Joiner& operator=(const Joiner&) = delete;

    // A number for an entry whose events follow. It is held until `release`, and as long as a payload of it is needed.
    std::uint32_t hold();
    void release(std::uint32_t entry);
    bool is_held(std::uint32_t entry) const { return entry < needed_.size() && needed_[entry] != 0; }

    // The numbers of entries that nothing needs since the last call; they may be given again.
    std::vector<std::uint32_t> take_freed();

    // n impressions. Where an outcome is too_late or too_early, it is that of an action that waited, whose payload goes
    // to `actions`; the impression is open then.
    void impressions(std::uint32_t entry, const std::uint64_t* keys, const std::int64_t* times,
                     const std::uint32_t* rows, std::size_t n, JoinOutcome* outcomes, Payload* actions);

    // n actions. Where an outcome is joined or corrected, the impression's payload goes to `found`.
    void actions(std::uint32_t entry, const std::uint64_t* keys, const std::int64_t* times, const std::uint32_t* rows,
                 std::size_t n, JoinOutcome* outcomes, Payload* found);

    // Moves the watermark, never back, and closes what is due: no more than about `most` impressions, whole steps.
    Closed advance(std::int64_t watermark, std::size_t most);

    std::int64_t watermark() const { return watermark_; }

    // Keys that are held: impressions that are open or may be corrected or repeated, and waiting actions.
    std::size_t size() const { return slots_.size(); }
    std::size_t bytes() const;

    JoinArrays save() const;

    // Into a joiner without records: entries are numbered 0..entries-1, and each is needed by a record.
    // Throws std::invalid_argument where the arrays are not what `save` gives; the joiner is not to be used then.
    void load(const JoinArraysView& arrays, std::uint32_t entries, std::int64_t watermark);

private:
    std::uint32_t add(TimeLists& list, std::uint64_t key, std::int64_t time, Payload payload, JoinState state);
    JoinOutcome meet(std::uint32_t waiting, std::uint64_t key, std::int64_t time, Payload impression, Payload* action);
    JoinOutcome act(std::uint64_t key, std::int64_t time, Payload action, Payload* found);
    JoinOutcome wait_again(std::uint32_t waiting, std::uint64_t key, std::int64_t time, Payload action);
    bool close_windows(std::int64_t hand, Closed& closed);
    bool forget(std::int64_t hand, std::size_t& forgotten);
    bool give_up_waiting(std::int64_t hand, Closed& closed);
    void need(std::uint32_t entry) { ++needed_[entry]; }
    void unneed(std::uint32_t entry) {
        if (--needed_[entry] == 0) freed_.push_back(entry);
    }

    JoinWindows windows_;
    JoinRecords records_;
    KeySlots slots_;
    TimeLists open_, closed_, waiting_;
    std::vector<std::uint32_t> needed_;   // by entry: payloads that are needed
    std::vector<std::uint32_t> freed_;    // not yet taken
    std::vector<std::uint32_t> numbers_;  // of entries, to be given again
    std::int64_t watermark_ = kBegin;
    std::vector<std::uint32_t> due_;      // of one step; kept for its room
};

}  // namespace embtables
