#include "serve/served_table.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "rows/table_rows.h"

namespace embtables {
namespace {

constexpr std::uint64_t kMostRows = std::uint64_t{1} << 32;
constexpr std::size_t kEpochRows = 1024;  // rows that leave in one epoch
constexpr std::size_t kAhead = 16;    // keys of a change whose buckets are asked for before they are set

constexpr std::size_t kSpareRows = 16 * kEpochRows;  // that have left and are not free yet

// Rows that fit into the machine's memory: addresses are kept free for them, and a process has no more than 2^47.
std::size_t most_rows(const ServedConfig& config) {
    const std::size_t memory = 2 * static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return std::min(kMostRows, memory / (static_cast<std::size_t>(stride_of(config.dim)) * sizeof(float)) + kSpareRows);
}

std::size_t most_bytes(const ServedConfig& config) {
    return most_rows(config) * static_cast<std::size_t>(stride_of(config.dim)) * sizeof(float);
}

}  // namespace

ServedTable::ServedTable(const ServedConfig& config, Readers& readers)
    : config_(config),
      stride_(stride_of(config.dim)),
      readers_(readers),
      arena_(most_bytes(config)),
      places_(config.num_rows * sizeof(std::uint32_t) + 1),
      map_(config.seed, readers),
      scales_(most_rows(config), readers) {
    places_.reserve(config.num_rows * sizeof(std::uint32_t));
    arena_.reserve(static_cast<std::size_t>(stride_) * sizeof(float));
}

std::atomic<std::uint32_t>& ServedTable::place_of(std::int64_t key) const {
    if (key < 0 || static_cast<std::uint64_t>(key) >= config_.num_rows)
        throw std::out_of_range("key " + std::to_string(key) + " is outside a table of " +
                                std::to_string(config_.num_rows) + " rows");
    return places_.as<std::atomic<std::uint32_t>>()[key];
}

ServedTable::Found ServedTable::find(const std::int64_t* keys, std::size_t n, std::uint32_t* rows, bool* is_cold) const {
    const RowScales::Generation& ended = scales_.ended();
    std::size_t cold = 0;
    if (config_.num_rows != 0) {
        for (std::size_t i = 0; i < n; ++i) {
            rows[i] = place_of(keys[i]).load(std::memory_order_acquire);
            prefetch(rows[i]);
        }
        if (is_cold != nullptr) std::fill(is_cold, is_cold + n, false);
        return {0, &ended, RowScales::is_last(ended)};
    }
    const std::uint32_t nobody = cold_.load(std::memory_order_acquire), now = now_.load(std::memory_order_acquire);
    map_.find(keys, n, [&](std::size_t i, ServedMap::Entry found) {
        const bool missed = found.row == 0 || (found.seen < now && now - found.seen > config_.ttl_seconds);
        rows[i] = missed ? nobody : found.row;
        prefetch(rows[i]);
        if (is_cold != nullptr) is_cold[i] = missed;
        cold += missed;
    });
    return {cold, &ended, RowScales::is_last(ended)};
}

void ServedTable::seen(const std::int64_t* keys, std::size_t n, std::uint32_t* clocks) const {
    std::fill(clocks, clocks + n, 0u);
    if (config_.num_rows != 0) return;
    map_.find(keys, n, [&](std::size_t i, ServedMap::Entry found) { clocks[i] = found.row == 0 ? 0 : found.seen; });
}

void ServedTable::apply(const ServedChange& change) {
    const std::lock_guard<std::mutex> held(writer_);
    const RowScales::Generation* const begun = scales_.begun();
    if (begun != nullptr && begun->scale != change.scale)
        throw std::invalid_argument("pieces of one version must have one scale");
    if (begun == nullptr && scales_.ended().scale != change.scale) scales_.begin(change.scale, next_);
    set_rows(change);
    if (change.more) return end_epoch();
    if (scales_.begun() != nullptr) end_scale();
    now_.store(std::max(now_.load(std::memory_order_relaxed), change.now), std::memory_order_release);
    end_epoch();
}

void ServedTable::set_rows(const ServedChange& change) {
    const auto dim = static_cast<std::size_t>(config_.dim);
    for (std::size_t i = 0; i < change.num_tombstones; ++i) {
        const std::uint32_t former = map_.remove(change.tombstones[i]);
        if (former != 0) held_.fetch_sub(1, std::memory_order_relaxed);
        retire(former);
    }
    for (std::size_t i = 0; i < change.n; ++i) {
        if (config_.num_rows == 0 && i + kAhead < change.n) map_.prefetch(change.keys[i + kAhead]);
        std::atomic<std::uint32_t>* const place = config_.num_rows != 0 ? &place_of(change.keys[i]) : nullptr;
        const std::uint32_t row = write(change.weights + i * dim);
        const std::uint32_t former = place != nullptr ? place->exchange(row, std::memory_order_acq_rel)
                                                      : map_.set(change.keys[i], {row, change.seen[i]});
        if (former == 0) held_.fetch_add(1, std::memory_order_relaxed);
        retire(former);
    }
    if (change.cold != nullptr) retire(cold_.exchange(write(change.cold), std::memory_order_acq_rel));
}

// From now on rows that were not given anew are at the scale that was begun. Where it is greater, those that are not in the
// version were gone when it was written, past their ttl: what is stored of them says nothing at that scale.
void ServedTable::end_scale() {
    const RowScales::Generation& begun = *scales_.begun();
    if (begun.scale > scales_.ended().scale) {
        for (std::uint64_t key = 0; key < config_.num_rows; ++key)
            if (const std::uint32_t row = place_of(static_cast<std::int64_t>(key)); row != 0 && !scales_.is_of(begun, row))
                throw std::invalid_argument("its scale rises, and it has no row of key " + std::to_string(key));
        std::vector<std::int64_t> gone;
        map_.each([&](std::int64_t key, ServedMap::Entry entry) {
            if (!scales_.is_of(begun, entry.row)) gone.push_back(key);
        });
        held_.fetch_sub(gone.size(), std::memory_order_relaxed);
        for (const std::int64_t key : gone) retire(map_.remove(key));
    }
    scales_.end();
}

void ServedTable::reserve(std::uint64_t rows) {
    const std::lock_guard<std::mutex> held(writer_);
    if (config_.num_rows == 0) map_.reserve(rows);
    arena_.reserve((rows + kSpareRows) * static_cast<std::size_t>(stride_) * sizeof(float));
}

// A row with these values, which nobody can see yet.
std::uint32_t ServedTable::write(const float* values) {
    const std::uint32_t row = free_row();
    std::memcpy(arena_.as<float>() + std::size_t{row} * static_cast<std::size_t>(stride_), values,
                sizeof(float) * static_cast<std::size_t>(config_.dim));
    scales_.write(row);
    return row;
}

std::uint32_t ServedTable::free_row() {
    if (!free_.empty()) {
        const std::uint32_t row = free_.back();
        free_.pop_back();
        return row;
    }
    if (next_ == kMostRows - 1) throw std::length_error("a served table holds at most 2^32 - 2 rows");
    arena_.reserve((std::size_t{next_} + 1) * static_cast<std::size_t>(stride_) * sizeof(float));
    return next_++;
}

// Readers to come cannot see the row; 0 is none.
void ServedTable::retire(std::uint32_t row) {
    if (row == 0) return;
    leaving_.push_back(row);
    if (leaving_.size() >= kEpochRows) end_epoch();
}

void ServedTable::end_epoch() {
    if (!leaving_.empty()) {
        const std::uint64_t epoch = readers_.retire();
        for (const std::uint32_t row : leaving_) retired_.push_back({epoch, row});
        leaving_.clear();
    }
    const std::uint64_t oldest = readers_.oldest();
    for (; !retired_.empty() && retired_.front().epoch < oldest; retired_.pop_front())
        free_.push_back(retired_.front().row);
}

std::size_t ServedTable::bytes() const {
    const std::lock_guard<std::mutex> held(writer_);
    return std::size_t{next_} * static_cast<std::size_t>(stride_) * sizeof(float) + map_.bytes() + places_.capacity() +
           scales_.bytes(next_);
}

}  // namespace embtables
