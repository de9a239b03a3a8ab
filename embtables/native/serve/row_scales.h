// The scale of a table's weights, which a version may change for all rows, for readers beside one writer.
//
//     a weight = scale x what is stored (rows/host/decay.py)
//
// A version gives some rows anew, stored for its own scale; all other rows stay as they are and are read at that scale
// too. So no row may be read at the scale of a version while its key has another row in that version. Each version that
// changes the scale is a generation, and each row has the generation that it was written in:
//
//     the writer begins a generation, then writes its rows, then ends it
//     a reader takes the scale of the last generation that had ended, then finds row numbers: a row of a later generation
//     is read at the scale of that one, all others at the scale taken, at which they are what their keys had
//
// A table whose scale has never changed keeps no generations of rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>

#include "serve/arena.h"
#include "serve/readers.h"

namespace embtables {

class RowScales {
public:
    struct Generation {
        std::uint32_t number;
        float scale;
        std::atomic<Generation*> next{nullptr};
    };

    RowScales(std::size_t most_rows, Readers& readers) : readers_(readers), of_rows_(most_rows * sizeof(std::uint32_t)) {}
    ~RowScales() {
        delete ended_.load()->next.load();
        delete ended_.load();
    }
    RowScales(const RowScales&) = delete;
    RowScales& operator=(const RowScales&) = delete;

    // The reader's, within a Reading: taken before row numbers are found.
    const Generation& ended() const { return *ended_.load(std::memory_order_acquire); }
    // Whether all rows found since are of that generation or one before.
    static bool is_last(const Generation& ended) { return ended.next.load(std::memory_order_acquire) == nullptr; }
    // What the row is to be multiplied by, where not.
    float of_row(const Generation& ended, std::uint32_t row) const {
        const Generation* of = &ended;
        while (of->number < of_rows_.as<std::uint32_t>()[row]) of = of->next.load(std::memory_order_acquire);
        return of->scale;
    }

    // The writer's, from here on.
    // Rows written from now on are at this scale; `rows`: how many there are room for.
    void begin(float scale, std::size_t rows) {
        Generation* const last = ended_.load(std::memory_order_relaxed);
        of_rows_.reserve(rows * sizeof(std::uint32_t));
        last->next.store(new Generation{last->number + 1, scale}, std::memory_order_release);
    }
    // The generation that was begun and has not ended; null: none.
    const Generation* begun() const { return ended_.load(std::memory_order_relaxed)->next.load(std::memory_order_relaxed); }
    void end() {
        Generation* const former = ended_.load(std::memory_order_relaxed);
        ended_.store(former->next.load(std::memory_order_relaxed), std::memory_order_release);
        retired_.push_back({readers_.retire(), std::unique_ptr<Generation>(former)});
        for (const std::uint64_t oldest = readers_.oldest(); !retired_.empty() && retired_.front().epoch < oldest;)
            retired_.pop_front();
    }
    // Notes the generation of a row, which nobody can see yet.
    void write(std::uint32_t row) {
        const Generation* const of = begun() != nullptr ? begun() : ended_.load(std::memory_order_relaxed);
        if (of->number == 0) return;
        of_rows_.reserve((std::size_t{row} + 1) * sizeof(std::uint32_t));
        of_rows_.as<std::uint32_t>()[row] = of->number;
    }
    bool is_of(const Generation& generation, std::uint32_t row) const {
        return of_rows_.as<std::uint32_t>()[row] == generation.number;
    }
    std::size_t bytes(std::size_t rows) const { return of_rows_.capacity() == 0 ? 0 : rows * sizeof(std::uint32_t); }

private:
    struct Retired {
        std::uint64_t epoch;
        std::unique_ptr<Generation> generation;
    };

    Readers& readers_;
    Arena of_rows_;
    std::atomic<Generation*> ended_{new Generation{0, 1.0f}};
    std::deque<Retired> retired_;
};

}  // namespace embtables
