// The nanobind edge of KeyExchange: checks sizes, drops the GIL, calls plain C++.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>

#include "base/isa.h"
#include "bindings/binding_types.h"
#include "bindings/store_bindings.h"
#include "exchange/key_exchange.h"
#include "exchange/key_message.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

using Weights = std::optional<In<float>>;

LookupView view_of(const KeyExchange& self, const In<std::int64_t>& offsets, const Weights& weights,
                   std::int64_t bags) {
    need(bags >= 0 && offsets.size() == self.num_features() * static_cast<std::size_t>(bags) + 1,
         "F features of B bags need F * B + 1 offsets");
    const auto last = static_cast<std::size_t>(offsets.data()[offsets.size() - 1]);
    need(offsets.data()[0] == 0 && last == self.num_occurrences(), "these are the offsets of another lookup");
    need(!weights || weights->size() == self.num_occurrences(), "as many weights as keys are needed");
    return {nullptr, self.num_features(), self.num_features(), offsets.data(), weights ? weights->data() : nullptr, bags};
}

void make(KeyExchange* self, In<std::uint64_t> seeds, In<std::int32_t> dims, In<std::int32_t> block_of_feature,
          In<std::int64_t> keys, In<std::int64_t> offsets, std::int64_t bags, In<std::uint16_t> owners,
          In<std::int32_t> holders, int ranks, int header, int threads, const std::string& isa) {
    need(seeds.size() == dims.size() && holders.size() == dims.size() && dims.size() >= 1,
         "every block needs a seed, a dim and a holder");
    need(bags >= 0 && offsets.size() == block_of_feature.size() * static_cast<std::size_t>(bags) + 1,
         "F features of B bags need F * B + 1 offsets");
    need(offsets.data()[0] == 0 && offsets.data()[offsets.size() - 1] == static_cast<std::int64_t>(keys.size()),
         "offsets must begin at 0 and end at the number of keys");
    need(owners.size() == kNumBuckets && ranks >= 1 && header >= 0, "every bucket needs an owner");
    for (std::size_t i = 0; i < owners.size(); ++i) need(owners.data()[i] < ranks, "no such rank");
    for (std::size_t i = 0; i < block_of_feature.size(); ++i)
        need(block_of_feature.data()[i] >= 0 && static_cast<std::size_t>(block_of_feature.data()[i]) < dims.size(),
             "no such block");
    std::vector<ExchangeBlock> blocks;
    for (std::size_t i = 0; i < dims.size(); ++i) {
        need(dims.data()[i] >= 1 && dims.data()[i] <= 4096, "dim must be in 1..4096");
        need(holders.data()[i] < ranks, "no such rank");
        blocks.push_back({seeds.data()[i], dims.data()[i], holders.data()[i]});
    }
    const RowKernels& kernels = *kernels_of(isa_from_name(isa)).rows;
    nb::gil_scoped_release released;
    for (std::size_t i = 1; i < offsets.size(); ++i)
        need(offsets.data()[i] >= offsets.data()[i - 1], "offsets must not fall");
    const std::size_t features = block_of_feature.size();
    const LookupView lookup{nullptr, features, features, offsets.data(), nullptr, bags};
    new (self) KeyExchange(kernels, std::move(blocks), lookup, block_of_feature.data(), keys.data(), owners.data(), ranks,
                           header, threads);
}

void need_rows(const KeyExchange& self, std::size_t floats) {
    need(floats == self.num_floats(), "the message is as long as num_floats");
}

void pooled(const KeyExchange& self, In<float> rows, In<std::int64_t> offsets, Weights weights, std::int64_t bags,
            int threads, OutMatrix out) {
    const LookupView lookup = view_of(self, offsets, weights, bags);
    need_rows(self, rows.size());
    need(out.shape(0) == static_cast<std::size_t>(bags) && out.shape(1) == self.width(), "out must be (bags, width)");
    nb::gil_scoped_release released;
    self.pooled(rows.data(), lookup, threads, out.data());
}

void gather(const KeyExchange& self, In<float> rows, std::size_t feature, int threads, OutMatrix out) {
    need_rows(self, rows.size());
    need(feature < self.num_features() && out.shape(0) == static_cast<std::size_t>(self.size(feature)) &&
             out.shape(1) == static_cast<std::size_t>(self.dim(feature)),
         "out must be (keys of the feature, dim)");
    nb::gil_scoped_release released;
    self.gather(rows.data(), feature, threads, out.data());
}

void dots(const KeyExchange& self, In<float> rows, In<std::int64_t> offsets, std::int64_t bags, Matrix gradient,
          int threads, Out<float> out) {
    const LookupView lookup = view_of(self, offsets, std::nullopt, bags);
    need_rows(self, rows.size());
    need(gradient.shape(0) == static_cast<std::size_t>(bags) && gradient.shape(1) == self.width() &&
             out.size() == self.num_occurrences(),
         "the gradient must be (bags, width), out as long as the keys");
    nb::gil_scoped_release released;
    self.dots(rows.data(), lookup, gradient.data(), threads, out.data());
}

void sum_pooled(const KeyExchange& self, Matrix gradient, In<std::int64_t> offsets, Weights weights, std::int64_t bags,
                int threads, Out<float> rows) {
    const LookupView lookup = view_of(self, offsets, weights, bags);
    need_rows(self, rows.size());
    need(gradient.shape(0) == static_cast<std::size_t>(bags) && gradient.shape(1) == self.width(),
         "the gradient must be (bags, width)");
    nb::gil_scoped_release released;
    self.sum_pooled(gradient.data(), lookup, threads, rows.data());
}

void sum_gathered(const KeyExchange& self, const std::vector<std::optional<Matrix>>& gradients, int threads,
                  Out<float> rows) {
    need_rows(self, rows.size());
    need(gradients.size() == self.num_features() && self.num_blocks() == self.num_features(),
         "every feature is a block of its own, and has a gradient or none");
    std::vector<const float*> pointers;
    for (std::size_t s = 0; s < gradients.size(); ++s) {
        need(!gradients[s] || (gradients[s]->shape(0) == static_cast<std::size_t>(self.size(s)) &&
                               gradients[s]->shape(1) == static_cast<std::size_t>(self.dim(s))),
             "gradients must be (keys of the feature, dim)");
        pointers.push_back(gradients[s] ? gradients[s]->data() : nullptr);
    }
    nb::gil_scoped_release released;
    self.sum_gathered(pointers, threads, rows.data());
}

auto asked(const KeyExchange& self, bool counted) {
    std::vector<std::int32_t> words;
    {
        nb::gil_scoped_release released;
        words = key_message(self, counted);
    }
    return owned(std::move(words));
}

nb::tuple by_block(In<std::int32_t> message, In<std::int64_t> sizes, std::size_t ranks, bool counted) {
    need(ranks >= 1 && sizes.size() % ranks == 0, "every rank has as many blocks");
    std::size_t all = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        need(sizes.data()[i] >= 0, "sizes are not below 0");
        all += static_cast<std::size_t>(sizes.data()[i]);
    }
    need(all * words_of_key(counted) == message.size(), "sizes must add up to the keys of the message");
    KeysByBlock found;
    {
        nb::gil_scoped_release released;
        found = keys_by_block(message.data(), sizes.data(), ranks, sizes.size() / ranks, counted);
    }
    return nb::make_tuple(owned(std::move(found.keys)), owned(std::move(found.counts)));
}

// Memory for messages, used again once Python has let go of it.
struct Buffers {
    std::shared_ptr<OutputPool> pool = std::make_shared<OutputPool>();
};

nb::ndarray<nb::numpy, float, nb::ndim<1>> take(const Buffers& self, std::size_t floats) {
    struct Held {
        std::shared_ptr<OutputPool> pool;
        Region region;
    };
    need(floats <= std::size_t{1} << 44, "the message is too large");
    auto held = std::make_unique<Held>(Held{self.pool, self.pool->take(floats * sizeof(float) + 1)});
    auto* const data = held->region.as<float>();
    nb::capsule owner(held.release(), [](void* p) noexcept {
        const std::unique_ptr<Held> done(static_cast<Held*>(p));
        done->pool->give(std::move(done->region));
    });
    return {data, {floats}, owner};
}

// Sums by row: of row r, sums(r, :) holds a gradient and then how often the row occurred.
void add_rows(OutMatrix sums, In<std::int64_t> keys, In<std::int32_t> counts, Matrix gradient) {
    const std::size_t rows = sums.shape(0), dim = gradient.shape(1);
    need(sums.shape(1) == dim + 1 && keys.size() == gradient.shape(0) && counts.size() == keys.size(),
         "every key needs a count and a gradient as wide as the sums");
    for (std::size_t i = 0; i < keys.size(); ++i)
        need(static_cast<std::uint64_t>(keys.data()[i]) < rows, "no such row");
    nb::gil_scoped_release released;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        float* const to = sums.data() + static_cast<std::size_t>(keys.data()[i]) * (dim + 1);
        const float* const from = gradient.data() + i * dim;
        for (std::size_t d = 0; d < dim; ++d) to[d] += from[d];
        to[dim] += static_cast<float>(counts.data()[i]);
    }
}

// Those of the rows that occurred: their keys, ascending, counts and, after each other, gradients.
auto used_rows(Matrix sums) {
    const std::size_t dim = sums.shape(1) - 1;
    std::vector<std::int64_t> keys;
    std::vector<std::int32_t> counts;
    std::vector<float> gradients;
    for (std::size_t r = 0; r < sums.shape(0); ++r) {
        const float* const row = sums.data() + r * (dim + 1);
        if (row[dim] == 0.0f) continue;
        keys.push_back(static_cast<std::int64_t>(r));
        counts.push_back(static_cast<std::int32_t>(row[dim]));
        gradients.insert(gradients.end(), row, row + dim);
    }
    return nb::make_tuple(owned(std::move(keys)), owned(std::move(counts)), owned(std::move(gradients)));
}

}  // namespace

void define_exchange(nb::module_& module) {
    module.def("add_rows", &add_rows, "sums"_a.noconvert(), "keys"_a.noconvert(), "counts"_a.noconvert(),
               "gradient"_a.noconvert());
    module.def("used_rows", &used_rows, "sums"_a.noconvert());
    module.def("words_of_key", &words_of_key, "counted"_a);
    module.def("by_block", &by_block, "message"_a.noconvert(), "sizes"_a.noconvert(), "ranks"_a, "counted"_a);
    nb::class_<Buffers>(module, "Buffers").def(nb::init<>()).def("take", &take, "floats"_a);
    nb::class_<KeyExchange>(module, "KeyExchange")
        .def("__init__", &make, "seeds"_a.noconvert(), "dims"_a.noconvert(), "block_of_feature"_a.noconvert(),
             "keys"_a.noconvert(), "offsets"_a.noconvert(), "bags"_a, "owners"_a.noconvert(),
             "holders"_a.noconvert(), "ranks"_a, "header"_a, "threads"_a, "isa"_a)
        .def("asked", &asked, "counted"_a)
        .def("sizes", [](const KeyExchange& self) { return owned(std::vector<std::int64_t>(self.sizes())); })
        .def_prop_ro("num_floats", &KeyExchange::num_floats)
        .def("pooled", &pooled, "rows"_a.noconvert(), "offsets"_a.noconvert(), "weights"_a.noconvert().none(),
             "bags"_a, "threads"_a, "out"_a.noconvert())
        .def("gather", &gather, "rows"_a.noconvert(), "feature"_a, "threads"_a, "out"_a.noconvert())
        .def("dots", &dots, "rows"_a.noconvert(), "offsets"_a.noconvert(), "bags"_a, "gradient"_a.noconvert(),
             "threads"_a, "out"_a.noconvert())
        .def("sum_pooled", &sum_pooled, "gradient"_a.noconvert(), "offsets"_a.noconvert(),
             "weights"_a.noconvert().none(), "bags"_a, "threads"_a, "rows"_a.noconvert())
        .def("sum_gathered", &sum_gathered, "gradients"_a, "threads"_a, "rows"_a.noconvert());
}

}  // namespace embtables
