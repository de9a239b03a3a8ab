#include "rows/table_rows.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/parallel.h"
#include "rows/row_image.h"

namespace embtables {
namespace {

template <typename F>
void in_chunks(std::size_t n, int threads, F&& f) {
    constexpr std::size_t kChunk = 1 << 16;
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](std::size_t c) {
        for (std::size_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) f(i);
    });
}

}  // namespace

int stride_of(int dim) {
    if (dim > 8) return (dim + 15) / 16 * 16;
    int stride = 1;
    while (stride < dim) stride *= 2;
    return stride;
}

std::uint64_t row_bytes(const TableConfig& config, bool keyed) {
    const std::uint64_t arenas = 1 + static_cast<std::uint64_t>(state_of(config.optimizer.rule).num_arrays);
    return sizeof(float) * static_cast<std::uint64_t>(stride_of(config.dim)) * arenas + sizeof(RowMeta) +
           (keyed ? sizeof(std::int64_t) : 0);
}

TableRows::TableRows(const TableConfig& config, bool keyed, std::uint32_t cut)
    : config_(config), keyed_(keyed), stride_(stride_of(config.dim)), cut_(cut) {}

TableRows::~TableRows() { finish_image(); }

RowArrays TableRows::arrays() const {
    return {weight(), state(0), state(1), meta(), keyed_ ? keys_.as<std::int64_t>() : nullptr, stride_};
}

void TableRows::reserve(std::uint64_t rows) {
    const std::uint64_t row_size = sizeof(float) * static_cast<std::uint64_t>(stride_);
    weight_.reserve(rows * row_size);
    for (int i = 0; i < num_states(); ++i) states_[i].reserve(rows * row_size);
    meta_.reserve(rows * sizeof(RowMeta));
    if (keyed_) keys_.reserve(rows * sizeof(std::int64_t));
}

void TableRows::reset(std::uint32_t row, std::int64_t key) {
    save(row);
    const std::size_t at = std::size_t{row} * stride_;
    fill_initial_row(config_.initial, key, config_.dim, weight() + at);
    if (const float scale = weight_scale(); scale != 1.0f)
        for (int j = 0; j < config_.dim; ++j) weight()[at + j] = unscaled(weight()[at + j], scale);
    for (int i = 0; i < num_states(); ++i) std::memset(state(i) + at, 0, sizeof(float) * config_.dim);
    meta()[row] = {0.0f, 0, 0, 0};
    if (keyed_) keys_.as<std::int64_t>()[row] = key;
}

// Rows that nobody has are multiplied too: of a row that this step has made nobody is said to have it yet.
void TableRows::fold_scale(std::uint64_t end, int threads) {
    const float scale = weight_scale();
    scale_ = 1.0;
    if (scale == 1.0f) return;
    constexpr std::uint64_t kRows = 1 << 20;  // at a time: their numbers are in memory
    std::vector<std::uint32_t> had;
    for (std::uint64_t begin = 0; begin < end; begin += kRows) {
        const std::uint64_t stop = std::min(end, begin + kRows);
        had.clear();
        for (std::uint64_t row = begin; row < stop; ++row)
            if (meta()[row].cut != 0) had.push_back(static_cast<std::uint32_t>(row));
        touch(had.data(), had.size(), threads);
        in_chunks(stop - begin, threads, [&](std::size_t i) {
            float* const row = weight() + (begin + i) * static_cast<std::size_t>(stride_);
            for (int j = 0; j < config_.dim; ++j) row[j] *= scale;
        });
    }
}

void TableRows::release(std::uint32_t row) {
    save(row);
    meta()[row].cut = 0;
}

void TableRows::touch(std::uint32_t row) {
    RowMeta& m = meta()[row];
    if (m.cut == cut_) return;
    save(row);
    m.cut = cut_;
    note_touched(&row, 1);
}

void TableRows::note_touched(const std::uint32_t* rows, std::size_t n) {
    is_cut_new_ &= n == 0;
    touched_.add(rows, n);
}

void TableRows::see(std::uint32_t row, std::uint32_t now) {
    touch(row);
    meta()[row].seen = now;
}

// Where nobody asks which rows were touched, as when a table is restored, threads share the work.
void TableRows::touch(const std::uint32_t* rows, std::size_t n, int threads) {
    if (touched_.is_kept() || image_) {
        for (std::size_t i = 0; i < n; ++i) touch(rows[i]);
        return;
    }
    is_cut_new_ &= n == 0;
    RowMeta* const meta = this->meta();
    in_chunks(n, threads, [&](std::size_t i) { meta[rows[i]].cut = cut_; });
}

void TableRows::place(const std::uint32_t* rows, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n,
                      int threads) {
    touch(rows, n, threads);
    in_chunks(n, threads, [&](std::size_t i) {
        meta()[rows[i]].seen = seen[i];
        keys_.as<std::int64_t>()[rows[i]] = keys[i];
    });
}

void TableRows::begin_cut(std::uint32_t cut) {
    cut_ = cut;
    touched_.begin(cut);
    is_cut_new_ = true;
}

void TableRows::save(std::uint32_t row) {
    image_view_.save(arrays(), row);
}

std::shared_ptr<RowImage> TableRows::capture(std::uint64_t end) {
    finish_image();
    std::shared_ptr<RowImage> image = std::make_shared<RowImage>(*this, end, is_cut_new_ ? cut_ - 1 : cut_);
    image_ = image;
    image_view_ = image->view();
    if (!is_cut_new_) finish_image();
    return image;
}

void TableRows::finish_image() {
    if (const std::shared_ptr<RowImage> image = image_) image->finish();
}

void TableRows::end_image() {
    image_view_ = {};
    image_.reset();
}

std::size_t TableRows::width_of(Column column) const {
    const int p = static_cast<int>(column);
    const bool has = column == Column::weight || (column == Column::row_sum ? state_of(config_.optimizer.rule).has_row_sum
                                                                    : p > 0 && p <= num_states());
    if (!has) throw std::invalid_argument("the table has no such column");
    return column == Column::row_sum ? 1 : static_cast<std::size_t>(config_.dim);
}

}  // namespace embtables
