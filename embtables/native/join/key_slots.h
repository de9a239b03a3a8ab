// Which record a key has: open addressing over record numbers, 4 bytes a place, the keys being in the records.
//
// It grows into a second array of twice the size, some places with each insertion, so that no insertion takes long.
#pragma once

#include <cstddef>
#include <cstdint>

#include "join/records.h"

namespace embtables {

class KeySlots {
public:
    static constexpr std::uint32_t kNone = JoinRecords::kNone;

    explicit KeySlots(const JoinRecords& records);

    // The record of a key; kNone if it has none.
    std::uint32_t find(std::uint64_t key) const;

    // The record holds the key, which has no record yet.
    void insert(std::uint64_t key, std::uint32_t record);

    // The key's record is another one.
    void replace(std::uint64_t key, std::uint32_t record, std::uint32_t by);

    void erase(std::uint64_t key, std::uint32_t record);

    void prefetch(std::uint64_t key) const {
        __builtin_prefetch(now_.place_of(key));
        if (before_.capacity != 0) __builtin_prefetch(before_.place_of(key));
    }

    std::size_t size() const { return size_; }
    std::size_t bytes() const { return (now_.capacity + before_.capacity) * sizeof(std::uint32_t); }

private:
    // 0: empty, kMoved: was moved or erased while another array grew, else a record's number and one.
    struct Places {
        Region region;
        std::size_t capacity = 0;  // a power of two, or 0
        int shift = 0;

        std::size_t home(std::uint64_t key) const;
        std::uint32_t* place_of(std::uint64_t key) const { return region.as<std::uint32_t>() + home(key); }
    };

    static Places places(int bits);
    std::uint32_t* find_in(const Places& places, std::uint64_t key, std::uint32_t record) const;
    void put(std::uint64_t key, std::uint32_t record);
    void move_some();
    void close_gap(std::size_t gap);

    const JoinRecords& records_;
    Places now_, before_;
    std::size_t moved_ = 0;  // places of `before_` that are done
    std::size_t size_ = 0;
};

}  // namespace embtables
