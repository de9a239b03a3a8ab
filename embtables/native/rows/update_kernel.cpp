// Sums the gradients of each row and applies the optimizer once. Compiled once an instruction set; see row_kernels.h.
#include <cmath>

#include "base/lanes.h"
#include "rows/update.h"

namespace embtables::EMBTABLES_KERNEL {
namespace {

constexpr std::size_t kAhead = 16;  // items asked for before they are used
constexpr int kDigit = 11;          // bits of a pass of the radix sort

std::uint32_t row_of(std::uint64_t item) { return static_cast<std::uint32_t>(item >> 32); }

const float* gradient_of(const UpdateGroup& g, std::uint32_t place) {
    const GradientSource& source = g.sources[place >> g.bag_bits];
    return source.gradient + static_cast<std::int64_t>(place & ((1u << g.bag_bits) - 1)) * source.stride;
}

template <int D, bool kWeighted>
void prefetch(const UpdateGroup& g, std::uint64_t item) {
    const std::size_t row = row_of(item), width = D == 0 ? g.dim : D;
    prefetch_row(g.rows.weight + row * g.rows.stride, static_cast<int>(width));
    __builtin_prefetch(g.rows.meta + row);
    if (g.rows.state1 != nullptr) prefetch_row(g.rows.state1 + row * g.rows.stride, static_cast<int>(width));
    if (g.rows.state2 != nullptr) prefetch_row(g.rows.state2 + row * g.rows.stride, static_cast<int>(width));
    const auto place = static_cast<std::uint32_t>(item);
    prefetch_row(gradient_of(g, kWeighted ? g.packed[place] : place), static_cast<int>(width));
}

// Adds the gradients of items first..last-1, all of one row, in pieces of kPiece.
template <int D, bool kWeighted>
void sum_run(const UpdateGroup& g, std::size_t first, std::size_t last, Row<D>& total) {
    for (std::size_t start = first; start < last; start += kPiece) {
        const std::size_t stop = start + kPiece < last ? start + kPiece : last;
        Row<D> piece(g.dim);
        for (std::size_t i = start; i < stop; ++i) {
            if (i + kAhead < g.size) prefetch<D, kWeighted>(g, g.items[i + kAhead]);
            const auto place = static_cast<std::uint32_t>(g.items[i]);
            if constexpr (kWeighted)
                piece.add_scaled(Row<D>(gradient_of(g, g.packed[place]), g.dim), g.weights[place]);
            else
                piece.add(Row<D>(gradient_of(g, place), g.dim));
        }
        total.add(piece);
    }
    total.scale(g.scale);
}

// Weights as they are stored.
template <int D>
void unscale(Row<D>& weight, float scale) {
    Row<D> stored = weight;
    for (int v = 0; v < stored.count(); ++v) stored.block[v] /= spread(scale);
    if (!stored.finite())
        for (int j = 0; j < stored.dim; ++j) stored.block[j / 8][j % 8] = unscaled(weight.block[j / 8][j % 8], scale);
    weight = stored;
}

template <int D>
void apply(const UpdateGroup& g, std::size_t row, Row<D>& gradient) {
    float* const at = g.rows.weight + row * g.rows.stride;
    Row<D> weight(at, g.dim);
    if (g.weight_scale != 1.0f) weight.scale(g.weight_scale);
    const StepRule& r = g.rule;
    if (r.weight_decay > 0.0f) gradient.add_scaled(weight, r.weight_decay);
    switch (r.rule) {
        case Rule::sgd: weight.add_scaled(gradient, -r.rate); break;
        case Rule::adagrad: {
            float* const sums_at = g.rows.state1 + row * g.rows.stride;
            Row<D> sums(sums_at, g.dim);
            const Block rate = spread(r.rate), eps = spread(r.eps);
            for (int v = 0; v < sums.count(); ++v) {
                sums.block[v] += gradient.block[v] * gradient.block[v];
                weight.block[v] -= rate * gradient.block[v] / (root(sums.block[v]) + eps);
            }
            sums.to(sums_at);
            break;
        }
        case Rule::rowwise_adagrad: {
            const float sum = g.rows.meta[row].sum + gradient.dot(gradient) / static_cast<float>(g.dim);
            g.rows.meta[row].sum = sum;
            weight.add_scaled(gradient, -r.rate / (__builtin_sqrtf(sum) + r.eps));
            break;
        }
        case Rule::adam: {
            float* const first_at = g.rows.state1 + row * g.rows.stride;
            float* const second_at = g.rows.state2 + row * g.rows.stride;
            Row<D> first(first_at, g.dim), second(second_at, g.dim);
            const Block eps = spread(r.eps), beta2 = spread(r.beta2);
            const Block rest1 = spread(r.rest1), rest2 = spread(r.rest2);
            for (int v = 0; v < first.count(); ++v) {
                const Block x = gradient.block[v];
                first.block[v] += rest1 * (x - first.block[v]);
                second.block[v] = second.block[v] * beta2 + rest2 * x * x;
                const Block denominator = root(second.block[v]) * spread(r.second_factor) + eps;
                weight.block[v] -= spread(r.first_factor) * first.block[v] / denominator;
            }
            first.to(first_at);
            second.to(second_at);
            break;
        }
    }
    if (g.weight_scale != 1.0f) unscale(weight, g.weight_scale);
    weight.to(at);
}

// The row is about to change, and training has seen it.
void touch(const UpdateGroup& g, std::uint32_t row, UpdateCounts& counts) {
    RowMeta& meta = g.rows.meta[row];
    if (meta.cut != g.cut) {
        g.image.save(g.rows, row);
        meta.cut = g.cut;
        g.touched[counts.touched++] = row;
    }
    meta.seen = g.now;
}

std::size_t end_of_run(const UpdateGroup& g, std::size_t first) {
    std::size_t last = first + 1;
    while (last < g.size && row_of(g.items[last]) == row_of(g.items[first])) ++last;
    return last;
}

// How many occurrences items first..last-1 stand for.
template <bool kWeighted>
std::uint32_t occurrences(const UpdateGroup& g, std::size_t first, std::size_t last) {
    if (!g.counted) return static_cast<std::uint32_t>(last - first);
    std::uint32_t found = 0;
    for (std::size_t i = first; i < last; ++i) {
        auto place = static_cast<std::uint32_t>(g.items[i]);
        if constexpr (kWeighted) place = g.packed[place];
        const GradientSource& source = g.sources[place >> g.bag_bits];
        const std::uint32_t bag = place & ((1u << g.bag_bits) - 1);
        found += source.times == nullptr ? 1u : static_cast<std::uint32_t>(source.times[bag]);
    }
    return found;
}

template <int D, bool kWeighted>
void update_rows(const UpdateGroup& g, UpdateCounts& counts) {
    for (std::size_t i = 0; i < g.size && i < kAhead; ++i) prefetch<D, kWeighted>(g, g.items[i]);
    for (std::size_t first = 0, last; first < g.size; first = last) {
        last = end_of_run(g, first);
        const std::uint32_t row = row_of(g.items[first]);
        if (row < g.first_row) continue;
        Row<D> gradient(g.dim);
        sum_run<D, kWeighted>(g, first, last, gradient);
        touch(g, row, counts);
        if (!gradient.finite()) {
            ++counts.refused;
            continue;
        }
        apply<D>(g, row, gradient);
        g.rows.meta[row].count += occurrences<kWeighted>(g, first, last);
        ++counts.rows;
    }
}

template <bool kWeighted>
bool squares_of_rows(const UpdateGroup& g, unsigned __int128& total) {
    for (std::size_t first = 0, last; first < g.size; first = last) {
        last = end_of_run(g, first);
        if (row_of(g.items[first]) < g.first_row) continue;
        Row<0> gradient(g.dim);
        sum_run<0, kWeighted>(g, first, last, gradient);
        double sum = 0.0;
        for (int j = 0; j < g.dim; ++j) {
            const double x = gradient.block[j / 8][j % 8];
            sum += x * x;
        }
        if (!(sum < 0x1p66)) return false;
        total += static_cast<unsigned __int128>(sum * 0x1p60);
    }
    return true;
}

template <int D>
void update_any(const UpdateGroup& g, UpdateCounts& counts) {
    g.packed == nullptr ? update_rows<D, false>(g, counts) : update_rows<D, true>(g, counts);
}

}  // namespace

void update(const UpdateGroup& g, UpdateCounts& counts) {
    switch (g.dim) {
        case 1: return update_any<1>(g, counts);
        case 4: return update_any<4>(g, counts);
        case 8: return update_any<8>(g, counts);
        case 16: return update_any<16>(g, counts);
        case 32: return update_any<32>(g, counts);
        case 64: return update_any<64>(g, counts);
        default: return update_any<0>(g, counts);
    }
}

bool squares(const UpdateGroup& g, unsigned __int128& total) {
    return g.packed == nullptr ? squares_of_rows<false>(g, total) : squares_of_rows<true>(g, total);
}

// Stable radix sort by bits low_bit..high_bit-1, lowest digit first.
void sort_items(std::uint64_t* items, std::uint64_t* scratch, std::size_t n, int low_bit, int high_bit) {
    std::uint64_t *from = items, *to = scratch;
    for (int bit = low_bit; bit < high_bit; bit += kDigit) {
        const std::uint64_t mask = (1u << (high_bit - bit < kDigit ? high_bit - bit : kDigit)) - 1;
        std::uint32_t starts[1 << kDigit];
        std::memset(starts, 0, (mask + 1) * sizeof starts[0]);
        for (std::size_t i = 0; i < n; ++i) ++starts[(from[i] >> bit) & mask];
        std::uint32_t sum = 0;
        for (std::size_t d = 0; d <= mask; ++d) {
            const std::uint32_t count = starts[d];
            starts[d] = sum;
            sum += count;
        }
        for (std::size_t i = 0; i < n; ++i) to[starts[(from[i] >> bit) & mask]++] = from[i];
        std::uint64_t* const swap = from;
        from = to;
        to = swap;
    }
    if (from != items) std::memcpy(items, from, n * sizeof *items);
}

}  // namespace embtables::EMBTABLES_KERNEL
