// Memory that grows and never moves: a range of addresses is kept free, and its beginning is filled as it is asked for.
#pragma once

#include <cstddef>

namespace embtables {

class Arena {
public:
    // At most `most` bytes will be asked for, fewer where the system limits addresses, which take no memory.
    // Throws NoMemory where it gives none.
    explicit Arena(std::size_t most);
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // The first `bytes` can be used; what is new reads as zero. Throws NoMemory, and then nothing has changed.
    void reserve(std::size_t bytes);

    template <typename T>
    T* as() const {
        return static_cast<T*>(base_);
    }

    std::size_t capacity() const { return capacity_; }

private:
    void* whole_;
    std::size_t whole_bytes_;
    void* base_;
    std::size_t most_, capacity_ = 0;
};

}  // namespace embtables
