// Drives a joiner without Python: impressions and actions of random keys and times while windows close, and now and then
// it is saved and another goes on with what was saved. Ends with status 1 where the two then differ, or a key is lost.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>

#include <vector>

#include "join/joiner.h"

using namespace embtables;

namespace {

constexpr JoinWindows kWindows{100'000, 50'000, 100};

JoinArraysView view(const JoinArrays& of) {
    return {of.keys.data(), of.times.data(), of.entries.data(), of.rows.data(), of.states.data(), of.keys.size()};
}

// The numbers of entries mean nothing to another joiner: here all events are of one.
std::unique_ptr<Joiner> reloaded(const Joiner& from) {
    JoinArrays saved = from.save();
    bool any = false;
    for (std::size_t i = 0; i < saved.keys.size(); ++i) {
        saved.entries[i] = 0;
        any = any || needs_payload(static_cast<JoinState>(saved.states[i]));
    }
    auto made = std::make_unique<Joiner>(kWindows);
    made->load(view(saved), any ? 1 : 0, from.watermark());
    return made;
}

bool refuses(JoinArrays damaged, std::uint32_t entries) {
    Joiner joiner(kWindows);
    try {
        joiner.load(view(damaged), entries, 0);
    } catch (const std::invalid_argument&) {
        return true;
    }
    return false;
}

}  // namespace

int main() {
    constexpr std::size_t kEvents = 2'000;
    std::mt19937_64 random(1);
    auto joiner = std::make_unique<Joiner>(kWindows);
    std::vector<std::uint64_t> keys(kEvents);
    std::vector<std::int64_t> times(kEvents);
    std::vector<std::uint32_t> rows(kEvents);
    std::vector<JoinOutcome> outcomes(kEvents);
    std::vector<Payload> found(kEvents);
    std::int64_t now = 0;
    for (int round = 0; round < 300; ++round) {
        const std::uint32_t entry = joiner->hold();
        for (const bool is_impression : {true, false}) {
            for (std::size_t i = 0; i < kEvents; ++i) {
                keys[i] = random() % 60'000;
                times[i] = now + static_cast<std::int64_t>(random() % 4'000) - 2'000;
                rows[i] = static_cast<std::uint32_t>(i);
            }
            const auto call = is_impression ? &Joiner::impressions : &Joiner::actions;
            ((*joiner).*call)(entry, keys.data(), times.data(), rows.data(), kEvents, outcomes.data(), found.data());
        }
        joiner->release(entry);
        now += 3'000;
        while (!joiner->advance(now, 500).done) continue;
        joiner->take_freed();
        if (round % 50 != 49) continue;
        auto other = reloaded(*joiner);
        if (other->size() != joiner->size() || other->save().keys != joiner->save().keys) {
            std::fprintf(stderr, "wrong: what was saved is not what was loaded\n");
            return 1;
        }
        joiner = std::move(other);
        joiner->take_freed();
    }
    const JoinArrays saved = reloaded(*joiner)->save();
    JoinArrays twice = saved, far = saved, unknown = saved;
    twice.keys[1] = twice.keys[0];
    far.entries.assign(far.entries.size(), 0xFFFFFFFF);
    unknown.states[0] = 200;
    if (!refuses(twice, 1) || !refuses(far, 1) || !refuses(unknown, 1) || refuses(saved, 1)) {
        std::fprintf(stderr, "wrong: a damaged state was loaded, or a whole one refused\n");
        return 1;
    }
    while (!joiner->advance(now + 1'000'000, 1'000).done) continue;
    if (joiner->size() != 0) std::fprintf(stderr, "wrong: keys are left\n");
    return joiner->size() == 0 ? 0 : 1;
}
