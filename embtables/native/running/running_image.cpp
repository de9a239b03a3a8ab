// RunningKeys as arrays, and back.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "running/running_keys.h"

namespace embtables {
namespace {

constexpr std::size_t kSliceSlots = 1024;

void need(bool right, const char* what) {
    if (!right) throw std::invalid_argument(what);
}

// Where those of each key begin; the last is where all end. Counts are checked before anything is read by them.
std::vector<std::size_t> begins(const std::vector<std::int64_t>& counts, std::size_t keys, std::size_t total) {
    need(counts.size() == keys, "as many counts as keys are needed");
    std::vector<std::size_t> found(keys + 1, 0);
    for (std::size_t k = 0; k < keys; ++k) {
        need(counts[k] >= 0 && static_cast<std::uint64_t>(counts[k]) <= total - found[k] &&
                 counts[k] <= Timeline<std::int64_t>::kMost,
             "counts must add up to what there is");
        found[k + 1] = found[k] + static_cast<std::size_t>(counts[k]);
    }
    need(found[keys] == total, "counts must add up to what there is");
    return found;
}

void need_order(const std::vector<std::int64_t>& times, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin + 1; i < end; ++i) need(times[i - 1] <= times[i], "times must not fall");
}

}  // namespace

RunningImage RunningKeys::image() {
    // The only writer is here: what it does not change, readers may read at the same time.
    for (std::size_t swept = 0; swept < states_.size(); swept += kSliceSlots) {
        const AlternatingLock::Writing slice(lock_);
        sweep(kSliceSlots);
    }
    std::vector<std::pair<std::int64_t, std::uint32_t>> order;
    order.reserve(map_.size());
    std::size_t num_times = 0;
    for (std::uint32_t slot = 0; slot < states_.size(); ++slot) {
        if (states_[slot].is_free()) continue;
        order.emplace_back(states_[slot].key, slot);
        num_times += states_[slot].times.size();
    }
    std::sort(order.begin(), order.end());
    RunningImage image;
    for (auto* const array : {&image.keys, &image.first, &image.gone, &image.last_gone, &image.counts})
        array->reserve(order.size());
    image.times.reserve(num_times);
    image.tracks.resize(tracks_.size());
    for (const auto& [key, slot] : order) {
        const State& state = states_[slot];
        image.keys.push_back(key);
        image.first.push_back(state.first);
        image.gone.push_back(state.gone);
        image.last_gone.push_back(state.last_gone);
        image.counts.push_back(state.times.size());
        image.times.insert(image.times.end(), state.times.begin(), state.times.end());
        for (std::size_t t = 0; t < tracks_.size(); ++t) {
            RunningImage::Track& into = image.tracks[t];
            into.counts.push_back(tracks_[t][slot].size());
            for (const Remembered& item : tracks_[t][slot]) {
                into.times.push_back(item.time);
                into.values.push_back(item.value);
            }
        }
    }
    return image;
}

void RunningKeys::fill(const RunningImage& image, std::int64_t clock) {
    const std::size_t n = image.keys.size();
    need(states_.empty(), "only an empty state is filled");
    need(n < Timeline<std::int64_t>::kMost, "there are more keys than are held");
    need(image.first.size() == n && image.gone.size() == n && image.last_gone.size() == n, "an array is too short or long");
    need(image.tracks.size() == tracks_.size(), "there are more or fewer tracks than columns remember values");
    const std::vector<std::size_t> times = begins(image.counts, n, image.times.size());
    std::vector<std::vector<std::size_t>> tracks;
    for (const RunningImage::Track& track : image.tracks) {
        need(track.values.size() == track.times.size(), "as many values as times are needed");
        tracks.push_back(begins(track.counts, n, track.times.size()));
    }
    for (std::size_t k = 0; k < n; ++k) {
        const std::size_t begin = times[k], end = times[k + 1];
        need(k == 0 || image.keys[k - 1] < image.keys[k], "keys must rise");
        need(image.gone[k] >= 0 && (image.gone[k] > 0 || begin < end), "a key needs an event");
        need(image.gone[k] > 0 ? image.first[k] <= image.last_gone[k] : image.last_gone[k] == kNever,
             "the last time of events that left does not fit");
        need(begin == end || image.first[k] <= image.times[begin], "the first time of a key must be its earliest");
        need_order(image.times, begin, end);
        for (std::size_t t = 0; t < tracks.size(); ++t) need_order(image.tracks[t].times, tracks[t][k], tracks[t][k + 1]);
    }
    const AlternatingLock::Writing all(lock_);
    clock_ = clock;
    std::vector<Remembered> items;
    for (std::size_t k = 0; k < n; ++k) {
        const std::uint32_t slot = slot_for(image.keys[k]);
        State& state = states_[slot];
        state.first = image.first[k];
        state.gone = image.gone[k];
        state.last_gone = image.last_gone[k];
        state.times.fill(image.times.data() + times[k], static_cast<std::uint32_t>(times[k + 1] - times[k]));
        for (std::size_t t = 0; t < tracks.size(); ++t) {
            items.clear();
            for (std::size_t i = tracks[t][k]; i < tracks[t][k + 1]; ++i)
                items.push_back({image.tracks[t].times[i], image.tracks[t].values[i]});
            tracks_[t][slot].fill(items.data(), static_cast<std::uint32_t>(items.size()));
        }
        held_ += held(slot);
    }
}

}  // namespace embtables
