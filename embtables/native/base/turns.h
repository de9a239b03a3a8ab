// Turns at a store's rows: training takes one for each change, a copier in the background takes short ones between them.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace embtables {

class Turns {
public:
    // Held while rows change. Waits no longer than a slice.
    class Turn {
    public:
        explicit Turn(Turns& turns) : lock_(turns.mutex_, std::defer_lock) {
            turns.wanted_.fetch_add(1);
            lock_.lock();
            turns.wanted_.fetch_sub(1);
        }

    private:
        std::unique_lock<std::mutex> lock_;
    };

    // Calls slice() until it is false, giving way after each.
    template <typename F>
    void in_slices(F&& slice) {
        for (bool more = true; more;) {
            while (wanted_.load() != 0) std::this_thread::yield();
            const std::lock_guard<std::mutex> held(mutex_);
            more = slice();
        }
    }

private:
    std::mutex mutex_;
    std::atomic<int> wanted_{0};
};

}  // namespace embtables
