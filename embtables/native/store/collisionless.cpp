#include "store/collisionless.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/parallel.h"
#include "rows/bucket_order.h"

namespace embtables {
namespace {

constexpr std::size_t kSweepBuckets = 8192;  // a step: half a megabyte of the map
constexpr std::size_t kAhead = 16;
constexpr std::size_t kAgeBins = 64 * 27;
constexpr std::uint64_t kMostRows = kOverflow - 2;  // besides the cold row

// Bins of ages: exact below 128, then 64 to each doubling; never falling with the age.
std::size_t age_bin(std::uint32_t age) {
    const int bits = std::bit_width(age);
    return bits <= 7 ? age : static_cast<std::size_t>(bits - 6) * 64 + (age >> (bits - 7)) - 64;
}

}  // namespace

Collisionless::Collisionless(const Policy& policy, TableRows& rows) : policy_(policy), rows_{&rows}, map_(policy.seed) {
    if (policy.max_rows > kMostRows / 2 + 1) throw std::length_error("max_rows may be at most 2^29");
    if (policy.sketch)
        sketch_ = std::make_unique<CountSketch>(policy.max_waiting, policy.min_count, policy.ttl_seconds);
    make_room();  // for the cold row: zeros until it learns
}

void Collisionless::share_with(TableRows& rows) {
    rows_.push_back(&rows);
    make_room();
}

void Collisionless::make_room() {
    for (TableRows* const rows : rows_) rows->reserve(next_row_);
}

FindWork Collisionless::find_work(const std::int64_t* keys, std::size_t n, bool train, std::uint32_t* rows) const {
    return {map_.view(), keys, n, now_, policy_.ttl_seconds, train ? kMissed : 0, train, rows};
}

// In the order of the batch. Every occurrence is counted before any is looked up.
void Collisionless::admit(const std::int64_t* keys, const std::int32_t* counts, std::size_t n, std::uint32_t* rows,
                          std::vector<FreshRow>& fresh) {
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) map_.prefetch(map_.mixed(keys[i + kAhead]));
        rows[i] = admit_one(keys[i], map_.mixed(keys[i]), fresh);
        for (std::int32_t more = counts == nullptr ? 0 : counts[i] - 1; more > 0 && rows[i] == 0; --more)
            rows[i] = admit_one(keys[i], map_.mixed(keys[i]), fresh);
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (rows[i] != 0) continue;
        const KeyMap::Place place = map_.find(map_.mixed(keys[i]));
        if (place.found && place.value() < kWaiting)
            rows[i] = place.value();
        else
            counts_.cold_reads += counts == nullptr ? 1 : static_cast<std::uint64_t>(counts[i]);
    }
    make_room();
}

// Counts one occurrence of a key that the first search missed; its row, or 0.
std::uint32_t Collisionless::admit_one(std::int64_t key, std::uint64_t h, std::vector<FreshRow>& fresh) {
    const KeyMap::Place place = map_.find(h);
    std::uint32_t count = 1, row = 0;
    bool was_waiting = false;
    if (place.found) {
        const bool has_row = place.value() < kWaiting;
        if (dead(place.seen())) {
            ++(has_row ? counts_.expired : counts_.waiting_expired);
            if (has_row) row = place.value();  // unseen for the whole ttl, so no gradient can be on its way to it
        } else if (has_row) {
            return place.value();  // admitted by an earlier occurrence in this lookup
        } else {
            count = std::min<std::uint32_t>((place.value() & ~kWaiting) + 1, 0xFFFF);
        }
        was_waiting = !has_row;
    }
    if (sketch_) count = sketch_->add(h, now_);
    const bool wanted = wants_row(h, count), fits = !wanted || row_fits();
    if (wanted && !fits) ++counts_.surplus;
    if (wanted && fits) {
        num_waiting_ -= was_waiting;
        num_rows_ += row == 0;
        ++counts_.admitted;
        if (row == 0) row = take_row();
        if (is_bounded()) note(&row, 1);
        fresh.push_back({row, key});
        set(place, h, row);
        return row;
    }
    if (row != 0) free_row(h, row);
    if (policy_.min_count > 1 && !sketch_) {
        num_waiting_ += !was_waiting;
        set(place, h, kWaiting | count);
    } else if (place.found) {
        num_waiting_ -= was_waiting;
        map_.remove(h);
    }
    return 0;
}

// Whether one more key may have a row in this step.
bool Collisionless::row_fits() {
    if (step_rows_.size() < policy_.max_rows || !is_bounded()) return true;
    if (in_step_.empty()) {
        const std::vector<std::uint32_t> so_far = std::move(step_rows_);
        in_step_.resize(1);
        step_rows_.clear();
        note(so_far.data(), so_far.size());
    }
    return num_in_step_ < policy_.max_rows;
}

void Collisionless::note(const std::uint32_t* rows, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        if (rows[i] == kMissed) continue;
        step_rows_.push_back(rows[i]);
        if (in_step_.empty()) continue;
        if (rows[i] >= in_step_.size()) in_step_.resize(std::max<std::size_t>(2 * in_step_.size(), rows[i] + 1));
        num_in_step_ += !in_step_[rows[i]];
        in_step_[rows[i]] = true;
    }
}

// Sets a key's value, seen now.
void Collisionless::set(const KeyMap::Place& place, std::uint64_t h, std::uint32_t value) {
    if (!place.found) return map_.insert(place, h, value, now_);
    place.set_value(value);
    place.seen() = now_;
}

bool Collisionless::wants_row(std::uint64_t h, std::uint32_t count) const {
    if (count < policy_.min_count) return false;
    if (policy_.probability >= 1.0) return true;
    // The top 53 bits as a fraction: one draw for each (seed, key, step).
    const std::uint64_t drawn = mix(h ^ mix(policy_.seed + steps_ * kGoldenGamma));
    return static_cast<double>(drawn >> 11) * 0x1p-53 < policy_.probability;
}

std::uint32_t Collisionless::take_row() {
    if (!free_rows_.empty()) {
        const std::uint32_t row = free_rows_.back();
        free_rows_.pop_back();
        return row;
    }
    if (next_row_ > kMostRows) throw std::length_error("a table holds at most 2^30 - 2 rows");
    return next_row_++;
}

void Collisionless::free_row(std::uint64_t h, std::uint32_t row) {
    --num_rows_;
    free_rows_.push_back(row);
    for (TableRows* const rows : rows_) rows->release(row);
    const std::int64_t key = map_.key_of(h);
    lost_.add(&key, 1);
}

// Takes an entry out of the map; a row becomes free.
void Collisionless::drop(std::uint64_t h, std::uint32_t value) {
    map_.remove(h);
    if (value < kWaiting)
        free_row(h, value);
    else
        --num_waiting_;
}

void Collisionless::end_step(int threads) {
    ++steps_;
    step_rows_.clear();
    in_step_.clear();
    num_in_step_ = 0;
    if (policy_.ttl_seconds != kForever) sweep();
    if (policy_.is_part) return;
    if (policy_.max_rows != 0 && num_rows_ > policy_.max_rows) limit(false, policy_.max_rows, threads);
    if (num_waiting_ > policy_.max_waiting) limit(true, policy_.max_waiting, threads);
}

void Collisionless::sweep() {
    std::vector<Candidate> rows, waiting;
    map_.each(sweep_shard_, sweep_bucket_, sweep_bucket_ + kSweepBuckets,
              [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
                  if (dead(seen)) (value < kWaiting ? rows : waiting).push_back({seen, h, value});
              });
    drop_all(rows, counts_.expired);
    drop_all(waiting, counts_.waiting_expired);
    sweep_bucket_ += kSweepBuckets;
    if (sweep_bucket_ >= map_.num_buckets(sweep_shard_)) {
        sweep_bucket_ = 0;
        sweep_shard_ = (sweep_shard_ + 1) % KeyMap::kShards;
    }
}

// If more than `most` are left without what is past its ttl, drops the least recently seen (ties: smaller mix first),
// down to a thirty-second below, so that the next steps need not. Ages are counted in bins first, so that only the
// entries that go, and those of one bin, are looked at one by one.
void Collisionless::limit(bool waiting, std::uint64_t most, int threads) {
    const std::vector<std::uint64_t> bins = age_bins(waiting, threads);
    const std::uint64_t alive = std::accumulate(bins.begin(), bins.end(), std::uint64_t{0});
    if (alive <= most) return;
    const std::uint64_t surplus = alive - (most - most / 32);
    std::size_t bin = kAgeBins;
    std::uint64_t older = 0;
    for (std::uint64_t next = 0; older + next < surplus;) {
        older += next;
        next = bins[--bin];
    }
    Oldest found = oldest(waiting, bin, threads);
    std::vector<Candidate> tied;
    for (const auto& shard : found.of_bin) tied.insert(tied.end(), shard.begin(), shard.end());
    const auto last = tied.begin() + static_cast<std::ptrdiff_t>(surplus - older - 1);
    std::nth_element(tied.begin(), last, tied.end());
    drop_oldest(waiting, std::move(found), *last);
}

std::vector<std::uint64_t> Collisionless::age_bins(bool waiting, int threads) {
    std::vector<std::vector<std::uint64_t>> bins(KeyMap::kShards, std::vector<std::uint64_t>(kAgeBins, 0));
    std::vector<std::vector<Candidate>> expired(KeyMap::kShards);
    parallel_for(KeyMap::kShards, threads, [&](std::size_t s) {
        map_.each(s, [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
            if ((value >= kWaiting) != waiting) return;
            if (dead(seen))
                expired[s].push_back({seen, h, value});
            else
                ++bins[s][age_bin(now_ - seen)];
        });
    });
    for (const auto& shard : expired) drop_all(shard, waiting ? counts_.waiting_expired : counts_.expired);
    for (std::size_t s = 1; s < bins.size(); ++s)
        std::transform(bins[0].begin(), bins[0].end(), bins[s].begin(), bins[0].begin(), std::plus<>());
    return std::move(bins[0]);
}

// Those alive that were seen in a bin, and those seen before.
Collisionless::Oldest Collisionless::oldest(bool waiting, std::size_t bin, int threads) const {
    Oldest found{std::vector<std::vector<Candidate>>(KeyMap::kShards),
                 std::vector<std::vector<Candidate>>(KeyMap::kShards)};
    parallel_for(KeyMap::kShards, threads, [&](std::size_t s) {
        map_.each(s, [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
            if ((value >= kWaiting) != waiting || dead(seen)) return;
            const std::size_t own = age_bin(now_ - seen);
            if (own >= bin) (own > bin ? found.older : found.of_bin)[s].push_back({seen, h, value});
        });
    });
    return found;
}

std::vector<Candidate> Collisionless::of_age(bool waiting, std::size_t bin, int threads) const {
    std::vector<Candidate> found;
    for (const auto& shard : oldest(waiting, bin, threads).of_bin) found.insert(found.end(), shard.begin(), shard.end());
    return found;
}

void Collisionless::evict(bool waiting, std::size_t bin, const Candidate& last, int threads) {
    drop_oldest(waiting, oldest(waiting, bin, threads), last);
}

void Collisionless::drop_oldest(bool waiting, Oldest oldest, const Candidate& last) {
    std::uint64_t& counter = waiting ? counts_.waiting_evicted : counts_.evicted;
    for (const auto& shard : oldest.older) drop_all(shard, counter);
    for (auto& shard : oldest.of_bin) {
        std::erase_if(shard, [&](const Candidate& c) { return last < c; });
        drop_all(shard, counter);
    }
}

void Collisionless::drop_all(const std::vector<Candidate>& gone, std::uint64_t& counter) {
    counter += gone.size();
    for (std::size_t i = 0; i < gone.size(); ++i) {
        if (i + kAhead < gone.size()) map_.prefetch(gone[i + kAhead].h);
        drop(gone[i].h, gone[i].value);
    }
}

bool Collisionless::remove(std::int64_t key) {
    const std::uint64_t h = map_.mixed(key);
    const KeyMap::Place place = map_.find(h);
    if (!place.found) return false;
    counts_.deleted += place.value() < kWaiting;
    drop(h, place.value());
    return true;
}

KeyList Collisionless::list_waiting(int threads) const {
    std::vector<std::vector<Listed>> shards(num_waiting_ == 0 ? 0 : KeyMap::kShards);
    parallel_for(shards.size(), threads, [&](std::size_t s) {
        map_.each(s, [&](std::uint64_t h, std::uint32_t value, std::uint32_t seen) {
            if (value >= kWaiting && !dead(seen)) shards[s].push_back({map_.key_of(h), value & ~kWaiting, seen});
        });
    });
    return in_bucket_order(shards, policy_.seed, threads);
}

void Collisionless::ages_and_counts(const TableRows& of, std::vector<std::uint32_t>& ages,
                                    std::vector<std::uint32_t>& counts) const {
    const RowMeta* const meta = of.meta();
    ages.reserve(next_row_);
    counts.reserve(next_row_);
    for (std::uint32_t row = 1; row < next_row_; ++row) {
        if (meta[row].cut == 0 || dead(meta[row].seen)) continue;
        ages.push_back(now_ - meta[row].seen);
        counts.push_back(meta[row].count);
    }
}

// Rows that a table has got new, in the others with its keys: fresh, and theirs from now on.
void Collisionless::place_in_others(const TableRows& of, const std::uint32_t* rows, const std::int64_t* keys,
                                    const std::uint32_t* seen, std::size_t n, int threads) {
    constexpr std::size_t kChunk = 512;
    for (TableRows* const other : rows_) {
        if (other == &of) continue;
        parallel_for((n + kChunk - 1) / kChunk, threads, [&](std::size_t c) {
            for (std::size_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) other->reset(rows[i], keys[i]);
        });
        other->place(rows, keys, seen, n, threads);
    }
}

void Collisionless::place(TableRows& of, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n,
                          int threads, std::uint32_t* rows) {
    if (map_.size() == 0 && next_row_ == 1 && n <= kMostRows) {
        map_.fill(keys, seen, n, next_row_, threads);
        std::iota(rows, rows + n, next_row_);
        num_rows_ = n;
        next_row_ += static_cast<std::uint32_t>(n);
        make_room();
        place_in_others(of, rows, keys, seen, n, threads);
        return of.place(rows, keys, seen, n, threads);
    }
    std::vector<std::uint32_t> new_rows, new_seen;
    std::vector<std::int64_t> new_keys;
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) map_.prefetch(map_.mixed(keys[i + kAhead]));
        const std::uint64_t h = map_.mixed(keys[i]);
        const KeyMap::Place place = map_.find(h);
        if (place.found && place.value() < kWaiting) {
            place.seen() = seen[i];
            rows[i] = place.value();
            continue;
        }
        num_waiting_ -= place.found;
        ++num_rows_;
        rows[i] = take_row();
        if (rows_.size() > 1) {
            new_rows.push_back(rows[i]);
            new_keys.push_back(keys[i]);
            new_seen.push_back(seen[i]);
        }
        if (place.found) {
            place.set_value(rows[i]);
            place.seen() = seen[i];
        } else {
            map_.insert(place, h, rows[i], seen[i]);
        }
    }
    make_room();
    place_in_others(of, new_rows.data(), new_keys.data(), new_seen.data(), new_rows.size(), threads);
    of.place(rows, keys, seen, n, threads);
}

bool Collisionless::make_row(std::int64_t key, std::uint32_t& row) {
    const std::uint64_t h = map_.mixed(key);
    const KeyMap::Place place = map_.find(h);
    const bool has_row = place.found && place.value() < kWaiting;
    if (has_row && !dead(place.seen())) {
        row = place.value();
        place.seen() = now_;
        return false;
    }
    num_waiting_ -= place.found && !has_row;
    num_rows_ += !has_row;
    counts_.expired += has_row;
    row = has_row ? place.value() : take_row();
    set(place, h, row);
    make_room();
    return true;
}

void Collisionless::set_waiting(const std::int64_t* keys, const std::uint32_t* counts, const std::uint32_t* seen,
                                std::size_t n) {
    std::vector<std::uint64_t> before;
    for (std::size_t s = 0; s < KeyMap::kShards && num_waiting_ != 0; ++s)
        map_.each(s, [&](std::uint64_t h, std::uint32_t value, std::uint32_t) {
            if (value >= kWaiting) before.push_back(h);
        });
    for (const std::uint64_t h : before) drop(h, kWaiting);
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t h = map_.mixed(keys[i]);
        const KeyMap::Place place = map_.find(h);
        if (place.found) throw std::invalid_argument("key " + std::to_string(keys[i]) + " waits and has a row");
        map_.insert(place, h, kWaiting | std::min<std::uint32_t>(counts[i], 0xFFFF), seen[i]);
        ++num_waiting_;
    }
}

}  // namespace embtables
