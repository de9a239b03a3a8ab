// Drives a served map without Python: readers on several threads look up keys that one writer gives a new row and a new
// time in each round. Ends with status 1 where a reader finds a row with the time of a later one: past its ttl, it would
// be read as if it had been seen again.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "serve/served_map.h"

using namespace embtables;

int main() {
    constexpr int kReaders = 3;
    constexpr std::uint32_t kRounds = 200'000;
    constexpr std::size_t kKeys = 6;
    const std::int64_t keys[kKeys] = {-3, 0, 1, 2, 3, std::int64_t{1} << 60};
    Readers readers;
    ServedMap map(7, readers);
    std::atomic<bool> done{false}, wrong{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < kReaders; ++i)
        threads.emplace_back([&] {
            while (!done.load()) {
                const Readers::Reading reading(readers);
                map.find(keys, kKeys, [&](std::size_t, ServedMap::Entry found) {
                    if (found.row < found.seen) wrong.store(true);
                });
            }
        });
    // In round r each key has row r, seen at r.
    for (std::uint32_t round = 1; round <= kRounds && !wrong.load(); ++round)
        for (const std::int64_t key : keys) map.set(key, {round, round});
    done.store(true);
    for (std::thread& thread : threads) thread.join();
    if (wrong.load()) std::fprintf(stderr, "wrong: a row with the time of a later one\n");
    return wrong.load() ? 1 : 0;
}
