#include "row_image.h"

#include <algorithm>

#include "table_rows.h"

namespace embtables {
namespace {

constexpr std::uint64_t kSlice = 4096;  // rows; some tenths of a millisecond

}  // namespace

RowImage::RowImage(TableRows& source, std::uint64_t end, std::uint32_t cut)
    : source_(&source),
      end_(end),
      cut_(cut),
      stride_(source.stride()),
      num_states_(source.num_states()),
      keyed_(source.is_keyed()) {
    const std::uint64_t row_size = sizeof(float) * static_cast<std::uint64_t>(stride_);
    weight_.reserve(end * row_size);
    for (int i = 0; i < num_states_; ++i) states_[i].reserve(end * row_size);
    meta_.reserve(end * sizeof(RowMeta));
    if (keyed_) keys_.reserve(end * sizeof(std::int64_t));
}

RowArrays RowImage::arrays() const {
    return {weight_.as<float>(),
            num_states_ > 0 ? states_[0].as<float>() : nullptr,
            num_states_ > 1 ? states_[1].as<float>() : nullptr,
            meta_.as<RowMeta>(),
            keyed_ ? keys_.as<std::int64_t>() : nullptr,
            stride_};
}

bool RowImage::copy_some() {
    if (source_ == nullptr) return false;
    const RowArrays from = source_->arrays(), to = arrays();
    const ImageView view{to, cut_};
    const std::uint64_t stop = std::min(end_, copied_ + kSlice);
    for (; copied_ < stop; ++copied_)
        if (view.wants(from.meta[copied_])) copy_row(from, to, copied_);
    if (copied_ == end_) abandon();
    return source_ != nullptr;
}

void RowImage::abandon() {
    if (source_ != nullptr) source_->end_image();
    source_ = nullptr;
}

}  // namespace embtables
