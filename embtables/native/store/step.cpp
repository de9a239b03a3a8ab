#include "store/step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/parallel.h"

namespace embtables {
namespace {

constexpr std::size_t kGroupItems = 8192;  // of 8 bytes: two such arrays and their rows fit a second-level cache
constexpr int kMaxGroupBits = 10;
constexpr std::int64_t kChunkKeys = 32768;

int bits_for(std::uint64_t values) { return values <= 1 ? 0 : 64 - std::countl_zero(values - 1); }

}  // namespace

Step::Step(const RowKernels& kernels, int threads, std::vector<KeptTable> tables, Workspace& space)
    : kernels_(kernels), threads_(threads), tables_(std::move(tables)), plans_(tables_.size()), space_(space) {
    plan();
    fill();
    sort();
}

void Step::plan() {
    std::size_t total = 0, packed = 0;
    for (std::size_t t = 0; t < tables_.size(); ++t) {
        Plan& plan = plans_[t];
        std::int64_t most_bags = 1;
        plan.first_item = total;
        for (std::size_t s = 0; s < tables_[t].features.size(); ++s) {
            const KeptFeature& feature = tables_[t].features[s];
            const std::int64_t begin = feature.offsets[0], end = feature.offsets[feature.num_bags];
            for (std::int64_t at = begin; at < end; at += kChunkKeys) {
                chunks_.push_back({t, s, plan.size, at, std::min(end, at + kChunkKeys)});
                plan.size += static_cast<std::size_t>(std::min(end, at + kChunkKeys) - at);
            }
            plan.sources.push_back({feature.gradient, feature.stride, feature.times});
            plan.weighted |= feature.weights != nullptr;
            plan.counted |= feature.times != nullptr;
            most_bags = std::max(most_bags, feature.num_bags);
        }
        plan.bag_bits = bits_for(static_cast<std::uint64_t>(most_bags));
        if (bits_for(plan.sources.size()) + plan.bag_bits > 31 || plan.size > std::numeric_limits<std::int32_t>::max())
            throw std::length_error("more gradients in one step than 2^31; use smaller batches");
        plan.group_bits = std::min(kMaxGroupBits, bits_for((plan.size + kGroupItems - 1) / kGroupItems));
        total += plan.size;
        plan.first_packed = packed;
        packed += plan.weighted ? plan.size : 0;
    }
    space_.items.reserve(std::max<std::size_t>(1, total) * sizeof(std::uint64_t));
    space_.scratch.reserve(std::max<std::size_t>(1, total) * sizeof(std::uint64_t));
    space_.packed.reserve(std::max<std::size_t>(1, packed) * sizeof(std::uint32_t));
    space_.weights.reserve(std::max<std::size_t>(1, packed) * sizeof(float));
}

// Calls f(key's place in the lookup, bag) for the chunk's keys in order.
template <typename F>
void Step::each_key(const Chunk& chunk, F&& f) const {
    const KeptFeature& feature = tables_[chunk.table].features[chunk.feature];
    const std::int64_t* const end = feature.offsets + feature.num_bags + 1;
    // The last bag that begins at or before the chunk.
    std::int64_t bag = std::upper_bound(feature.offsets, end, chunk.begin) - feature.offsets - 1;
    for (std::int64_t i = chunk.begin; i < chunk.end; ++bag) {
        const std::int64_t stop = std::min(chunk.end, feature.offsets[bag + 1]);
        for (; i < stop; ++i) f(i, static_cast<std::uint32_t>(bag));
    }
}

void Step::fill() {
    // Places of each (chunk, group), so that the items of a group lie in the order of the batch.
    std::vector<std::vector<std::size_t>> places(chunks_.size());
    std::vector<std::uint32_t> highest(chunks_.size(), 0);
    parallel_for(chunks_.size(), threads_, [&](std::size_t c) {
        const Chunk& chunk = chunks_[c];
        const std::uint32_t mask = (1u << plans_[chunk.table].group_bits) - 1;
        places[c].assign(mask + 1, 0);
        const std::uint32_t* const rows = tables_[chunk.table].features[chunk.feature].rows;
        for (std::int64_t i = chunk.begin; i < chunk.end; ++i) {
            ++places[c][rows[i] & mask];
            highest[c] = std::max(highest[c], rows[i]);
        }
    });
    for (std::size_t t = 0, c = 0; t < tables_.size(); ++t) {
        Plan& plan = plans_[t];
        std::size_t end = c;
        std::uint32_t top = 0;
        for (; end < chunks_.size() && chunks_[end].table == t; ++end) top = std::max(top, highest[end]);
        plan.row_bits = bits_for(std::uint64_t{top} + 1);
        std::size_t at = plan.first_item;
        for (std::size_t g = 0; g < (std::size_t{1} << plan.group_bits); ++g) {
            const std::size_t begin = at;
            for (std::size_t k = c; k < end; ++k) at += std::exchange(places[k][g], at);
            if (at > begin) groups_.push_back({t, begin, at});
        }
        c = end;
    }
    auto* const items = space_.items.as<std::uint64_t>();
    auto* const packed = space_.packed.as<std::uint32_t>();
    auto* const weights = space_.weights.as<float>();
    parallel_for(chunks_.size(), threads_, [&](std::size_t c) {
        const Chunk& chunk = chunks_[c];
        const Plan& plan = plans_[chunk.table];
        const KeptFeature& feature = tables_[chunk.table].features[chunk.feature];
        const std::uint32_t mask = (1u << plan.group_bits) - 1, source = static_cast<std::uint32_t>(chunk.feature)
                                                                         << plan.bag_bits;
        std::size_t* const place = places[c].data();
        auto local = static_cast<std::uint32_t>(chunk.first_local);
        each_key(chunk, [&](std::int64_t i, std::uint32_t bag) {
            const std::uint32_t row = feature.rows[i];
            std::uint32_t low = source | bag;
            if (plan.weighted) {
                packed[plan.first_packed + local] = low;
                weights[plan.first_packed + local] = feature.weights == nullptr ? 1.0f : feature.weights[i];
                low = local++;
            }
            items[place[row & mask]++] = std::uint64_t{row} << 32 | low;
        });
    });
}

void Step::sort() {
    // Longest first, so that no thread is left with a long one at the end.
    std::stable_sort(groups_.begin(), groups_.end(),
                     [](const Group& a, const Group& b) { return a.end - a.begin > b.end - b.begin; });
    parallel_for(groups_.size(), threads_, [&](std::size_t g) {
        const Group& group = groups_[g];
        const Plan& plan = plans_[group.table];
        kernels_.sort(space_.items.as<std::uint64_t>() + group.begin, space_.scratch.as<std::uint64_t>() + group.begin,
                      group.end - group.begin, 32 + plan.group_bits, 32 + plan.row_bits);
    });
}

UpdateGroup Step::kernel_group(const Group& group, float scale) const {
    const Plan& plan = plans_[group.table];
    const KeptTable& table = tables_[group.table];
    const TableRows& rows = *table.rows;
    return {rows.arrays(),
            rows.weight_scale(),
            rows.config().dim,
            space_.items.as<std::uint64_t>() + group.begin,
            group.end - group.begin,
            plan.sources.data(),
            plan.counted,
            plan.bag_bits,
            plan.weighted ? space_.packed.as<std::uint32_t>() + plan.first_packed : nullptr,
            plan.weighted ? space_.weights.as<float>() + plan.first_packed : nullptr,
            table.first_row,
            scale,
            rows.cut(),
            table.now,
            rows.image(),
            space_.scratch.as<std::uint32_t>() + 2 * group.begin,
            StepRule{}};
}

double Step::norm() const {
    std::vector<unsigned __int128> sums(groups_.size(), 0);
    std::vector<char> finite(groups_.size(), 1);
    parallel_for(groups_.size(), threads_,
                 [&](std::size_t g) { finite[g] = kernels_.squares(kernel_group(groups_[g], 1.0f), sums[g]); });
    unsigned __int128 total = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
        if (!finite[g]) return std::numeric_limits<double>::infinity();
        total += sums[g];
    }
    return std::sqrt(static_cast<double>(total)) * 0x1p-30;
}

std::vector<UpdateCounts> Step::update(double factor, float scale) {
    std::vector<StepRule> rules;
    for (std::size_t t = 0; t < tables_.size(); ++t)
        rules.push_back(tables_[t].features.empty() ? StepRule{} : tables_[t].rows->next_step(factor));
    std::vector<UpdateCounts> by_group(groups_.size()), by_table(tables_.size());
    parallel_for(groups_.size(), threads_, [&](std::size_t g) {
        UpdateGroup group = kernel_group(groups_[g], scale);
        group.rule = rules[groups_[g].table];
        kernels_.update(group, by_group[g]);
    });
    for (std::size_t g = 0; g < groups_.size(); ++g) {
        by_table[groups_[g].table].rows += by_group[g].rows;
        by_table[groups_[g].table].refused += by_group[g].refused;
        const UpdateGroup group = kernel_group(groups_[g], scale);
        tables_[groups_[g].table].rows->note_touched(group.touched, by_group[g].touched);
    }
    return by_table;
}

}  // namespace embtables
