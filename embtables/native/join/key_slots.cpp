#include "join/key_slots.h"

#include <algorithm>
#include <utility>

#include "base/mix.h"

namespace embtables {
namespace {

constexpr std::uint32_t kEmpty = 0, kMoved = 0xFFFFFFFF;
constexpr int kFirstBits = 10;
// The larger array is full again after 3/4 as many insertions as the smaller one has places: all are moved long before.
constexpr std::size_t kMovedAtOnce = 8;

}  // namespace

KeySlots::KeySlots(const JoinRecords& records) : records_(records), now_(places(kFirstBits)) {}

KeySlots::Places KeySlots::places(int bits) {
    Places made;
    made.capacity = std::size_t{1} << bits;
    made.shift = 64 - bits;
    made.region.reserve(made.capacity * sizeof(std::uint32_t));
    return made;
}

// Multiplied, because keys that come in rising order, as out of a file, would fill one end of the array.
std::size_t KeySlots::Places::home(std::uint64_t key) const { return (key * kGoldenGamma) >> shift; }

// The place of a key, of the given record if that is known; nullptr if it is not there.
std::uint32_t* KeySlots::find_in(const Places& places, std::uint64_t key, std::uint32_t record) const {
    std::uint32_t* const all = places.region.as<std::uint32_t>();
    for (std::size_t at = places.home(key);; at = (at + 1) & (places.capacity - 1)) {
        if (all[at] == kEmpty) return nullptr;
        if (all[at] == kMoved) continue;
        const bool found = record != kNone ? all[at] == record + 1 : records_.at(all[at] - 1).key == key;
        if (found) return all + at;
    }
}

std::uint32_t KeySlots::find(std::uint64_t key) const {
    const std::uint32_t* place = find_in(now_, key, kNone);
    if (place == nullptr && before_.capacity != 0) place = find_in(before_, key, kNone);
    return place == nullptr ? kNone : *place - 1;
}

void KeySlots::put(std::uint64_t key, std::uint32_t record) {
    std::uint32_t* const all = now_.region.as<std::uint32_t>();
    std::size_t at = now_.home(key);
    while (all[at] != kEmpty) at = (at + 1) & (now_.capacity - 1);
    all[at] = record + 1;
}

void KeySlots::insert(std::uint64_t key, std::uint32_t record) {
    if (before_.capacity == 0 && (size_ + 1) * 4 > now_.capacity * 3) {
        Places larger = places(64 - now_.shift + 1);
        before_ = std::move(now_);
        now_ = std::move(larger);
        moved_ = 0;
    }
    if (before_.capacity != 0) move_some();
    put(key, record);
    ++size_;
}

void KeySlots::move_some() {
    std::uint32_t* const old = before_.region.as<std::uint32_t>();
    const std::size_t end = std::min(moved_ + kMovedAtOnce, before_.capacity);
    for (; moved_ < end; ++moved_) {
        if (old[moved_] == kEmpty || old[moved_] == kMoved) continue;
        put(records_.at(old[moved_] - 1).key, old[moved_] - 1);
        old[moved_] = kMoved;
    }
    if (moved_ == before_.capacity) before_ = Places();
}

void KeySlots::replace(std::uint64_t key, std::uint32_t record, std::uint32_t by) {
    std::uint32_t* place = find_in(now_, key, record);
    if (place == nullptr) place = find_in(before_, key, record);
    *place = by + 1;
}

void KeySlots::erase(std::uint64_t key, std::uint32_t record) {
    --size_;
    if (std::uint32_t* const place = find_in(now_, key, record); place != nullptr)
        close_gap(static_cast<std::size_t>(place - now_.region.as<std::uint32_t>()));
    else
        *find_in(before_, key, record) = kMoved;
}

// Moves what follows a gap back into it where a search would otherwise end at the gap.
void KeySlots::close_gap(std::size_t gap) {
    std::uint32_t* const all = now_.region.as<std::uint32_t>();
    const std::size_t mask = now_.capacity - 1;
    for (std::size_t at = (gap + 1) & mask; all[at] != kEmpty; at = (at + 1) & mask) {
        const std::size_t home = now_.home(records_.at(all[at] - 1).key);
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        all[gap] = all[at];
        gap = at;
    }
    all[gap] = kEmpty;
}

}  // namespace embtables
