// Pooling, gathering and inner products of rows. Compiled once an instruction set; see row_kernels.h.
#include "rows/row_kernels.h"

#include "base/lanes.h"
#include "rows/update.h"

namespace embtables::EMBTABLES_KERNEL {
namespace {

constexpr std::int64_t kAhead = 24;  // rows asked for before they are read

// Sums are of the weights themselves: what is stored of two of them may be beyond floats together.
template <int D, bool kWeighted, bool kScaled>
void pool(const PooledWork& p) {
    const std::int64_t first = p.offsets[p.begin], last = p.offsets[p.end];
    for (std::int64_t i = first; i < last && i < first + kAhead; ++i)
        prefetch_row(p.base + std::size_t{p.rows[i]} * p.stride, D == 0 ? p.dim : D);
    for (std::int64_t b = p.begin; b < p.end; ++b) {
        Row<D> sum(p.dim);
        for (std::int64_t i = p.offsets[b]; i < p.offsets[b + 1]; ++i) {
            if (i + kAhead < last)
                prefetch_row(p.base + std::size_t{p.rows[i + kAhead]} * p.stride, D == 0 ? p.dim : D);
            Row<D> row(p.base + std::size_t{p.rows[i]} * p.stride, p.dim);
            if constexpr (kScaled) row.scale(p.scale);
            if constexpr (kWeighted)
                sum.add_scaled(row, p.weights[i]);
            else
                sum.add(row);
        }
        sum.to(p.out + b * p.out_stride);
    }
}

template <int D>
void pool_any(const PooledWork& p) {
    if (p.scale == 1.0f)
        p.weights == nullptr ? pool<D, false, false>(p) : pool<D, true, false>(p);
    else
        p.weights == nullptr ? pool<D, false, true>(p) : pool<D, true, true>(p);
}

void pooled(const PooledWork& p) {
    switch (p.dim) {
        case 1: return pool_any<1>(p);
        case 4: return pool_any<4>(p);
        case 8: return pool_any<8>(p);
        case 16: return pool_any<16>(p);
        case 32: return pool_any<32>(p);
        case 64: return pool_any<64>(p);
        default: return pool_any<0>(p);
    }
}

template <int D>
void copy_rows(const GatherWork& p) {
    const int dim = D == 0 ? p.dim : D;
    const std::size_t bytes = static_cast<std::size_t>(dim) * sizeof(float);
    for (std::int64_t i = p.begin; i < p.end; ++i) {
        if (i + kAhead < p.end) prefetch_row(p.base + std::size_t{p.rows[i + kAhead]} * p.stride, dim);
        std::memcpy(p.out + i * dim, p.base + std::size_t{p.rows[i]} * p.stride, bytes);
    }
}

void gather(const GatherWork& p) {
    switch (p.dim) {
        case 4: copy_rows<4>(p); break;
        case 8: copy_rows<8>(p); break;
        case 16: copy_rows<16>(p); break;
        case 32: copy_rows<32>(p); break;
        case 64: copy_rows<64>(p); break;
        default: copy_rows<0>(p);
    }
    if (p.scale == 1.0f) return;
    for (std::int64_t j = p.begin * p.dim; j < p.end * p.dim; ++j) p.out[j] *= p.scale;
}

void dots(const DotWork& p) {
    for (std::int64_t b = p.begin; b < p.end; ++b) {
        const Row<0> gradient(p.gradient + b * p.gradient_stride, p.dim);
        for (std::int64_t i = p.offsets[b]; i < p.offsets[b + 1]; ++i) {
            Row<0> row(p.base + std::size_t{p.rows[i]} * p.stride, p.dim);
            if (p.scale != 1.0f) row.scale(p.scale);
            p.out[i] = row.dot(gradient);
        }
    }
}

}  // namespace

extern const RowKernels row_kernels = {pooled, gather, dots, update, squares, sort_items};

}  // namespace embtables::EMBTABLES_KERNEL
