#include "join/joiner.h"

#include <algorithm>
#include <stdexcept>

namespace embtables {
namespace {

constexpr std::size_t kAhead = 8;  // keys whose places are fetched before they are looked at
constexpr std::int64_t kSteps = 1024;

std::int64_t step(std::int64_t length) { return std::max<std::int64_t>(1, length / kSteps); }

// Ordered by (time, key), which no two records share.
void sort_by_time(const JoinRecords& records, std::vector<std::uint32_t>& numbers) {
    std::sort(numbers.begin(), numbers.end(), [&](std::uint32_t a, std::uint32_t b) {
        const JoinRecord &x = records.at(a), &y = records.at(b);
        const std::int64_t first = x.time, second = y.time;
        return first != second ? first < second : x.key < y.key;
    });
}

}  // namespace

Joiner::Joiner(JoinWindows windows)
    : windows_(windows),
      slots_(records_),
      open_(records_, step(windows.window)),
      closed_(records_, step(windows.window + windows.late)),
      waiting_(records_, step(windows.window)) {
    for (const std::int64_t length : {windows.window, windows.late, windows.skew})
        if (length < 0 || length > kMaxTime) throw std::invalid_argument("windows must be in 0..2^60 microseconds");
}

std::uint32_t Joiner::hold() {
    std::uint32_t entry = 0;
    if (numbers_.empty()) {
        entry = static_cast<std::uint32_t>(needed_.size());
        needed_.push_back(0);
    } else {
        entry = numbers_.back();
        numbers_.pop_back();
    }
    need(entry);
    return entry;
}

void Joiner::release(std::uint32_t entry) {
    if (!is_held(entry)) throw std::invalid_argument("no such entry is held");
    unneed(entry);
}

std::vector<std::uint32_t> Joiner::take_freed() {
    std::vector<std::uint32_t> freed;
    freed.swap(freed_);
    numbers_.insert(numbers_.end(), freed.begin(), freed.end());
    return freed;
}

std::uint32_t Joiner::add(TimeLists& list, std::uint64_t key, std::int64_t time, Payload payload, JoinState state) {
    const std::uint32_t record = records_.allocate();
    JoinRecord& of = records_.at(record);
    of.key = key;
    of.time = time;
    of.entry = payload.entry;
    of.row_and_state = payload.row;
    of.set(state);
    if (needs_payload(state)) need(payload.entry);
    list.add(record);
    return record;
}

void Joiner::impressions(std::uint32_t entry, const std::uint64_t* keys, const std::int64_t* times,
                         const std::uint32_t* rows, std::size_t n, JoinOutcome* outcomes, Payload* actions) {
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) slots_.prefetch(keys[i + kAhead]);
        const Payload payload{entry, rows[i]};
        const std::uint32_t found = slots_.find(keys[i]);
        if (found == KeySlots::kNone) {
            slots_.insert(keys[i], add(open_, keys[i], times[i], payload, JoinState::open));
            outcomes[i] = JoinOutcome::opened;
        } else if (records_.at(found).state() == JoinState::waiting) {
            outcomes[i] = meet(found, keys[i], times[i], payload, &actions[i]);
        } else {
            outcomes[i] = JoinOutcome::duplicate;
        }
    }
}

// An impression whose action has waited for it.
JoinOutcome Joiner::meet(std::uint32_t waiting, std::uint64_t key, std::int64_t time, Payload impression,
                         Payload* action) {
    const std::int64_t lag = records_.at(waiting).time - time;
    *action = {records_.at(waiting).entry, records_.at(waiting).row()};
    records_.at(waiting).set(JoinState::dead);
    unneed(action->entry);
    JoinState state = JoinState::open;
    JoinOutcome outcome = JoinOutcome::too_late;
    if (lag < -windows_.skew) {
        outcome = JoinOutcome::too_early;
    } else if (lag <= windows_.window) {
        state = JoinState::positive;
        outcome = JoinOutcome::joined;
    } else if (lag <= windows_.window + windows_.late) {
        state = JoinState::overdue;
        outcome = JoinOutcome::overdue;
    }
    slots_.replace(key, waiting, add(open_, key, time, impression, state));
    return outcome;
}

void Joiner::actions(std::uint32_t entry, const std::uint64_t* keys, const std::int64_t* times,
                     const std::uint32_t* rows, std::size_t n, JoinOutcome* outcomes, Payload* found) {
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) slots_.prefetch(keys[i + kAhead]);
        outcomes[i] = act(keys[i], times[i], {entry, rows[i]}, &found[i]);
    }
}

JoinOutcome Joiner::act(std::uint64_t key, std::int64_t time, Payload action, Payload* found) {
    const std::uint32_t number = slots_.find(key);
    if (number == KeySlots::kNone) {
        slots_.insert(key, add(waiting_, key, time, action, JoinState::waiting));
        return JoinOutcome::waiting;
    }
    JoinRecord& record = records_.at(number);
    const JoinState state = record.state();
    if (state == JoinState::waiting) return wait_again(number, key, time, action);
    if (state == JoinState::positive || state == JoinState::settled) return JoinOutcome::duplicate;
    const std::int64_t lag = time - record.time;
    if (lag < -windows_.skew) return JoinOutcome::too_early;
    if (lag > windows_.window + windows_.late) return JoinOutcome::too_late;
    if (state != JoinState::negative && lag > windows_.window) {
        record.set(JoinState::overdue);
        return state == JoinState::overdue ? JoinOutcome::duplicate : JoinOutcome::overdue;
    }
    *found = {record.entry, record.row()};
    unneed(record.entry);
    record.set(state == JoinState::negative ? JoinState::settled : JoinState::positive);
    return state == JoinState::negative ? JoinOutcome::corrected : JoinOutcome::joined;
}

// Of the actions that wait with one key, the earliest does: if none of the others joined, it would not either.
JoinOutcome Joiner::wait_again(std::uint32_t waiting, std::uint64_t key, std::int64_t time, Payload action) {
    if (time < records_.at(waiting).time) {
        records_.at(waiting).set(JoinState::dead);
        unneed(records_.at(waiting).entry);
        slots_.replace(key, waiting, add(waiting_, key, time, action, JoinState::waiting));
    }
    return JoinOutcome::duplicate;
}

Closed Joiner::advance(std::int64_t watermark, std::size_t most) {
    watermark_ = std::max(watermark_, watermark);
    const std::int64_t hand = watermark_ - windows_.window;
    Closed closed;
    std::size_t forgotten = 0;
    bool more = true;
    while (more && closed.keys.size() < most) more = close_windows(hand, closed);
    if (more) return closed;
    more = true;
    while (more && closed.orphan_rows.size() < most) more = give_up_waiting(hand, closed);
    if (more) return closed;
    more = true;
    while (more && forgotten < most) more = forget(hand - windows_.late, forgotten);
    closed.done = !more;
    return closed;
}

// One step of windows; false if none is due.
bool Joiner::close_windows(std::int64_t hand, Closed& closed) {
    due_.clear();
    const bool any = open_.take_due(hand, [&](std::uint32_t number) {
        JoinRecord& record = records_.at(number);
        switch (record.state()) {
            case JoinState::dead: records_.free(number); return;
            case JoinState::positive: record.set(JoinState::settled); break;
            default: due_.push_back(number);
        }
        closed_.add(number);
    });
    sort_by_time(records_, due_);
    for (const std::uint32_t number : due_) {
        JoinRecord& record = records_.at(number);
        const bool corrected = record.state() == JoinState::overdue;
        closed.keys.push_back(record.key);
        closed.times.push_back(record.time);
        closed.entries.push_back(record.entry);
        closed.rows.push_back(record.row());
        closed.corrected.push_back(corrected);
        record.set(corrected ? JoinState::settled : JoinState::negative);
        if (corrected) unneed(record.entry);
    }
    return any;
}

bool Joiner::give_up_waiting(std::int64_t hand, Closed& closed) {
    due_.clear();
    const bool any = waiting_.take_due(hand, [&](std::uint32_t number) {
        if (records_.at(number).state() == JoinState::dead)
            records_.free(number);
        else
            due_.push_back(number);
    });
    sort_by_time(records_, due_);
    for (const std::uint32_t number : due_) {
        const JoinRecord& record = records_.at(number);
        closed.orphan_entries.push_back(record.entry);
        closed.orphan_rows.push_back(record.row());
        unneed(record.entry);
        slots_.erase(record.key, number);
        records_.free(number);
    }
    return any;
}

bool Joiner::forget(std::int64_t hand, std::size_t& forgotten) {
    return closed_.take_due(hand, [&](std::uint32_t number) {
        const JoinRecord& record = records_.at(number);
        if (needs_payload(record.state())) unneed(record.entry);
        slots_.erase(record.key, number);
        records_.free(number);
        ++forgotten;
    });
}

std::size_t Joiner::bytes() const {
    return records_.bytes() + slots_.bytes() + open_.bytes() + closed_.bytes() + waiting_.bytes() +
           needed_.capacity() * sizeof(std::uint32_t);
}

JoinArrays Joiner::save() const {
    JoinArrays arrays;
    std::vector<std::uint32_t> of_list;
    const auto save_list = [&](std::uint32_t number) {
        of_list.clear();
        for (; number != JoinRecords::kNone; number = records_.at(number).next)
            if (records_.at(number).state() != JoinState::dead) of_list.push_back(number);
        sort_by_time(records_, of_list);
        for (const std::uint32_t each : of_list) {
            const JoinRecord& record = records_.at(each);
            const bool needed = needs_payload(record.state());
            arrays.keys.push_back(record.key);
            arrays.times.push_back(record.time);
            arrays.entries.push_back(needed ? std::uint32_t{record.entry} : 0);
            arrays.rows.push_back(needed ? record.row() : 0);
            arrays.states.push_back(static_cast<std::uint8_t>(record.state()));
        }
    };
    for (const TimeLists* lists : {&open_, &closed_, &waiting_}) lists->for_each(save_list);
    return arrays;
}

void Joiner::load(const JoinArraysView& arrays, std::uint32_t entries, std::int64_t watermark) {
    const auto refuse_unless = [](bool right, const char* what) {
        if (!right) throw std::invalid_argument(what);
    };
    refuse_unless(slots_.size() == 0 && needed_.empty(), "the joiner holds events already");
    refuse_unless(watermark == kBegin || (watermark >= -kMaxTime && watermark <= kMaxTime),
                  "the watermark is beyond the range of times");
    refuse_unless(entries <= arrays.size, "there are more entries than events");
    needed_.assign(entries, 0);
    watermark_ = watermark;
    for (std::size_t i = 0; i < arrays.size; ++i) {
        refuse_unless(arrays.states[i] < static_cast<std::uint8_t>(JoinState::dead), "a state is unknown");
        const auto state = static_cast<JoinState>(arrays.states[i]);
        const Payload payload{arrays.entries[i], arrays.rows[i]};
        refuse_unless(arrays.times[i] >= -kMaxTime && arrays.times[i] <= kMaxTime, "a time is beyond the range of times");
        refuse_unless(payload.row <= JoinRecord::kMaxRow, "a row is beyond those of an entry");
        refuse_unless(needs_payload(state) ? payload.entry < entries : payload.entry == 0 && payload.row == 0,
                      "an event is of an entry that is not listed");
        refuse_unless(slots_.find(arrays.keys[i]) == KeySlots::kNone, "a key is there twice");
        TimeLists& list = state == JoinState::waiting                                      ? waiting_
                          : state == JoinState::negative || state == JoinState::settled ? closed_
                                                                                          : open_;
        slots_.insert(arrays.keys[i], add(list, arrays.keys[i], arrays.times[i], payload, state));
    }
    for (const std::uint32_t needed : needed_) refuse_unless(needed != 0, "an entry is listed that no event is of");
}

}  // namespace embtables
