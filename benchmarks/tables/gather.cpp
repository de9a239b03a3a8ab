// The machine's limit for reading rows at random: a table of `rows` rows of `floats` floats on huge pages, 2^20 uniform
// row numbers, prefetched, two threads. Answers each line on stdin with one JSON line on stdout.
// g++ -O3 -march=native -fopenmp gather.cpp -o gather; ./gather ROWS FLOATS THREADS
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    const std::size_t rows = std::strtoull(argv[1], nullptr, 10), floats = std::strtoull(argv[2], nullptr, 10);
    const int threads = std::atoi(argv[3]);
    const std::size_t huge = std::size_t{2} << 20, bytes = (rows * floats * 4 / huge + 2) * huge;
    auto* whole = static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (whole == MAP_FAILED) return 1;
    madvise(whole, bytes, MADV_HUGEPAGE);
    std::memset(whole, 1, bytes);
    const auto* table = reinterpret_cast<const float*>((reinterpret_cast<std::uintptr_t>(whole) + huge - 1) & ~(huge - 1));
    const std::size_t n = std::size_t{1} << 20, ahead = 24;
    std::vector<std::uint32_t> index(n + ahead, 0);
    std::uint64_t state = 88172645463325252u;
    for (std::size_t i = 0; i < n; ++i) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        index[i] = static_cast<std::uint32_t>(state % rows);
    }
    std::printf("{}\n");
    std::fflush(stdout);
    char line[4096];
    while (std::fgets(line, sizeof line, stdin)) {
        const auto start = std::chrono::steady_clock::now();
        float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static)
        for (std::size_t i = 0; i < n; ++i) {
            const float* next = table + index[i + ahead] * floats;
            for (std::size_t j = 0; j < floats; j += 16) __builtin_prefetch(next + j);
            const float* row = table + index[i] * floats;
            for (std::size_t j = 0; j < floats; j += 16) total += row[j];
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf("{\"millions\": %.3f, \"sum\": %.1f}\n", n / seconds / 1e6, total);
        std::fflush(stdout);
    }
}
