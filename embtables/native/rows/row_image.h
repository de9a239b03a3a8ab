// A table's rows as they were at a cut, read while training goes on.
//
//   capture: an empty image          -> a row's first change since then saves it there, before it changes
//   list, read, slice by slice       -> what was saved, and of the other rows what the table holds
//
// Memory that nothing wrote to is not there, so an image begins at no cost. A row that is saved takes a page of each
// array where no neighbour was saved before: many rows here and there may come to as much as the table takes.
#pragma once

#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "rows/bucket_order.h"
#include "rows/row_arrays.h"
#include "rows/row_columns.h"

namespace embtables {

class TableRows;

class RowImage {
public:
    // Of rows [0, end), those that last changed in a cut up to `cut`.
    RowImage(TableRows& source, std::uint64_t end, std::uint32_t cut);

    void begin_listing() { listed_ = 0; }

    // Adds the next slice of the rows from `begin` on that were alive; false when there are none left. Not while rows
    // change.
    bool list_some(std::uint64_t begin, const RowFilter& filter, std::vector<std::vector<Listed>>& pieces);

    // A column of rows[0..n), `width` floats each. Not while rows change.
    void read(Column column, std::size_t width, const std::uint32_t* rows, std::size_t n, float* out) const;
    void read_counts(const std::uint32_t* rows, std::size_t n, std::uint32_t* out) const;

    // Takes over all rows, so that the table may go. Not while rows change.
    void finish();

    // It is not wanted any more: what it had not saved yet is not to be read.
    void abandon();
    bool is_abandoned() const { return is_abandoned_; }

    const ImageView& view() const { return own_; }
    std::uint64_t end() const { return end_; }

private:
    const RowArrays& at(const RowArrays& live, std::size_t row) const {
        return source_ == nullptr || own_.saved[row] != 0 ? own_.rows : live;
    }
    RowArrays live() const;

    Region weight_{true}, states_[2]{Region{true}, Region{true}}, meta_{true}, keys_{true}, saved_{true};
    ImageView own_{};
    void leave();

    TableRows* source_;  // null once it is finished or abandoned
    bool is_abandoned_ = false;
    std::uint64_t end_, listed_ = 0;
};

}  // namespace embtables
