// Drives served tables without Python, for the sanitizers (`make sanitize`): readers on several threads beside one that
// sets rows, takes keys away and gives whole tables. Ends with status 1 where a reader sees a row that no version had.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "base/isa.h"
#include "serve/served_store.h"

using namespace embtables;

namespace {

constexpr int kDim = 24, kReaders = 3;
constexpr std::int64_t kKeys = 400, kUsers = 100;

void need(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

// In version v, each value of the row of key k is k + 1000 v.
struct Version {
    std::vector<std::int64_t> keys, tombstones;
    std::vector<float> weights;
    std::vector<std::uint32_t> seen;

    void add(std::int64_t key, int version) {
        keys.push_back(key);
        seen.push_back(0);
        weights.insert(weights.end(), kDim, static_cast<float>(key % 1000 + 1000 * version));
    }
    ServedChange change(bool timed) const {
        return {keys.data(), weights.data(), timed ? seen.data() : nullptr, keys.size(), tombstones.data(), tombstones.size(),
                nullptr, 0};
    }
};

void need_row(const float* row, std::int64_t key, int& newest) {
    for (int j = 1; j < kDim; ++j) need(row[j] == row[0], "a row is whole");
    const int value = static_cast<int>(row[0]);
    if (value == 0) return;
    need(value % 1000 == key % 1000, "a row is its key's");
    need(value / 1000 >= newest, "a reader sees no older row after a newer one");
    newest = value / 1000;
}

void read(const ServedStore& store, int seed, const std::atomic<bool>& done) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    std::vector<int> newest(kKeys + kUsers);
    const std::int32_t features[] = {0, 1};
    while (!done.load()) {
        std::vector<std::int64_t> keys(80), offsets(81);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = static_cast<std::int64_t>(random() % (i < 40 ? kKeys : kUsers));
            offsets[i + 1] = static_cast<std::int64_t>(i + 1);
        }
        std::vector<float> out(40 * 2 * kDim);
        store.pooled({features, 2, 2, offsets.data(), nullptr, 40}, keys.data(), 1, out.data(), nullptr);
        for (std::size_t bag = 0; bag < 40; ++bag) {
            need_row(out.data() + bag * 2 * kDim, keys[bag], newest[static_cast<std::size_t>(keys[bag])]);
            need_row(out.data() + bag * 2 * kDim + kDim, keys[40 + bag], newest[static_cast<std::size_t>(kKeys + keys[40 + bag])]);
        }
    }
}

void write(ServedStore& store, int versions) {
    std::mt19937_64 random(9);
    for (int number = 1; number <= versions; ++number) {
        Version items, users;
        for (std::int64_t key = 0; key < kKeys; ++key)
            if (number % 16 == 0 || random() % 4 == 0)
                items.add(key, number);
            else if (random() % 8 == 0)
                items.tombstones.push_back(key);
        for (std::int64_t key = 0; key < 200; ++key) items.add(1'000'000 + 200 * number + key, number);  // shards grow
        for (std::int64_t key = 0; key < kUsers; key += 1 + static_cast<std::int64_t>(random() % 3)) users.add(key, number);
        number % 16 == 0 ? store.table(0).replace(items.change(true)) : store.table(0).apply(items.change(true));
        store.table(1).apply(users.change(false));
        if (number % 16 == 0) need(store.table(0).num_rows() == static_cast<std::uint64_t>(kKeys) + 200, "a whole table");
    }
}

}  // namespace

int main() {
    constexpr std::uint32_t forever = 0xFFFFFFFFu;
    for (const Isa isa : available_isas()) {
        const RowKernels* kernels = &scalar::row_kernels;
        if (isa == Isa::avx2) kernels = &avx2::row_kernels;
        if (isa == Isa::avx512) kernels = &avx512::row_kernels;
        ServedStore store(*kernels, {{kDim, 7, 0, forever}, {kDim, 3, kUsers, forever}}, {0, 1});
        std::atomic<bool> done{false};
        std::vector<std::thread> readers;
        for (int i = 0; i < kReaders; ++i) readers.emplace_back([&, i] { read(store, i, done); });
        write(store, 300);
        done = true;
        for (std::thread& reader : readers) reader.join();
        std::printf("served, %s: done\n", isa_name(isa));
    }
}
