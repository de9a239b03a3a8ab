// Zeroed memory that grows without copying: anonymous mappings, moved by remapping their pages. Small ones lie on the
// heap, at a cache line, and are copied.
#pragma once

#include <cstddef>

namespace embtables {

// Starts at a 2 MB boundary and asks for huge pages once it is that large: random reads of 64-byte rows are two to four
// times faster on them. What was never touched takes no memory.
class Region {
public:
    static constexpr std::size_t kHugePage = std::size_t{2} << 20;

    Region() = default;
    // `sparse`: on small pages, for memory that is touched here and there.
    explicit Region(bool sparse) : sparse_(sparse) {}
    ~Region();
    Region(Region&& other) noexcept;
    Region& operator=(Region&& other) noexcept;
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;

    // Room for at least `bytes`; what is new reads as zero. Pointers into the region are void afterwards.
    // Throws std::bad_alloc, which says what was refused, and changes nothing where the system gives no memory.
    void reserve(std::size_t bytes);

    template <typename T>
    T* as() const {
        return static_cast<T*>(base_);
    }

    std::size_t capacity() const { return capacity_; }

private:
    void* base_ = nullptr;
    std::size_t capacity_ = 0;
    bool sparse_ = false;
};

}  // namespace embtables
