// Drives running features without Python, for the sanitizers (`make sanitize`): readers on several threads beside one
// that folds and takes images. Ends with status 1 where a reader sees counts fall, or values of another key.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "running/running_keys.h"

using namespace embtables;

namespace {

constexpr int kReaders = 3, kBatches = 200, kEvents = 300;
constexpr std::int64_t kKeys = 500, kFar = std::int64_t{1} << 50;
constexpr std::size_t kColumns = 4, kAsked = 100;

void need(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

RunningConfig config() {
    using Kind = RunningColumn::Kind;
    RunningConfig made;
    made.lateness = 100;
    RunningColumn window, idle, value;
    window.kind = Kind::window_count;
    window.window = 1000;
    idle.kind = Kind::idle;
    idle.most = 1e18;
    value.kind = Kind::last_value;
    RunningColumn count;
    count.kind = Kind::count;
    made.columns = {count, window, idle, value};
    made.tracks = {1, 5};
    made.list_tracks = {1};
    return made;
}

void give(RunningKeys& keys, const std::vector<std::int64_t>& times, const std::vector<std::int64_t>& of, std::int64_t clock) {
    std::vector<std::int64_t> numbers;
    for (const std::int64_t key : of) numbers.push_back(std::bit_cast<std::int64_t>(static_cast<double>(key)));
    keys.fold({times.size(), times.data(), of.data(), {numbers.data(), of.data()}, {nullptr, nullptr}}, clock);
}

void fold(RunningKeys& keys, std::mt19937_64& random, std::vector<std::int64_t>& counts, int batch) {
    std::vector<std::int64_t> times, of;
    for (int i = 0; i < kEvents; ++i) {
        const std::int64_t late = random() % 50 == 0 ? static_cast<std::int64_t>(random() % 3000) : 0;
        times.push_back(batch * 100 + i / 3 - late);
        of.push_back(static_cast<std::int64_t>(random() % kKeys));
        ++counts[static_cast<std::size_t>(of.back())];
    }
    give(keys, times, of, batch * 100);
}

void read(const RunningKeys& keys, const std::atomic<bool>& done, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<float> seen(kKeys, 0.0f), out(kColumns * kAsked);
    const std::vector<std::int64_t> times(kAsked, kFar);
    std::vector<std::int64_t> of(kAsked);
    while (!done.load()) {
        for (std::int64_t& key : of) key = static_cast<std::int64_t>(random() % kKeys);
        const std::vector<RunningLists> lists = keys.ask({kAsked, times.data(), of.data(), nullptr}, out.data());
        for (std::size_t i = 0; i < kAsked; ++i) {
            float& last = seen[static_cast<std::size_t>(of[i])];
            need(out[i] >= last, "counts rise");
            last = out[i];
            need(out[i] == 0.0f || out[3 * kAsked + i] == static_cast<float>(of[i]), "a value is its key's");
            const std::int64_t begin = lists[0].offsets[i], end = lists[0].offsets[i + 1];
            need(static_cast<float>(end - begin) == std::min(out[i], 5.0f), "a list has the last events");
            for (std::int64_t v = begin; v < end; ++v)
                need(lists[0].values[static_cast<std::size_t>(v)] == of[i], "a listed value is its key's");
        }
    }
}

void drive_readers() {
    RunningKeys keys(config());
    std::vector<std::int64_t> counts(kKeys, 0);
    std::atomic<bool> done{false};
    std::vector<std::thread> readers;
    for (int r = 0; r < kReaders; ++r)
        readers.emplace_back(read, std::cref(keys), std::cref(done), static_cast<std::uint64_t>(10 + r));
    std::mt19937_64 random(1);
    for (int batch = 0; batch < kBatches; ++batch) {
        fold(keys, random, counts, batch);
        if (batch % 50 == 0) keys.image();
        need(keys.bytes() > 0, "memory is counted");
    }
    done.store(true);
    for (std::thread& reader : readers) reader.join();
    RunningKeys other(config());
    other.fill(keys.image(), keys.clock());
    std::vector<std::int64_t> asked(kKeys), times(kKeys, kFar);
    for (std::size_t k = 0; k < asked.size(); ++k) asked[k] = static_cast<std::int64_t>(k);
    std::vector<float> out(kColumns * asked.size());
    for (const RunningKeys* of : {&keys, &other}) {
        of->ask({asked.size(), times.data(), asked.data(), nullptr}, out.data());
        for (std::size_t k = 0; k < asked.size(); ++k)
            need(out[k] == static_cast<float>(counts[k]), "every event is counted once");
    }
}

void drive_forgetting() {
    RunningConfig forgetful = config();
    forgetful.keep = 1100;
    RunningKeys keys(forgetful);
    for (int batch = 0; batch < kBatches; ++batch) {
        std::vector<std::int64_t> of(10);
        for (std::size_t i = 0; i < of.size(); ++i) of[i] = batch * 10 + static_cast<std::int64_t>(i);
        give(keys, std::vector<std::int64_t>(10, batch * 500), of, batch * 500);
    }
    keys.image();
    need(keys.num_keys() == 30, "keys without events for longer are forgotten");
}

}  // namespace

int main() {
    drive_readers();
    drive_forgetting();
    std::puts("running features: ok");
    return 0;
}
