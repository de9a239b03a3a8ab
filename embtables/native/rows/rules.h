// The optimizers: what each keeps beside a row, and what one step of it needs. What it does to a row is in
// update_kernel.cpp. The switches have no default: the compiler refuses one that forgets a rule.
#pragma once

#include <cmath>
#include <cstdint>

namespace embtables {

enum class Rule : int { sgd = 0, adagrad = 1, rowwise_adagrad = 2, adam = 3 };

inline constexpr int kNumRules = 4;

// The state of a row.
struct RuleState {
    int num_arrays;    // with a value for each element of a row: 0, 1 or 2
    bool has_row_sum;  // one value of the row
};

constexpr RuleState state_of(Rule rule) {
    switch (rule) {
        case Rule::sgd: return {0, false};
        case Rule::adagrad: return {1, false};
        case Rule::rowwise_adagrad: return {0, true};
        case Rule::adam: return {2, false};
    }
    __builtin_unreachable();
}

// A table's optimizer as configured; what a rule has no use for is 0.
struct RuleConfig {
    Rule rule;
    double rate, beta1, beta2;
    float eps, weight_decay;
};

// An optimizer with one step's figures filled in.
struct StepRule {
    Rule rule;
    float rate, eps, weight_decay;
    float beta2, rest1, rest2;          // Adam: beta2, 1 - beta1, 1 - beta2
    float first_factor, second_factor;  // Adam: rate / (1 - beta1^t) and 1 / sqrt(1 - beta2^t)
};

// A product of factors, so that it needs no maths library, and is the same on all machines.
inline double power(double base, std::uint64_t exponent) {
    double result = 1.0;
    for (; exponent != 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// Step t of a table, counted from 1, at `factor` times the configured rate.
inline StepRule step_of(const RuleConfig& config, double factor, std::uint64_t t) {
    const double rate = config.rate * factor;
    StepRule step{config.rule, static_cast<float>(rate), config.eps, config.weight_decay, 0, 0, 0, 0, 0};
    switch (config.rule) {
        case Rule::sgd:
        case Rule::adagrad:
        case Rule::rowwise_adagrad: break;
        case Rule::adam:
            step.beta2 = static_cast<float>(config.beta2);
            step.rest1 = static_cast<float>(1.0 - config.beta1);
            step.rest2 = static_cast<float>(1.0 - config.beta2);
            step.first_factor = static_cast<float>(rate / (1.0 - power(config.beta1, t)));
            step.second_factor = static_cast<float>(1.0 / std::sqrt(1.0 - power(config.beta2, t)));
            break;
    }
    return step;
}

}  // namespace embtables
