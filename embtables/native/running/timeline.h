// Items in order of their times, of which the oldest leave; of equal times, in the order in which they came.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace embtables {

// A value at a time.
struct Remembered {
    std::int64_t time, value;
};

inline std::int64_t time_of(std::int64_t time) { return time; }
inline std::int64_t time_of(const Remembered& item) { return item.time; }

// One buffer with room at its end: most items come in order of time, and are appended.
template <typename Item>
class Timeline {
    static_assert(std::is_trivially_copyable_v<Item>);

public:
    static constexpr std::uint32_t kMost = 1u << 30;

    Timeline() = default;
    Timeline(Timeline&& other) noexcept { swap(other); }
    Timeline& operator=(Timeline&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Timeline() { std::free(buffer_); }

    std::uint32_t size() const { return size_; }
    const Item* begin() const { return buffer_ + first_; }
    const Item* end() const { return begin() + size_; }
    const Item& operator[](std::uint32_t i) const { return begin()[i]; }
    std::size_t bytes() const { return std::size_t{capacity_} * sizeof(Item); }

    // How many items are before a time: the place of the first that is not.
    std::uint32_t before(std::int64_t time) const { return before(time, size_); }

    // The same among the first `left`.
    std::uint32_t before(std::int64_t time, std::uint32_t left) const {
        const Item* from = begin();
        while (left > 0) {
            const std::uint32_t half = left / 2;
            const bool is_before = time_of(from[half]) < time;
            from += is_before ? half + 1 : 0;
            left = is_before ? left - half - 1 : half;
        }
        return static_cast<std::uint32_t>(from - begin());
    }

    // Throws std::bad_alloc or std::length_error, and is as it was.
    void insert(Item item) {
        if (first_ + size_ == capacity_) make_room();
        const std::uint32_t near = size_ > kNear ? size_ - kNear : 0;
        std::uint32_t place = size_;
        while (place > near && time_of(begin()[place - 1]) > time_of(item)) --place;
        if (place > 0 && time_of(begin()[place - 1]) > time_of(item)) place = after(time_of(item));
        Item* const at = buffer_ + first_ + place;
        std::memmove(at + 1, at, (size_ - place) * sizeof(Item));
        *at = item;
        ++size_;
    }

    // Memory is given back where nothing is left.
    void drop_first(std::uint32_t count) {
        first_ += count;
        size_ -= count;
        if (size_ == 0) Timeline().swap(*this);
    }

    // Makes an empty one hold these items, which are in order.
    void fill(const Item* items, std::uint32_t count) {
        reserve(count);
        if (count > 0) std::memcpy(buffer_, items, count * sizeof(Item));
        size_ = count;
    }

    // Makes an empty one able to hold so many.
    void reserve(std::uint32_t count) {
        if (count > capacity_) grow(count);
    }

    void swap(Timeline& other) noexcept {
        std::swap(buffer_, other.buffer_);
        std::swap(first_, other.first_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }

private:
    static constexpr std::uint32_t kNear = 8;                     // places that are looked at one by one
    static constexpr std::uint32_t kFewest = 24 / sizeof(Item);   // the smallest piece that an allocator has

    // How many items are at a time or before it.
    std::uint32_t after(std::int64_t time) const { return time == INT64_MAX ? size_ : before(time + 1); }

    void make_room() {
        if (first_ > capacity_ / 2) {
            std::memmove(buffer_, begin(), size_ * sizeof(Item));
            first_ = 0;
            return;
        }
        if (capacity_ >= kMost) throw std::length_error("a key has more events in its window than are held");
        grow(capacity_ == 0 ? kFewest : capacity_ + capacity_ / 2 + 1);
    }

    void grow(std::uint32_t capacity) {
        void* const bigger = std::realloc(buffer_, capacity * sizeof(Item));
        if (bigger == nullptr) throw std::bad_alloc();
        buffer_ = static_cast<Item*>(bigger);
        capacity_ = capacity;
    }

    Item* buffer_ = nullptr;
    std::uint32_t first_ = 0, size_ = 0, capacity_ = 0;
};

}  // namespace embtables
