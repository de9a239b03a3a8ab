// `parallel_for`: tasks 0..n-1 over threads. In Python these are torch's own OpenMP threads, found at run time, so that
// the process has one pool; without them (no torch loaded, sanitizer builds) std::thread.
#pragma once

#include <cstddef>
#include <type_traits>

namespace embtables {

// Runs task(context, i) for every i once. Which thread runs which task is left open: results may not depend on it. What
// a task throws is thrown here, the first of them, after all threads have stopped.
void parallel_for(std::size_t tasks, int threads, void (*task)(void*, std::size_t), void* context);

template <typename F>
void parallel_for(std::size_t tasks, int threads, F&& body) {
    using Body = std::remove_reference_t<F>;
    parallel_for(
        tasks, threads, [](void* context, std::size_t i) { (*static_cast<Body*>(context))(i); }, &body);
}

}  // namespace embtables
