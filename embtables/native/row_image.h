// A table's rows as they were at a cut, copied while training goes on.
//
//   capture: an empty image                     -> a row's first change since then saves it there, before it changes
//   copy_some, again and again, between changes -> the rows that have not changed
//
// Memory that nothing wrote to is not there, so an image begins at no cost and ends as large as the table.
#pragma once

#include <cstdint>

#include "memory.h"
#include "row_arrays.h"

namespace embtables {

class TableRows;

class RowImage {
public:
    // Of rows [0, end), those that last changed in a cut up to `cut`.
    RowImage(TableRows& source, std::uint64_t end, std::uint32_t cut);

    // Copies some rows more; false once it is whole. Not while rows change.
    bool copy_some();

    // It is not wanted any more, whole or not.
    void abandon();

    // Rows that were free have cut 0.
    RowArrays arrays() const;
    std::uint64_t end() const { return end_; }
    std::uint32_t cut() const { return cut_; }

private:
    Region weight_, states_[2], meta_, keys_;
    TableRows* source_;  // null once it is whole or abandoned
    std::uint64_t end_, copied_ = 0;
    std::uint32_t cut_;
    int stride_, num_states_;
    bool keyed_;
};

}  // namespace embtables
