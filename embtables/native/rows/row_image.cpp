#include "rows/row_image.h"

#include <algorithm>

#include "rows/table_rows.h"

namespace embtables {
namespace {

constexpr std::uint64_t kSlice = 1 << 15;  // rows listed at once; some tenths of a millisecond
constexpr std::size_t kAhead = 16;

}  // namespace

RowImage::RowImage(TableRows& source, std::uint64_t end, std::uint32_t cut) : source_(&source), end_(end) {
    const int states = source.num_states();
    const std::uint64_t row_size = sizeof(float) * static_cast<std::uint64_t>(source.stride());
    weight_.reserve(end * row_size);
    for (int i = 0; i < states; ++i) states_[i].reserve(end * row_size);
    meta_.reserve(end * sizeof(RowMeta));
    if (source.is_keyed()) keys_.reserve(end * sizeof(std::int64_t));
    saved_.reserve(end);
    own_ = {{weight_.as<float>(), states > 0 ? states_[0].as<float>() : nullptr,
             states > 1 ? states_[1].as<float>() : nullptr, meta_.as<RowMeta>(),
             source.is_keyed() ? keys_.as<std::int64_t>() : nullptr, source.stride()},
            saved_.as<std::uint8_t>(),
            cut};
}

RowArrays RowImage::live() const { return source_ == nullptr ? own_.rows : source_->arrays(); }

bool RowImage::list_some(std::uint64_t begin, const RowFilter& filter, std::vector<std::vector<Listed>>& pieces) {
    listed_ = std::max(listed_, begin);
    const std::uint64_t stop = std::min(end_, listed_ + kSlice);
    const RowArrays live = this->live();
    std::vector<Listed>& piece = pieces.emplace_back();
    piece.reserve(kSlice);
    for (; listed_ < stop; ++listed_) {
        const RowArrays& rows = at(live, listed_);
        const RowMeta& meta = rows.meta[listed_];
        if (!own_.wants(meta) || filter.now - meta.seen > filter.ttl) continue;
        const auto row = static_cast<std::uint32_t>(listed_);
        piece.push_back({rows.keys != nullptr ? rows.keys[row] : static_cast<std::int64_t>(row), row, meta.seen});
    }
    return listed_ < end_;
}

void RowImage::read(Column column, std::size_t width, const std::uint32_t* rows, std::size_t n, float* out) const {
    const RowArrays live = this->live();
    const auto place = [&](std::uint32_t row) { return place_of(at(live, row), column, row); };
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) __builtin_prefetch(place(rows[i + kAhead]));
        std::memcpy(out + i * width, place(rows[i]), width * sizeof(float));
    }
}

void RowImage::read_counts(const std::uint32_t* rows, std::size_t n, std::uint32_t* out) const {
    const RowArrays live = this->live();
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) __builtin_prefetch(at(live, rows[i + kAhead]).meta + rows[i + kAhead]);
        out[i] = at(live, rows[i]).meta[rows[i]].count;
    }
}

void RowImage::finish() {
    const RowArrays live = this->live();
    for (std::uint64_t row = 0; row < end_ && source_ != nullptr; ++row) own_.save(live, row);
    leave();
}

void RowImage::abandon() {
    is_abandoned_ = true;
    leave();
}

void RowImage::leave() {
    if (source_ != nullptr) source_->end_image();
    source_ = nullptr;
}

}  // namespace embtables
