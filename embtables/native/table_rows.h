// The rows of one table: weights, optimizer state and bookkeeping in arenas that grow, addressed by row number.
#pragma once

#include <cstdint>

#include "initial_rows.h"
#include "memory.h"
#include "row_kernels.h"

namespace embtables {

// What never changes about a table's rows.
struct TableConfig {
    int dim;
    InitialRow initial;
    Rule rule;
    double rate, beta1, beta2;
    float eps, weight_decay;
};

class TableRows {
public:
    explicit TableRows(const TableConfig& config);

    // Makes room for `rows` rows; new rows are not initialised. Pointers from before are void.
    void reserve(std::uint64_t rows);

    // Gives the row the key's initial values and fresh state, under a new generation.
    void reset(std::uint32_t row, std::int64_t key);

    const TableConfig& config() const { return config_; }
    int stride() const { return stride_; }
    int num_states() const;  // arenas of optimizer state with a value an element: 0, 1 or 2
    float* weight() const { return weight_.as<float>(); }
    float* state(int which) const { return which < num_states() ? states_[which].as<float>() : nullptr; }
    RowMeta* meta() const { return meta_.as<RowMeta>(); }

    // Adam's t, and the powers that correct its bias: products of factors, so that they need no maths library.
    std::uint64_t steps() const { return steps_; }
    void set_steps(std::uint64_t steps) { steps_ = steps; }

    // The optimizer of the next step at `factor` times the configured rate; counts the step.
    StepRule next_step(double factor);

    std::uint64_t row_bytes() const;

private:
    TableConfig config_;
    int stride_;
    Region weight_, states_[2], meta_;
    std::uint64_t steps_ = 0;
};

}  // namespace embtables
