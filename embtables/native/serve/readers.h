// Readers beside one writer, without locks: what the writer has taken out of reach is used again only when nobody who
// may have seen it is left (epoch-based reclamation; Fraser 2004, section 5.2.3).
//
// A reader holds a `Reading` while it follows pointers or row numbers. The writer puts something new in place, asks for
// the epoch that what was there before retires in, and keeps it until `oldest` is above that.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>

namespace embtables {

class Readers {
public:
    // Held by a reader, no longer than a lookup takes. Waits only where kPlaces others hold one.
    class Reading {
    public:
        explicit Reading(Readers& readers) : place_(readers.enter()) {}
        ~Reading() { place_->store(kFree, std::memory_order_release); }
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;

    private:
        std::atomic<std::uint64_t>* place_;
    };

    // The epoch that ends now: readers who come later cannot see what was taken out of reach before. The writer's.
    std::uint64_t retire() { return epoch_.fetch_add(1); }

    // What retired in an epoch below this one is nobody's. The writer's.
    std::uint64_t oldest() const {
        std::uint64_t found = epoch_.load();
        for (const Place& place : places_) {
            const std::uint64_t epoch = place.epoch.load();
            if (epoch != kFree && epoch < found) found = epoch;
        }
        return found;
    }

private:
    static constexpr int kPlaces = 128;
    static constexpr std::uint64_t kFree = 0;
    struct alignas(64) Place {
        std::atomic<std::uint64_t> epoch{kFree};
    };

    std::atomic<std::uint64_t>* enter() {
        static thread_local const std::size_t first = std::hash<std::thread::id>{}(std::this_thread::get_id()) >> 4;
        for (std::size_t i = first;; ++i) {
            std::atomic<std::uint64_t>& place = places_[i % kPlaces].epoch;
            std::uint64_t none = kFree, epoch = epoch_.load();
            if (!place.compare_exchange_strong(none, epoch)) {
                if ((i - first) % kPlaces == kPlaces - 1) std::this_thread::yield();
                continue;
            }
            // If the writer looked before the place was taken, the epoch has moved, and what it took away is not seen.
            for (std::uint64_t now = epoch_.load(); now != epoch; now = epoch_.load()) place.store(epoch = now);
            return &place;
        }
    }

    std::atomic<std::uint64_t> epoch_{1};
    Place places_[kPlaces];
};

}  // namespace embtables
