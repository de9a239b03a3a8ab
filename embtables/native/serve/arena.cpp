#include "serve/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

#include "base/memory.h"

namespace embtables {
namespace {

constexpr std::size_t kHuge = Region::kHugePage, kPage = 4096;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

Arena::Arena(std::size_t most) : most_(most) {
    // Where addresses are limited (ulimit -v), as many as there are.
    for (;; most_ /= 2) {
        whole_bytes_ = round_up(most_, kHuge) + kHuge;
        whole_ = mmap(nullptr, whole_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (whole_ != MAP_FAILED) break;
        if (most_ <= kHuge) throw NoMemory(most);
    }
    base_ = reinterpret_cast<void*>(round_up(reinterpret_cast<std::uintptr_t>(whole_), kHuge));
}

Arena::~Arena() { munmap(whole_, whole_bytes_); }

void Arena::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return;
    if (bytes > most_) throw NoMemory(bytes);
    // By an eighth at least: the system is asked seldom, and what is not touched takes no memory.
    const std::size_t wanted = std::max(bytes, capacity_ + capacity_ / 8);
    const std::size_t capacity = round_up(wanted, wanted < kHuge ? kPage : kHuge);
    char* const from = static_cast<char*>(base_) + capacity_;
    if (mprotect(from, capacity - capacity_, PROT_READ | PROT_WRITE) != 0) throw NoMemory(capacity);
    if (capacity >= kHuge) madvise(base_, capacity, MADV_HUGEPAGE);
    capacity_ = capacity;
}

}  // namespace embtables
