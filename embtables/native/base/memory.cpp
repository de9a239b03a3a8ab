#include "base/memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace embtables {
namespace {

constexpr std::size_t kHuge = Region::kHugePage, kPage = 4096, kLine = 64;
// A collisionless table has some forty regions, and the system allows a process 65,530 mappings: small regions lie on
// the heap, so that thousands of tables fit.
constexpr std::size_t kOnHeap = std::size_t{64} << 10;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

void* zeroed_on_heap(std::size_t bytes) {
    void* base = std::aligned_alloc(kLine, bytes);
    if (base == nullptr) throw NoMemory(bytes);
    return std::memset(base, 0, bytes);
}

void release(void* base, std::size_t capacity) {
    if (capacity <= kOnHeap)
        std::free(base);
    else
        munmap(base, capacity);
}

// A mapping whose start is a multiple of `alignment`; the surplus at both ends goes back.
void* map_aligned(std::size_t bytes, std::size_t alignment) {
    void* whole = mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) throw NoMemory(bytes);
    const auto begin = reinterpret_cast<std::uintptr_t>(whole), start = round_up(begin, alignment);
    if (start > begin) munmap(whole, start - begin);
    munmap(reinterpret_cast<void*>(start + bytes), begin + alignment - start);
    return reinterpret_cast<void*>(start);
}

}  // namespace

Region::~Region() {
    if (base_ != nullptr) release(base_, capacity_);
}

Region::Region(Region&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)),
      sparse_(other.sparse_) {}

Region& Region::operator=(Region&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(capacity_, other.capacity_);
    std::swap(sparse_, other.sparse_);
    return *this;
}

void Region::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return;
    // Addresses are doubled, so that the pages move seldom; only touched pages take memory.
    const std::size_t wanted = bytes < 2 * capacity_ ? 2 * capacity_ : bytes;
    const std::size_t unit = wanted <= kOnHeap ? kLine : wanted >= kHuge ? kHuge : kPage;
    const std::size_t capacity = round_up(wanted, unit);
    void* const base = capacity <= kOnHeap ? zeroed_on_heap(capacity) : map_aligned(capacity, unit);
    const int advice = sparse_ ? MADV_NOHUGEPAGE : MADV_HUGEPAGE;
    if (capacity >= kHuge) madvise(base, capacity, advice);
    if (base_ != nullptr && capacity_ <= kOnHeap) {
        std::memcpy(base, base_, capacity_);
        std::free(base_);
    } else if (base_ != nullptr &&
               mremap(base_, capacity_, capacity_, MREMAP_MAYMOVE | MREMAP_FIXED, base) == MAP_FAILED) {
        munmap(base, capacity);
        throw NoMemory(capacity);
    }
    if (capacity >= kHuge) madvise(base, capacity, advice);  // the moved pages had their own advice
    base_ = base;
    capacity_ = capacity;
}

}  // namespace embtables
