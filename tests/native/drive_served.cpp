// Drives served tables without Python, for the sanitizers (`make sanitize`): readers on several threads beside one that
// sets rows, takes keys away, changes the scale of all weights and moves the clock. Ends with status 1 where a reader sees
// a row that no version had.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/isa.h"
#include "serve/row_scales.h"
#include "serve/served_store.h"

using namespace embtables;

namespace {

constexpr int kDim = 24, kReaders = 3;
constexpr std::int64_t kKeys = 400, kUsers = 100, kDecayed = 64;
constexpr std::uint32_t kTtl = 8;

void need(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

// In version v, each value of the row of key k is k + 1000 v, at the table's scale.
struct Version {
    int number;
    float scale = 1.0f;
    std::vector<std::int64_t> keys{}, tombstones{};
    std::vector<float> weights{};
    std::vector<std::uint32_t> seen{};

    void add(std::int64_t key) {
        keys.push_back(key);
        seen.push_back(static_cast<std::uint32_t>(number));
        weights.insert(weights.end(), kDim, static_cast<float>(key % 1000 + 1000 * number));
    }
    void give(ServedTable& table, bool more = false) const {
        const bool timed = table.config().num_rows == 0;
        table.apply({keys.data(), weights.data(), timed ? seen.data() : nullptr, keys.size(), tombstones.data(),
                     tombstones.size(), nullptr, static_cast<std::uint32_t>(number), scale, more});
    }
};

float whole_value(const float* row) {
    for (int j = 1; j < kDim; ++j) need(row[j] == row[0], "a row is whole");
    return row[0];
}

void need_row(const float* row, std::int64_t key, int& newest) {
    const int value = static_cast<int>(whole_value(row));
    if (value == 0) return;
    need(value % 1000 == key % 1000, "a row is its key's");
    need(value / 1000 >= newest, "a reader sees no older row after a newer one");
    newest = value / 1000;
}

// Version v of the decayed table has scale 2^-(v % 8), and gives keys with k % 4 == v % 4 anew, or all where v % 8 == 0: what
// is stored of a row is its key + 1 plus 100 times the version that wrote it.
float decayed_value(std::int64_t key, int version) {
    int wrote = version;
    while (wrote % 8 != 0 && wrote % 4 != static_cast<int>(key % 4)) --wrote;
    const int stored = static_cast<int>(key) + 1 + 100 * wrote;
    return static_cast<float>(stored) / static_cast<float>(1 << (version % 8));
}

void need_decayed(const float* row, std::int64_t key, int& newest) {
    const float value = whole_value(row);
    for (int version = newest; version < newest + 4000; ++version)
        if (decayed_value(key, version) == value) {
            newest = version;
            return;
        }
    need(false, "a decayed row is of one version, and not of an older one after a newer one");
}

void read(const ServedStore& store, int seed, const std::atomic<bool>& done) {
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    std::vector<int> newest(kKeys + kUsers), decayed(kDecayed);
    const std::int32_t features[] = {0, 1, 2};
    while (!done.load()) {
        std::vector<std::int64_t> keys(120), offsets(121);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = static_cast<std::int64_t>(random() % (i < 40 ? kKeys : i < 80 ? kUsers : kDecayed));
            offsets[i + 1] = static_cast<std::int64_t>(i + 1);
        }
        std::vector<float> out(40 * 3 * kDim);
        store.pooled({features, 3, 3, offsets.data(), nullptr, 40}, keys.data(), 1, out.data());
        for (std::size_t bag = 0; bag < 40; ++bag) {
            const float* row = out.data() + bag * 3 * kDim;
            need_row(row, keys[bag], newest[static_cast<std::size_t>(keys[bag])]);
            need_row(row + kDim, keys[40 + bag], newest[static_cast<std::size_t>(kKeys + keys[40 + bag])]);
            need_decayed(row + 2 * kDim, keys[80 + bag], decayed[static_cast<std::size_t>(keys[80 + bag])]);
        }
        std::vector<float> gathered(40 * kDim);
        store.gather(2, keys.data() + 80, 40, 1, gathered.data(), nullptr);
        for (std::size_t i = 0; i < 40; ++i)
            need_decayed(gathered.data() + i * kDim, keys[80 + i], decayed[static_cast<std::size_t>(keys[80 + i])]);
    }
}

void give_decayed(ServedTable& table, int number) {
    const float scale = 1.0f / static_cast<float>(1 << (number % 8));
    Version first{number, scale}, second{number, scale};
    for (std::int64_t key = 0; key < kDecayed; ++key) {
        if (number % 8 != 0 && key % 4 != number % 4) continue;
        Version& of = key < kDecayed / 2 ? first : second;
        of.keys.push_back(key);
        of.seen.push_back(0);
        of.weights.insert(of.weights.end(), kDim, static_cast<float>(key + 1 + 100 * number));
    }
    first.give(table, true);
    second.give(table);
}

void write(ServedStore& store, int versions) {
    std::mt19937_64 random(9);
    for (int number = 1; number <= versions; ++number) {
        Version items{number}, users{number};
        for (std::int64_t key = 0; key < kKeys; ++key)
            if (number % 16 == 0 || random() % 4 == 0)
                items.add(key);
            else if (random() % 8 == 0)
                items.tombstones.push_back(key);
        for (std::int64_t key = 0; key < 200; ++key) items.add(1'000'000 + 200 * number + key);  // shards grow
        for (std::int64_t key = 0; key < kUsers; key += 1 + static_cast<std::int64_t>(random() % 3)) users.add(key);
        items.give(store.table(0));
        users.give(store.table(1));
        give_decayed(store.table(2), number);
    }
}

// What is past its ttl reads cold, once the clock says so.
void need_expired(const ServedStore& store, int versions) {
    std::vector<std::int64_t> keys;
    for (int number = 1; number <= versions; ++number) keys.push_back(1'000'000 + 200 * number);
    std::vector<float> out(keys.size() * kDim);
    const auto is_cold = std::make_unique<bool[]>(keys.size());
    store.gather(0, keys.data(), keys.size(), 1, out.data(), is_cold.get());
    for (int number = 1; number <= versions; ++number)
        need(is_cold[static_cast<std::size_t>(number - 1)] == (versions - number > static_cast<int>(kTtl)), "a row is cold past its ttl");
}

}  // namespace

int main() {
    constexpr std::uint32_t forever = 0xFFFFFFFFu;
    for (const Isa isa : available_isas()) {
        const RowKernels* kernels = &scalar::row_kernels;
        if (isa == Isa::avx2) kernels = &avx2::row_kernels;
        if (isa == Isa::avx512) kernels = &avx512::row_kernels;
        ServedStore store(*kernels, {{kDim, 7, 0, kTtl}, {kDim, 3, kUsers, forever}, {kDim, 5, 0, forever}}, {0, 1, 2});
        give_decayed(store.table(2), 0);
        std::atomic<bool> done{false};
        std::vector<std::thread> readers;
        for (int i = 0; i < kReaders; ++i) readers.emplace_back([&, i] { read(store, i, done); });
        write(store, 300);
        done = true;
        for (std::thread& reader : readers) reader.join();
        need_expired(store, 300);
        std::printf("served, %s: done\n", isa_name(isa));
    }
}
