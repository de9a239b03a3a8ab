// The noise of a machine: the same work over and over, and how long each turn of it takes.
//
//   noise SECONDS
//
// One item is a chain of integer operations of about 0.1 ms, which touches no memory and calls no system. A hundred items
// are a window, of about 10 ms: one that takes longer was not alone on its core. Prints one JSON object.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr double ITEM_MS = 0.1;
constexpr size_t ITEMS_IN_WINDOW = 100;
constexpr double SLOW = 1.3;  // times the median window

volatile uint64_t sink;

double milliseconds() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The milliseconds that so many steps take.
double item(uint64_t steps) {
  const double began = milliseconds();
  uint64_t x = 88172645463325252ULL;
  for (uint64_t i = 0; i < steps; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
  }
  sink = x;
  return milliseconds() - began;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Steps of an item, by the quickest of many that are a known number of steps.
uint64_t calibrated() {
  constexpr uint64_t TRIED = 50'000;
  double least = item(TRIED);
  for (int i = 0; i < 1000; ++i) least = std::min(least, item(TRIED));
  return std::max<uint64_t>(1, static_cast<uint64_t>(TRIED * ITEM_MS / least));
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc == 2 ? std::atof(argv[1]) : 0.0;
  if (seconds <= 0.0) {
    std::fprintf(stderr, "usage: noise SECONDS\n");
    return 1;
  }
  const uint64_t steps = calibrated();
  const double end = milliseconds() + 1e3 * seconds;
  std::vector<double> windows;
  double longest = 0.0;
  do {
    const double began = milliseconds();
    for (size_t i = 0; i < ITEMS_IN_WINDOW; ++i) longest = std::max(longest, item(steps));
    windows.push_back(milliseconds() - began);
  } while (milliseconds() < end);
  const double usual = median(windows);
  const auto slow = std::count_if(windows.begin(), windows.end(), [&](double each) { return each > SLOW * usual; });
  std::printf("{\"seconds\": %.17g, \"windows\": %zu, \"window_ms\": %.6g, \"slow_share\": %.6g, \"longest_ms\": %.6g}\n",
              seconds, windows.size(), usual, static_cast<double>(slow) / static_cast<double>(windows.size()), longest);
  return 0;
}
