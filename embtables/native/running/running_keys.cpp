#include "running/running_keys.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace embtables {
namespace {

using Kind = RunningColumn::Kind;

constexpr std::size_t kSliceEvents = 128;     // tens of microseconds, for which a reader waits
constexpr std::size_t kSliceQuestions = 512;
constexpr std::size_t kAhead = 4;             // keys whose place in the map is fetched early
constexpr std::size_t kSweptPerEvent = 2;     // faster than keys come, so that what expired goes

// a - b, b not negative; the least time where there is none so early.
std::int64_t minus(std::int64_t a, std::int64_t b) { return a < kNever + b ? kNever : a - b; }

double since(std::int64_t from, std::int64_t to) {
    return static_cast<double>(static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from));
}

}  // namespace

std::int64_t RunningConfig::longest_window() const {
    std::int64_t longest = 0;
    for (const RunningColumn& column : columns) longest = std::max(longest, column.window);
    return longest;
}

RunningKeys::RunningKeys(RunningConfig config) : config_(std::move(config)), longest_window_(config_.longest_window()) {
    tracks_.resize(config_.tracks.size());
}

void RunningKeys::fold(const RunningEvents& events, std::int64_t clock) {
    for (std::size_t start = 0; start == 0 || start < events.n; start += kSliceEvents) {
        const AlternatingLock::Writing slice(lock_);
        clock_ = std::max(clock_, clock);
        const std::size_t stop = std::min(events.n, start + kSliceEvents);
        for (std::size_t i = start; i < stop; ++i) {
            if (i + kAhead < stop) map_.prefetch(map_.mixed(events.keys[i + kAhead]));
            add(events, i);
        }
        sweep(kSweptPerEvent * (stop - start));
    }
}

void RunningKeys::add(const RunningEvents& events, std::size_t i) {
    const std::int64_t time = events.times[i];
    const std::uint32_t slot = slot_for(events.keys[i]);
    State& state = states_[slot];
    held_ -= held(slot);
    state.first = std::min(state.first, time);
    if (time < minus(minus(clock_, config_.lateness), longest_window_)) {
        ++state.gone;
        state.last_gone = std::max(state.last_gone, time);
    } else {
        state.times.insert(time);
    }
    for (std::size_t t = 0; t < tracks_.size(); ++t)
        if (events.has_value[t] == nullptr || events.has_value[t][i]) tracks_[t][slot].insert({time, events.values[t][i]});
    trim(slot);
    held_ += held(slot);
}

// The slot of a key; of one that is new, or expired, without events.
std::uint32_t RunningKeys::slot_for(std::int64_t key) {
    const std::uint64_t h = map_.mixed(key);
    const KeyMap::Place place = map_.find(h);
    if (place.found) {
        const std::uint32_t slot = place.value();
        if (is_expired(states_[slot])) reset(slot);
        return slot;
    }
    std::uint32_t slot = static_cast<std::uint32_t>(states_.size());
    if (!free_.empty()) {
        slot = free_.back();
        free_.pop_back();
    } else {
        if (states_.size() >= Timeline<std::int64_t>::kMost) throw std::length_error("there are more keys than are held");
        states_.emplace_back();
        for (auto& track : tracks_) track.emplace_back();
    }
    states_[slot].key = key;
    states_[slot].first = std::numeric_limits<std::int64_t>::max();
    map_.insert(place, h, slot, 0);
    return slot;
}

void RunningKeys::reset(std::uint32_t slot) {
    held_ -= held(slot);
    State fresh;
    fresh.key = states_[slot].key;
    fresh.first = std::numeric_limits<std::int64_t>::max();
    states_[slot] = std::move(fresh);
    for (auto& track : tracks_) track[slot] = Timeline<Remembered>();
}

// Lets go what no question at or after clock - lateness needs.
void RunningKeys::trim(std::uint32_t slot) {
    State& state = states_[slot];
    const std::int64_t recent = minus(clock_, config_.lateness);
    const std::int64_t horizon = minus(recent, longest_window_);
    if (state.times.size() > 0 && state.times[0] < horizon) {
        const std::uint32_t count = state.times.before(horizon);
        state.gone += count;
        state.last_gone = std::max(state.last_gone, state.times[count - 1]);
        state.times.drop_first(count);
    }
    for (std::size_t t = 0; t < tracks_.size(); ++t) {
        Timeline<Remembered>& track = tracks_[t][slot];
        if (track.size() <= config_.tracks[t]) continue;
        const std::uint32_t older = track.before(recent);
        if (older > config_.tracks[t]) track.drop_first(older - config_.tracks[t]);
    }
}

// Trims the next slots, and frees those of expired keys.
void RunningKeys::sweep(std::size_t slots) {
    for (std::size_t i = 0; i < std::min(slots, states_.size()); ++i) {
        if (swept_ >= states_.size()) swept_ = 0;
        const std::uint32_t slot = static_cast<std::uint32_t>(swept_++);
        State& state = states_[slot];
        if (state.is_free()) continue;
        if (is_expired(state)) {
            map_.remove(map_.mixed(state.key));
            reset(slot);
            free_.push_back(slot);
        } else {
            held_ -= held(slot);
            trim(slot);
            held_ += held(slot);
        }
    }
}

bool RunningKeys::is_expired(const State& state) const {
    return config_.keep.has_value() && state.last() < minus(clock_, *config_.keep);
}

std::size_t RunningKeys::held(std::uint32_t slot) const {
    std::size_t bytes = states_[slot].times.bytes();
    for (const auto& track : tracks_) bytes += track[slot].bytes();
    return bytes;
}

std::size_t RunningKeys::num_keys() const {
    const AlternatingLock::Reading reading(lock_);
    return map_.size();
}

std::size_t RunningKeys::bytes() const {
    const AlternatingLock::Reading reading(lock_);
    const std::size_t of_slot = sizeof(State) + tracks_.size() * sizeof(Timeline<Remembered>);
    return map_.bytes() + states_.size() * of_slot + free_.capacity() * sizeof(std::uint32_t) + held_;
}

std::vector<RunningLists> RunningKeys::ask(const RunningQuestions& questions, float* out) const {
    std::vector<RunningLists> lists(config_.list_tracks.size());
    for (std::size_t l = 0; l < lists.size(); ++l) {
        lists[l].offsets.reserve(questions.n + 1);
        lists[l].values.reserve(std::min(questions.n, kSliceQuestions) * std::min(config_.tracks[config_.list_tracks[l]], 128u));
    }
    for (std::size_t start = 0; start < questions.n; start += kSliceQuestions) {
        const AlternatingLock::Reading reading(lock_);
        const std::size_t stop = std::min(questions.n, start + kSliceQuestions);
        for (std::size_t i = start; i < stop; ++i) {
            if (i + kAhead < stop) map_.prefetch(map_.mixed(questions.keys[i + kAhead]));
            const bool is_same = i > start && questions.keys[i] == questions.keys[i - 1] &&
                                 questions.times[i] == questions.times[i - 1] &&
                                 (questions.known == nullptr || questions.known[i] == questions.known[i - 1]);
            if (is_same) {
                repeat(questions, i, out, lists);
            } else {
                answer(questions, i, out, lists);
            }
        }
    }
    return lists;
}

void RunningKeys::answer(const RunningQuestions& questions, std::size_t i, float* out,
                         std::vector<RunningLists>& lists) const {
    const std::int64_t time = questions.times[i];
    const State* state = nullptr;
    std::uint32_t slot = 0;
    if (questions.known == nullptr || questions.known[i]) {
        const KeyMap::Place place = map_.find(map_.mixed(questions.keys[i]));
        if (place.found) {
            slot = place.value();
            state = &states_[slot];
            if (is_expired(*state) || state->first >= time) state = nullptr;
        }
    }
    const std::uint32_t before = state == nullptr ? 0 : state->times.before(time);
    for (std::size_t c = 0; c < config_.columns.size(); ++c) {
        const RunningColumn& column = config_.columns[c];
        const bool is_count = column.kind == Kind::count || column.kind == Kind::window_count;
        const float missing = is_count ? 0.0f : static_cast<float>(column.missing);
        out[c * questions.n + i] = state == nullptr ? missing : number(column, slot, time, before);
    }
    for (std::size_t l = 0; l < lists.size(); ++l) {
        RunningLists& list = lists[l];
        if (state != nullptr) {
            const Timeline<Remembered>& track = tracks_[config_.list_tracks[l]][slot];
            const std::uint32_t last = track.before(time);
            const std::uint32_t n = std::min(last, config_.tracks[config_.list_tracks[l]]);
            const std::size_t size = list.values.size();
            list.values.resize(size + n);
            for (std::uint32_t k = 0; k < n; ++k) list.values[size + k] = track[last - n + k].value;
        }
        list.offsets.push_back(static_cast<std::int64_t>(list.values.size()));
    }
}

// The answer to the question before, which was about the same key at the same time: users are asked about many items.
void RunningKeys::repeat(const RunningQuestions& questions, std::size_t i, float* out, std::vector<RunningLists>& lists) const {
    for (std::size_t c = 0; c < config_.columns.size(); ++c) out[c * questions.n + i] = out[c * questions.n + i - 1];
    for (RunningLists& list : lists) {
        const std::size_t begin = static_cast<std::size_t>(list.offsets[i - 1]), end = static_cast<std::size_t>(list.offsets[i]);
        list.values.resize(end + (end - begin));
        std::copy_n(list.values.begin() + static_cast<std::ptrdiff_t>(begin), end - begin,
                    list.values.begin() + static_cast<std::ptrdiff_t>(end));
        list.offsets.push_back(static_cast<std::int64_t>(list.values.size()));
    }
}

// The value of a column for a key that has an event before the time. `before`: how many of its times are earlier.
float RunningKeys::number(const RunningColumn& column, std::uint32_t slot, std::int64_t time, std::uint32_t before) const {
    const State& state = states_[slot];
    switch (column.kind) {
        case Kind::count: return static_cast<float>(state.gone + before);
        case Kind::window_count: return static_cast<float>(before - state.times.before(minus(time, column.window), before));
        case Kind::age: return static_cast<float>(std::min(since(state.first, time) / column.unit, column.most));
        case Kind::idle: {
            // Of a time before clock - lateness, events that left may be later than it: they are not looked at.
            const std::int64_t last = before > 0              ? state.times[before - 1]
                                      : state.last_gone < time ? state.last_gone
                                                               : state.first;
            return static_cast<float>(std::min(since(last, time) / column.unit, column.most));
        }
        case Kind::last_value: {
            const Timeline<Remembered>& track = tracks_[column.track][slot];
            const std::uint32_t count = track.before(time);
            if (count == 0) return std::numeric_limits<float>::quiet_NaN();
            return static_cast<float>(std::bit_cast<double>(track[count - 1].value));
        }
    }
    return 0.0f;
}

}  // namespace embtables
