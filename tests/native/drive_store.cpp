// Drives the core without Python, for the sanitizers (`make sanitize`): random lookups, updates, expiry, limits, removals,
// saves, restores and images, over several threads; then parts of tables, and lookups that other ranks answer. Ends with
// status 1 where two keys share a row, or a lookup or an image is not what it was.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/isa.h"
#include "exchange/key_exchange.h"
#include "exchange/key_message.h"
#include "rows/row_image.h"
#include "store/store.h"

using namespace embtables;

namespace {

constexpr int kThreads = 4, kBags = 300, kFeatures = 4;

void need(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

TableSpec spec(int dim, Rule rule, std::uint64_t num_rows, std::uint64_t seed) {
    return {{dim, {Initial::normal, seed, 1e-6f, 0.0f}, {rule, 0.1, 0.9, 0.999, 1e-8f, 1e-4f}}, num_rows, std::nullopt, false};
}

std::vector<TableSpec> tables() {
    std::vector<TableSpec> found{spec(12, Rule::adagrad, 500, 1), spec(8, Rule::adam, 0, 2), spec(1, Rule::sgd, 0, 3)};
    found[1].policy = Policy{2, 2, 1.0, 400, false, 30, 600};
    found[2].policy = Policy{3, 3, 1.0, 400, true, kForever, 0};
    found[2].cold_row_learns = true;
    found.push_back(spec(2, Rule::rowwise_adagrad, 0, 2));  // shares the keys of table 1
    found[3].policy = found[1].policy;
    found[3].keys_of = 1;
    return found;
}

struct Batch {
    std::vector<std::int32_t> features{0, 1, 2, 1};
    std::vector<std::int64_t> keys, offsets{0};
    std::vector<float> weights, gradient;
    std::vector<std::uint32_t> rows;

    Batch(std::mt19937_64& random, bool weighted, std::size_t width) {
        for (int feature = 0; feature < kFeatures; ++feature)
            for (int bag = 0; bag < kBags; ++bag) {
                for (std::uint64_t i = random() % 5; i > 0; --i) {
                    const bool far = feature != 0 && random() % 16 == 0;
                    keys.push_back(far ? static_cast<std::int64_t>(random()) : static_cast<std::int64_t>(random() % 500));
                }
                offsets.push_back(static_cast<std::int64_t>(keys.size()));
            }
        rows.resize(keys.size());
        if (weighted) weights.assign(keys.size(), 0.5f);
        gradient.resize(kBags * width);
        for (float& g : gradient) g = static_cast<float>(static_cast<int>(random() % 200) - 100) / 100.0f;
        if (random() % 4 == 0) gradient[random() % gradient.size()] = 1.0f / 0.0f;
    }

    LookupView view() const {
        const float* const own = weights.empty() ? nullptr : weights.data();
        return {features.data(), features.size(), features.size(), offsets.data(), own, kBags};
    }

    // The keys of feature 1 for the two tables that share them: two features read one list.
    LookupView second_list() const {
        static constexpr std::int32_t both[] = {1, 4};
        return {both, 2, 1, offsets.data() + kBags, weights.empty() ? nullptr : weights.data(), kBags};
    }
    bool finds_rows_of_second(Store& store) const {
        static constexpr std::int32_t other = 4;
        std::vector<std::uint32_t> found(rows.size());
        store.resolve({&other, 1, 1, offsets.data() + kBags, nullptr, kBags}, keys.data(), true, kThreads, found.data());
        const std::int64_t begin = offsets[kBags], end = offsets[2 * kBags];
        return std::equal(found.begin() + begin, found.begin() + end, rows.begin() + begin);
    }
};

void restore(Store& store, int table) {
    Collisionless& keys = *store.keys(table);
    const KeyList rows = store.list_rows(table, 0, kThreads), waiting = keys.list_waiting(kThreads);
    const std::uint32_t now = keys.now();
    const std::uint64_t steps = keys.steps();
    need(std::set<std::uint32_t>(rows.values.begin(), rows.values.end()).size() == rows.keys.size(), "a row for each key");
    store.clear(table);
    std::vector<std::uint32_t> placed(rows.keys.size());
    Collisionless& fresh = *store.keys(table);
    store.place(table, rows.keys.data(), rows.seen.data(), rows.keys.size(), kThreads, placed.data());
    fresh.set_waiting(waiting.keys.data(), waiting.values.data(), waiting.seen.data(), waiting.keys.size());
    fresh.set_clock(now, steps);
    for (int other = 0; other < 4; ++other) {
        if (other == table || store.keys(other) != &fresh) continue;
        std::vector<std::uint32_t> shared(rows.keys.size());
        store.place(other, rows.keys.data(), rows.seen.data(), rows.keys.size(), kThreads, shared.data());
        need(shared == placed, "tables that share keys have the same row numbers");
    }
    const auto sorted = [](const KeyList& list) {
        std::set<std::pair<std::int64_t, std::uint32_t>> found;
        for (std::size_t i = 0; i < list.keys.size(); ++i) found.insert({list.keys[i], list.seen[i]});
        return found;
    };
    need(sorted(store.list_rows(table, 0, kThreads)) == sorted(rows), "the same keys after a restore");
    need(sorted(fresh.list_waiting(kThreads)) == sorted(waiting), "the same waiting keys after a restore");
}

// What an image holds, as one sum that does not depend on where rows lie.
double sum_of(Store& store, int table, RowImage& image, std::uint32_t now) {
    const KeyList list = store.list_rows(table, image, now, 1);
    const auto dim = static_cast<std::size_t>(store.rows(table).config().dim);
    std::vector<float> row(dim);
    double sum = 0.0;
    std::size_t i = 0;
    store.turns().in_slices([&] {
        if (i == list.keys.size()) return false;
        image.read(Column::weight, dim, &list.values[i], 1, row.data());
        ++i;
        for (const float value : row) sum += value * static_cast<double>(1 + i % 7);
        return true;
    });
    return sum;
}

// An image of each table that another thread reads while training goes on.
class Images {
public:
    explicit Images(Store& store) : store_(store) {
        store.forget(store.draw_cut());
        for (int table = 0; table < 4; ++table) {
            now_.push_back(store.keys(table) == nullptr ? 0 : store.keys(table)->now());
            images_.push_back(store.rows(table).capture(store.num_rows(table)));
            expected_.push_back(sum_of(store, table, *images_.back(), now_.back()));
            images_.back() = store.rows(table).capture(store.num_rows(table));
        }
        reader_ = std::thread([this] {
            for (int table = 0; table < 4; ++table) found_.push_back(sum_of(store_, table, *images_[table], now_[table]));
        });
    }

    void check() {
        reader_.join();
        need(found_ == expected_, "an image is of its moment");
        for (const auto& image : images_) image->abandon();
    }

private:
    Store& store_;
    std::vector<std::uint32_t> now_;
    std::vector<double> expected_, found_;
    std::vector<std::shared_ptr<RowImage>> images_;
    std::thread reader_;
};

// All rows of a table are half of what they were: by its scale, and from time to time in every row.
void decay(Store& store, int table) {
    TableRows& rows = store.rows(table);
    const std::uint32_t row = 1;
    float before = 0.0f, after = 0.0f;
    const auto weight = [&] { return rows.weight()[row * static_cast<std::size_t>(rows.stride())] * rows.weight_scale(); };
    before = weight();
    rows.set_scale(rows.scale() / 2);
    if (rows.scale() < 0x1p-9) rows.fold_scale(store.num_rows(table), kThreads);
    after = weight();
    need(after == before / 2, "a row decays with its table");
}

void drive(const Kernels& kernels, int steps) {
    std::mt19937_64 random(7);
    Store store(kernels, tables(), {0, 1, 2, 1, 3}, kThreads);
    constexpr std::size_t width = 12 + 8 + 1 + 8;
    const auto change = [&](auto&& f) {
        const Turns::Turn turn(store.turns());
        f();
    };
    for (int step = 0; step < steps; ++step) {
        std::unique_ptr<Images> images;
        if (step % 4 == 0) images = std::make_unique<Images>(store);
        for (int table : {1, 2}) store.keys(table)->advance(static_cast<std::uint32_t>(step));
        std::vector<Batch> batches;
        std::vector<KeptGradients> kept;
        for (int i = 0; i < 2; ++i) batches.emplace_back(random, i == 1, width);
        for (Batch& batch : batches) {
            std::vector<float> out(kBags * width), again(out), dots(batch.keys.size());
            change([&] { store.resolve(batch.view(), batch.keys.data(), true, kThreads, batch.rows.data()); });
            store.pooled(batch.view(), batch.rows.data(), kThreads, out.data());
            store.pooled(batch.view(), batch.rows.data(), 1, again.data());
            need(out == again, "the same output on one thread");
            store.dots(batch.view(), batch.rows.data(), batch.gradient.data(), kThreads, dots.data());
            kept.push_back(KeptLookup{batch.view(), batch.rows.data(), batch.gradient.data()});
            kept.push_back(KeptLookup{batch.second_list(), batch.rows.data(), batch.gradient.data()});
            change([&] { need(batch.finds_rows_of_second(store), "a table that shares keys finds the other's rows"); });
        }
        store.gradient_norm(kept, kThreads);
        for (int table : {0, 1}) change([&] { decay(store, table); });
        change([&] { store.update(kept, 1.0, 0.5f, kThreads); });
        for (int table : {1, 2}) change([&] { store.keys(table)->end_step(kThreads); });
        for (int i = 0; i < 20; ++i) change([&] { store.keys(1)->remove(static_cast<std::int64_t>(random() % 500)); });
        if (step % 16 == 15) change([&] { restore(store, 1 + step / 16 % 2); });
        need(store.keys(1)->num_rows() <= 600, "max_rows");
        if (images) images->check();
    }
}

// A part of a fixed table: every key has its row or is refused.
void drive_fixed_part(const Kernels& kernels) {
    constexpr std::int64_t kRows = 20'000;
    std::vector<TableSpec> specs{spec(3, Rule::adam, kRows, 9)};
    specs[0].buckets = {100, 700};
    Store store(kernels, specs, {0}, kThreads);
    const KeyList list = store.list_rows(0, 0, kThreads);
    std::vector<std::uint32_t> found(list.keys.size());
    store.find(0, list.keys.data(), list.keys.size(), kThreads, found.data());
    need(found == list.values && found.size() == store.num_rows(0), "the rows of a part");
    const std::set<std::int64_t> own(list.keys.begin(), list.keys.end());
    for (std::int64_t key = -3; key < kRows + 3; ++key) {
        bool refused = false;
        std::uint32_t row;
        try {
            store.find(0, &key, 1, 1, &row);
        } catch (const std::out_of_range&) {
            refused = true;
        }
        need(refused != own.contains(key), "a part has its own keys alone");
    }
}

// A part of a collisionless table: ranks' keys in segments count as often as they occur; limits are kept from outside.
void drive_part(const Kernels& kernels, int steps) {
    std::mt19937_64 random(8);
    std::vector<TableSpec> specs{tables()[1]};
    specs[0].buckets = {0, 1023};
    specs[0].cold_row_learns = true;
    Store store(kernels, specs, {0}, kThreads);
    Collisionless& keys = *store.keys(0);
    const std::int32_t feature = 0;
    for (int step = 0; step < steps; ++step) {
        std::vector<std::int64_t> asked(300);
        std::vector<std::int32_t> counts(asked.size());
        std::vector<std::uint32_t> rows(asked.size());
        for (std::int64_t& key : asked) key = static_cast<std::int64_t>(random() % 5000);
        for (std::int32_t& count : counts) count = static_cast<std::int32_t>(1 + random() % 3);
        const std::int64_t offsets[] = {0, static_cast<std::int64_t>(asked.size())};
        keys.advance(static_cast<std::uint32_t>(step));
        store.resolve({&feature, 1, 1, offsets, nullptr, 1, counts.data()}, asked.data(), true, kThreads, rows.data());
        const int dim = store.config(0).dim;
        const std::int64_t bounds[] = {0, 0, 100, offsets[1]}, places[] = {1, 1, 1 + 100 * dim};
        const SegmentsView segments{&feature, 1, 3, bounds, places};
        std::vector<float> message(asked.size() * static_cast<std::size_t>(dim) + 1);
        store.gather(segments, rows.data(), kThreads, message.data());
        const std::int64_t used[] = {1, -1, 1 + 100 * dim};
        const std::vector<KeptGradients> kept{
            KeptSegments{{&feature, 1, 3, bounds, used}, rows.data(), message.data(), counts.data()}};
        store.gradient_norm(kept, kThreads);
        store.update(kept, 1.0, 0.5f, kThreads);
        keys.end_step(kThreads);
        for (const bool waiting : {false, true}) {
            const std::vector<std::uint64_t> bins = keys.age_bins(waiting, kThreads);
            std::size_t bin = bins.size() - 1;
            while (bin > 0 && bins[bin] == 0) --bin;
            const std::vector<Candidate> oldest = keys.of_age(waiting, bin, kThreads);
            need(oldest.size() == bins[bin], "the keys of a bin");
            if (step % 4 != 3 || oldest.empty()) continue;
            const Candidate last = *std::min_element(oldest.begin(), oldest.end());
            const std::uint64_t before = waiting ? keys.num_waiting() : keys.num_rows();
            keys.evict(waiting, bin, last, kThreads);
            need(before - 1 == (waiting ? keys.num_waiting() : keys.num_rows()), "one key goes");
        }
    }
}

// Lookups whose rows are the keys themselves, so that pooled sums are known.
void drive_exchange(const Kernels& kernels, int ranks, int holder) {
    std::mt19937_64 random(static_cast<std::uint64_t>(9 + ranks));
    std::vector<std::uint16_t> owners(1024);
    for (std::uint16_t& owner : owners) owner = static_cast<std::uint16_t>(random() % static_cast<std::uint64_t>(ranks));
    const std::vector<std::int32_t> block_of_feature{0, 1, 2, 1};
    const int dims[] = {12, 8, 1};
    for (int step = 0; step < 20; ++step) {
        const Batch batch(random, step % 2 == 1, 12 + 8 + 1 + 8);
        const LookupView lookup = batch.view();
        std::vector<ExchangeBlock> blocks{{1, dims[0], -1}, {2, dims[1], holder}, {3, dims[2], -1}};
        const KeyExchange exchange(*kernels.rows, blocks, lookup, block_of_feature.data(), batch.keys.data(), owners.data(),
                                   ranks, 2, kThreads);
        std::vector<float> message(exchange.num_floats()), out(kBags * exchange.width());
        std::size_t key = 0, at = 0;
        std::int64_t occurrences = 0;
        for (std::size_t r = 0; r < exchange.ranks(); ++r) {
            at += 2;
            for (std::size_t b = 0; b < blocks.size(); ++b)
                for (std::int64_t i = exchange.sizes()[r * blocks.size() + b]; i > 0; --i, ++key) {
                    occurrences += exchange.counts()[key];
                    for (int d = 0; d < dims[b]; ++d) message[at++] = static_cast<float>(exchange.keys()[key] % 64);
                }
        }
        need(at == message.size() && key == exchange.keys().size(), "a message is as long as it should be");
        need(occurrences == static_cast<std::int64_t>(batch.keys.size()), "every key is counted");
        for (const bool counted : {false, true}) {
            const std::vector<std::int32_t> words = key_message(exchange, counted);
            const std::int64_t* const sizes = exchange.sizes().data();
            const KeysByBlock received = keys_by_block(words.data(), sizes, exchange.ranks(), blocks.size(), counted);
            need(std::multiset<std::int64_t>(received.keys.begin(), received.keys.end()) ==
                     std::multiset<std::int64_t>(exchange.keys().begin(), exchange.keys().end()),
                 "the keys of a message");
            need(std::accumulate(received.counts.begin(), received.counts.end(), std::int64_t{0}) ==
                     (counted ? occurrences : 0),
                 "their counts");
        }
        exchange.pooled(message.data(), lookup, kThreads, out.data());
        const float weight = batch.weights.empty() ? 1.0f : 0.5f;
        std::size_t column = 0;
        for (std::size_t s = 0; s < kFeatures; column += static_cast<std::size_t>(dims[block_of_feature[s]]), ++s)
            for (std::size_t bag = 0; bag < kBags; ++bag) {
                float sum = 0.0f;
                for (std::int64_t i = batch.offsets[s * kBags + bag]; i < batch.offsets[s * kBags + bag + 1]; ++i)
                    sum += weight * static_cast<float>(batch.keys[i] % 64);
                need(out[bag * exchange.width() + column] == sum, "what is pooled is the sum of the rows");
            }
        std::vector<float> dots(batch.keys.size()), rows(exchange.size(0) * static_cast<std::size_t>(dims[0]));
        exchange.dots(message.data(), lookup, batch.gradient.data(), kThreads, dots.data());
        exchange.gather(message.data(), 0, kThreads, rows.data());
        for (std::int64_t i = 0; i < exchange.size(0); ++i)
            need(rows[i * dims[0]] == static_cast<float>(batch.keys[i] % 64), "what is gathered are the rows");
        exchange.sum_pooled(batch.gradient.data(), lookup, kThreads, message.data());
    }
}

}  // namespace

int main() {
    for (const Isa isa : available_isas()) {
        Kernels kernels{&scalar::row_kernels, scalar::find_rows, scalar::rank_rows};
        if (isa == Isa::avx2) kernels = {&avx2::row_kernels, avx2::find_rows, avx2::rank_rows};
        if (isa == Isa::avx512) kernels = {&avx512::row_kernels, avx512::find_rows, avx512::rank_rows};
        drive(kernels, 200);
        drive_fixed_part(kernels);
        drive_part(kernels, 100);
        for (const int ranks : {1, 2, 7}) drive_exchange(kernels, ranks, ranks == 2 ? 1 : -1);
        std::printf("%s: done\n", isa_name(isa));
    }
}
