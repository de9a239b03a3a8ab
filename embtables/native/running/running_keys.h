// What happened to the keys of one set of columns: counts over windows, ages, last values; folded from events, asked at
// a time. A question at time t about a key is about its events strictly before t.
//
//     key -> first time | events that left: how many, their last time | times of the others | last values, by track
//                                                     <-- horizon = clock - lateness - longest window
//
// Times are microseconds. Questions at or after clock - lateness are answered exactly, whatever order events came in.
// Nothing here is called by two threads at once, but `ask`, which any number may call beside one writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <vector>

#include "keys/key_map.h"
#include "running/alternating_lock.h"
#include "running/timeline.h"

namespace embtables {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();

// A column of numbers.
struct RunningColumn {
    enum class Kind : std::uint8_t { count, window_count, age, idle, last_value };

    Kind kind;
    std::int64_t window = 0;
    double unit = 1.0;     // of ages, in microseconds
    double missing = 0.0;  // of ages: where there is no event; NaN stands for null
    double most = 0.0;     // ages are no greater
    std::size_t track = 0;
};

struct RunningConfig {
    std::int64_t lateness = 0;
    std::optional<std::int64_t> keep;  // a key without an event for longer is dropped; at least horizon's distance
    std::vector<RunningColumn> columns{};
    std::vector<std::uint32_t> tracks{};      // how many last values each remembers
    std::vector<std::size_t> list_tracks{};   // those whose values are answered as lists

    std::int64_t longest_window() const;
};

// n events. Values are 64 bits of any meaning; `has_value` of a track may be absent: all have one.
struct RunningEvents {
    std::size_t n;
    const std::int64_t* times;
    const std::int64_t* keys;
    std::vector<const std::int64_t*> values;  // by track
    std::vector<const bool*> has_value;       // by track
};

// n questions; `known` may be absent: a key that is not known has no events.
struct RunningQuestions {
    std::size_t n;
    const std::int64_t* times;
    const std::int64_t* keys;
    const bool* known;
};

// The lists of n questions: (n + 1) offsets into values.
struct RunningLists {
    std::vector<std::int64_t> offsets{0};
    std::vector<std::int64_t> values{};
};

// All of it as arrays, by key in ascending order.
struct RunningImage {
    struct Track {
        std::vector<std::int64_t> counts{}, times{}, values{};
    };

    std::vector<std::int64_t> keys{}, first{}, gone{}, last_gone{}, counts{}, times{};
    std::vector<Track> tracks{};
};

class RunningKeys {
public:
    explicit RunningKeys(RunningConfig config);

    const RunningConfig& config() const { return config_; }
    std::int64_t clock() const { return clock_; }

    // The clock goes to `clock` first, if it is not there yet.
    void fold(const RunningEvents& events, std::int64_t clock);

    // `out`: (columns, n) by column. Returns the lists of each list track.
    std::vector<RunningLists> ask(const RunningQuestions& questions, float* out) const;

    // The same events in the same batches give the same image.
    RunningImage image();

    // Makes an empty one what an image says. Throws std::invalid_argument where it is none that `image` made.
    void fill(const RunningImage& image, std::int64_t clock);

    std::size_t num_keys() const;
    std::size_t bytes() const;

private:
    struct State {
        std::int64_t key;
        std::int64_t first;
        std::int64_t gone = 0;
        std::int64_t last_gone = kNever;
        Timeline<std::int64_t> times{};

        bool is_free() const { return gone == 0 && times.size() == 0; }
        std::int64_t last() const { return times.size() > 0 ? times[times.size() - 1] : last_gone; }
    };

    void add(const RunningEvents& events, std::size_t i);
    std::uint32_t slot_for(std::int64_t key);
    void reset(std::uint32_t slot);
    void trim(std::uint32_t slot);
    void sweep(std::size_t slots);
    bool is_expired(const State& state) const;
    void answer(const RunningQuestions& questions, std::size_t i, float* out, std::vector<RunningLists>& lists) const;
    void repeat(const RunningQuestions& questions, std::size_t i, float* out, std::vector<RunningLists>& lists) const;
    float number(const RunningColumn& column, std::uint32_t slot, std::int64_t time, std::uint32_t before) const;
    std::size_t held(std::uint32_t slot) const;

    RunningConfig config_;
    std::int64_t longest_window_;
    AlternatingLock lock_{};
    KeyMap map_{0};
    std::deque<State> states_{};
    std::vector<std::deque<Timeline<Remembered>>> tracks_{};
    std::vector<std::uint32_t> free_{};
    std::size_t swept_ = 0;  // the slot that is swept next
    std::size_t held_ = 0;   // bytes of all timelines
    std::int64_t clock_ = kNever;
};

}  // namespace embtables
