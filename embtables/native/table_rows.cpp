#include "table_rows.h"

#include <cmath>
#include <cstring>

namespace embtables {
namespace {

// Floats from row to row: whole cache lines, or a power of two below one, so that no small row lies across two.
int stride_of(int dim) {
    if (dim > 8) return (dim + 15) / 16 * 16;
    int stride = 1;
    while (stride < dim) stride *= 2;
    return stride;
}

double power(double base, std::uint64_t exponent) {
    double result = 1.0;
    for (; exponent != 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

}  // namespace

TableRows::TableRows(const TableConfig& config) : config_(config), stride_(stride_of(config.dim)) {}

int TableRows::num_states() const { return config_.rule == Rule::adagrad ? 1 : config_.rule == Rule::adam ? 2 : 0; }

void TableRows::reserve(std::uint64_t rows) {
    const std::uint64_t row_size = sizeof(float) * static_cast<std::uint64_t>(stride_);
    weight_.reserve(rows * row_size);
    for (int i = 0; i < num_states(); ++i) states_[i].reserve(rows * row_size);
    meta_.reserve(rows * sizeof(RowMeta));
}

void TableRows::reset(std::uint32_t row, std::int64_t key) {
    const std::size_t at = std::size_t{row} * stride_;
    fill_initial_row(config_.initial, key, config_.dim, weight() + at);
    for (int i = 0; i < num_states(); ++i) std::memset(state(i) + at, 0, sizeof(float) * config_.dim);
    RowMeta& m = meta()[row];
    m = {0.0f, 0, 0, m.generation + 1};
}

StepRule TableRows::next_step(double factor) {
    ++steps_;
    const double rate = config_.rate * factor;
    StepRule rule{config_.rule, static_cast<float>(rate), config_.eps, config_.weight_decay, 0, 0, 0, 0, 0};
    if (config_.rule == Rule::adam) {
        rule.beta2 = static_cast<float>(config_.beta2);
        rule.rest1 = static_cast<float>(1.0 - config_.beta1);
        rule.rest2 = static_cast<float>(1.0 - config_.beta2);
        rule.first_factor = static_cast<float>(rate / (1.0 - power(config_.beta1, steps_)));
        rule.second_factor = static_cast<float>(1.0 / std::sqrt(1.0 - power(config_.beta2, steps_)));
    }
    return rule;
}

std::uint64_t TableRows::row_bytes() const {
    return sizeof(float) * static_cast<std::uint64_t>(stride_) * (1 + num_states()) + sizeof(RowMeta);
}

}  // namespace embtables
