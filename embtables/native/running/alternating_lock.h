// Readers beside one writer that works in slices: neither keeps the other out.
#pragma once

#include <atomic>
#include <cstdint>
#include <shared_mutex>
#include <thread>

namespace embtables {

// std::shared_mutex alone lets readers who come one after the other keep a writer out for ever, and a writer who takes
// it again at once keep readers out for all of its slices.
class AlternatingLock {
public:
    // Held while something is read; waits for one slice of the writer at most.
    class Reading {
    public:
        explicit Reading(const AlternatingLock& lock) : lock_(lock) {
            lock_.waiting_readers_.fetch_add(1);
            while (lock_.waiting_writer_.load()) std::this_thread::yield();
            lock_.mutex_.lock_shared();
            lock_.admitted_.fetch_add(1);
            lock_.waiting_readers_.fetch_sub(1);
        }
        ~Reading() { lock_.mutex_.unlock_shared(); }
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;

    private:
        const AlternatingLock& lock_;
    };

    // Held for a slice of what the only writer does; lets a reader that waits go first.
    class Writing {
    public:
        explicit Writing(AlternatingLock& lock) : lock_(lock) {
            const std::uint64_t admitted = lock_.admitted_.load();
            while (lock_.waiting_readers_.load() != 0 && lock_.admitted_.load() == admitted) std::this_thread::yield();
            lock_.waiting_writer_.store(true);
            lock_.mutex_.lock();
            lock_.waiting_writer_.store(false);
        }
        ~Writing() { lock_.mutex_.unlock(); }
        Writing(const Writing&) = delete;
        Writing& operator=(const Writing&) = delete;

    private:
        AlternatingLock& lock_;
    };

private:
    mutable std::shared_mutex mutex_;
    mutable std::atomic<std::uint64_t> admitted_{0};
    mutable std::atomic<int> waiting_readers_{0};
    std::atomic<bool> waiting_writer_{false};
};

}  // namespace embtables
