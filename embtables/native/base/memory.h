// Zeroed memory that grows without copying: anonymous mappings, moved by remapping their pages. Small ones lie on the
// heap, at a cache line, and are copied.
#pragma once

#include <cstddef>
#include <new>
#include <string>

namespace embtables {

// The system gives no memory; says how many bytes were asked for, and what may be used up.
class NoMemory : public std::bad_alloc {
public:
    explicit NoMemory(std::size_t bytes)
        : what_("the system refused " + std::to_string(bytes) +
                " bytes: its memory, its limit on address space (ulimit -v) or its limit on a process's mappings "
                "(sysctl vm.max_map_count) is used up") {}
    const char* what() const noexcept override { return what_.c_str(); }

private:
    std::string what_;
};

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
    // Throws NoMemory, and changes nothing where the system gives no memory.
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
