// What of row_kernels update_kernel.cpp holds.
#pragma once

#include "rows/row_kernels.h"

namespace embtables::EMBTABLES_KERNEL {

void update(const UpdateGroup& group, UpdateCounts& counts);
bool squares(const UpdateGroup& group, unsigned __int128& total);
void sort_items(std::uint64_t* items, std::uint64_t* scratch, std::size_t n, int low_bit, int high_bit);

}  // namespace embtables::EMBTABLES_KERNEL
