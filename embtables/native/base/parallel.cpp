#include "base/parallel.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace embtables {
namespace {

// libgomp's entry point of `#pragma omp parallel`: runs fn(data) on each of num_threads threads and joins them.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned num_threads, unsigned flags);

GompParallel gomp() {
#if defined(EMBTABLES_STD_THREADS)
    return nullptr;
#else
    static const auto found = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
#endif
}

struct Work {
    void (*task)(void*, std::size_t);
    void* context;
    std::size_t tasks;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error{};

    void run() noexcept {
        try {
            for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(context, i);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
            next.store(tasks);
        }
    }
};

}  // namespace

void parallel_for(std::size_t tasks, int threads, void (*task)(void*, std::size_t), void* context) {
    const int wanted = static_cast<int>(std::min<std::size_t>(tasks, threads > 0 ? threads : 1));
    if (wanted <= 1) {
        for (std::size_t i = 0; i < tasks; ++i) task(context, i);
        return;
    }
    Work work{task, context, tasks};
    if (const GompParallel parallel = gomp()) {
        parallel([](void* data) { static_cast<Work*>(data)->run(); }, &work, static_cast<unsigned>(wanted), 0);
    } else {
        std::vector<std::thread> others;
        for (int i = 1; i < wanted; ++i) others.emplace_back([&work] { work.run(); });
        work.run();
        for (std::thread& other : others) other.join();
    }
    if (work.failed) std::rethrow_exception(work.error);
}

}  // namespace embtables
