// The nanobind edge of Store: checks sizes, drops the GIL, calls plain C++.
#include "bindings/store_bindings.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>

#include "base/isa.h"
#include "bindings/binding_types.h"
#include "rows/row_columns.h"
#include "rows/rules.h"
#include "store/store.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

using Counts = std::optional<In<std::int32_t>>;
// features, rows of the keys, offsets, weights, number of bags, gradient (bags, width)
using KeptBags = std::tuple<In<std::int32_t>, In<std::uint32_t>, In<std::int64_t>, Weights, std::int64_t, Matrix>;
// features, rows of the keys, bounds and places of the segments, message with gradients, occurrences each of them stands for
using KeptMessage = std::tuple<In<std::int32_t>, In<std::uint32_t>, In<std::int64_t>, In<std::int64_t>, In<float>, Counts>;
using Kept = std::variant<KeptBags, KeptMessage>;

SegmentsView segments_of(const Store& store, const In<std::int32_t>& features, const In<std::int64_t>& bounds,
                         const In<std::int64_t>& places, std::size_t keys, std::size_t floats) {
    need(features.size() >= 1 && places.size() % features.size() == 0 && bounds.size() == places.size() + 1,
         "S segments, as many of each feature, need S places and S + 1 bounds");
    const SegmentsView view{features.data(), features.size(), places.size() / features.size(), bounds.data(), places.data()};
    need(view.bounds[0] == 0 && view.bounds[places.size()] == static_cast<std::int64_t>(keys),
         "bounds must begin at 0 and end at the number of keys");
    for (std::size_t i = 0; i < places.size(); ++i) {
        const std::int64_t n = view.bounds[i + 1] - view.bounds[i];
        need(n >= 0, "bounds must not fall");
        const int dim = store.config(store.table_of(view.features[i / view.per_feature])).dim;
        need(view.places[i] < 0 || view.places[i] + n * dim <= static_cast<std::int64_t>(floats),
             "a segment's rows must lie within the message");
    }
    return view;
}

KeptGradients view_of(const Store& store, const KeptBags& kept) {
    const auto& [features, rows, offsets, weights, bags, gradient] = kept;
    const LookupView view = view_of(store, features, offsets, weights, bags, rows.size());
    need(gradient.shape(0) == static_cast<std::size_t>(bags) && gradient.shape(1) == store.width(view),
         "the gradient must be (bags, sum of the features' dims)");
    return KeptLookup{view, rows.data(), gradient.data()};
}

KeptGradients view_of(const Store& store, const KeptMessage& kept) {
    const auto& [features, rows, bounds, places, message, times] = kept;
    need(!times || times->size() == rows.size(), "times are of the keys");
    return KeptSegments{segments_of(store, features, bounds, places, rows.size(), message.size()), rows.data(),
                        message.data(), times ? times->data() : nullptr};
}

std::vector<KeptGradients> views_of(const Store& store, const std::vector<Kept>& kept) {
    std::vector<KeptGradients> found;
    for (const Kept& k : kept)
        found.push_back(std::visit([&](const auto& one) { return view_of(store, one); }, k));
    return found;
}

void resolve(Store& store, In<std::int32_t> features, In<std::int64_t> keys, In<std::int64_t> offsets, std::int64_t bags,
             bool train, int threads, Out<std::uint32_t> rows, Counts counts) {
    need(rows.size() == keys.size() && (!counts || counts->size() == keys.size()),
         "as many rows and counts as keys are needed");
    LookupView view = view_of(store, features, offsets, std::nullopt, bags, keys.size());
    need(view.num_features == view.num_lists, "a feature for each list of keys is needed");
    view.counts = counts ? counts->data() : nullptr;
    nb::gil_scoped_release released;
    for (std::size_t i = 0; view.counts != nullptr && i < keys.size(); ++i)
        need(view.counts[i] >= 1, "a key occurs at least once");
    for (std::size_t i = 1; i < offsets.size(); ++i)
        need(view.offsets[i] >= view.offsets[i - 1], "offsets must not fall");
    const Turns::Turn turn(store.turns());
    store.resolve(view, keys.data(), train, threads, rows.data());
}

void pooled(const Store& store, In<std::int32_t> features, In<std::uint32_t> rows, In<std::int64_t> offsets,
            Weights weights, std::int64_t bags, int threads, OutMatrix out) {
    const LookupView view = view_of(store, features, offsets, weights, bags, rows.size());
    need(out.shape(0) == static_cast<std::size_t>(bags) && out.shape(1) == store.width(view),
         "out must be (bags, sum of the features' dims)");
    nb::gil_scoped_release released;
    store.pooled(view, rows.data(), threads, out.data());
}

// An uninitialised (rows, width) array whose memory goes back to the store's pool.
nb::ndarray<nb::numpy, float, nb::ndim<2>> output(const Store& store, std::size_t rows, std::size_t width) {
    struct Held {
        std::shared_ptr<OutputPool> pool;
        Region region;
    };
    need(width == 0 || rows <= (std::size_t{1} << 46) / sizeof(float) / width, "the output is too large");
    auto held = std::make_unique<Held>(Held{store.outputs(), store.outputs()->take(rows * width * sizeof(float) + 1)});
    auto* const data = held->region.as<float>();
    nb::capsule owner(held.release(), [](void* p) noexcept {
        const std::unique_ptr<Held> done(static_cast<Held*>(p));
        done->pool->give(std::move(done->region));
    });
    return {data, {rows, width}, owner};
}

void dots(const Store& store, In<std::int32_t> features, In<std::uint32_t> rows, In<std::int64_t> offsets,
          std::int64_t bags, Matrix gradient, int threads, Out<float> out) {
    const LookupView view = view_of(store, features, offsets, std::nullopt, bags, rows.size());
    need(view.num_features == view.num_lists && gradient.shape(0) == static_cast<std::size_t>(bags) &&
             gradient.shape(1) == store.width(view) && out.size() == rows.size(),
         "the gradient must be (bags, sum of the features' dims), out as long as rows");
    nb::gil_scoped_release released;
    store.dots(view, rows.data(), gradient.data(), threads, out.data());
}

void gather(const Store& store, In<std::int32_t> features, In<std::uint32_t> rows, In<std::int64_t> bounds,
                    In<std::int64_t> places, int threads, Out<float> message) {
    const SegmentsView view = segments_of(store, features, bounds, places, rows.size(), message.size());
    for (std::size_t i = 0; i < places.size(); ++i) need(view.places[i] >= 0, "every segment needs a place");
    nb::gil_scoped_release released;
    store.gather(view, rows.data(), threads, message.data());
}

double gradient_norm(Store& store, const std::vector<Kept>& kept, int threads) {
    const std::vector<KeptGradients> views = views_of(store, kept);
    nb::gil_scoped_release released;
    return store.gradient_norm(views, threads);
}

std::vector<std::tuple<std::uint64_t, std::uint64_t>> update(Store& store, const std::vector<Kept>& kept, double factor,
                                                             float scale, int threads) {
    const std::vector<KeptGradients> views = views_of(store, kept);
    std::vector<UpdateCounts> counts;
    {
        nb::gil_scoped_release released;
        const Turns::Turn turn(store.turns());
        counts = store.update(views, factor, scale, threads);
    }
    std::vector<std::tuple<std::uint64_t, std::uint64_t>> found;
    for (const UpdateCounts& c : counts) found.emplace_back(c.rows, c.refused);
    return found;
}

void need_rows(const Store& store, int table, const In<std::uint32_t>& rows) {
    const std::uint64_t most = store.num_rows(table);
    for (std::size_t i = 0; i < rows.size(); ++i) need(rows.data()[i] < most, "a row is outside the table");
}

void read(Store& store, int table, int column, In<std::uint32_t> rows, int threads, Out<float> out) {
    const TableRows& t = store.rows(table);
    const std::size_t width = t.width_of(static_cast<Column>(column));
    need(out.size() == rows.size() * width, "values must be (rows, values per row)");
    nb::gil_scoped_release released;
    need_rows(store, table, rows);
    each_row(t.arrays(), column, rows.data(), rows.size(), threads, [&](const float* from, std::size_t i) {
        std::memcpy(out.data() + i * width, from, width * sizeof(float));
    });
}

void write(Store& store, int table, int column, In<std::uint32_t> rows, int threads, In<float> values) {
    TableRows& t = store.rows(table);
    const std::size_t width = t.width_of(static_cast<Column>(column));
    need(values.size() == rows.size() * width, "values must be (rows, values per row)");
    nb::gil_scoped_release released;
    need_rows(store, table, rows);
    const Turns::Turn turn(store.turns());
    t.touch(rows.data(), rows.size(), threads);
    each_row(t.arrays(), column, rows.data(), rows.size(), threads, [&](float* to, std::size_t i) {
        std::memcpy(to, values.data() + i * width, width * sizeof(float));
    });
}

// Rows of keys for reading: those of a collisionless table that have none read row 0.
void find(Store& store, int table, In<std::int64_t> keys, int threads, Out<std::uint32_t> rows) {
    need(rows.size() == keys.size(), "as many rows as keys are needed");
    nb::gil_scoped_release released;
    store.find(table, keys.data(), keys.size(), threads, rows.data());
}

nb::dict stats(Store& store, int table) {
    nb::dict found;
    const TableRows& rows = store.rows(table);
    found["row_bytes"] = rows.row_bytes();
    found["stride"] = rows.stride();
    const Collisionless* const keys = store.keys(table);
    if (store.index(table) != nullptr) {
        found["rows"] = store.num_rows(table);
        found["index_bytes"] = store.leads(table) ? store.index(table)->bytes() : 0;
    }
    if (keys == nullptr) return found;
    const KeyCounts& c = keys->counts();
    found["rows"] = keys->num_rows();
    found["waiting"] = keys->num_waiting();
    found["rows_in_use"] = keys->rows_in_use();
    found["map_bytes"] = store.leads(table) ? keys->map_bytes() : 0;
    found["map_entries"] = keys->map_entries();
    found["sketch_bytes"] = keys->sketch() == nullptr || !store.leads(table) ? 0 : keys->sketch()->bytes();
    found["now"] = keys->now();
    found["steps"] = keys->steps();
    found["admitted"] = c.admitted;
    found["expired"] = c.expired;
    found["evicted"] = c.evicted;
    found["deleted"] = c.deleted;
    found["waiting_expired"] = c.waiting_expired;
    found["waiting_evicted"] = c.waiting_evicted;
    found["cold_reads"] = c.cold_reads;
    found["surplus"] = c.surplus;
    return found;
}

void make_spec(TableSpec* self, int dim, std::uint64_t num_rows, int rule, double rate, float eps, float weight_decay,
               double beta1, double beta2, int initial, float initial_a, float initial_b, std::uint64_t seed) {
    need(dim >= 1 && dim <= 4096, "dim must be in 1..4096");
    need(num_rows < (std::uint64_t{1} << 32), "a fixed table holds at most 2^32 - 1 rows");
    need(rule >= 0 && rule < kNumRules && initial >= 0 && initial <= 3, "no such optimizer or initializer");
    const InitialRow row{static_cast<Initial>(initial), seed, initial_a, initial_b};
    new (self) TableSpec{{dim, row, {static_cast<Rule>(rule), rate, beta1, beta2, eps, weight_decay}},
                         num_rows,
                         std::nullopt,
                         false,
                         {}};
}

nb::dict table_bytes(const TableSpec& spec, std::uint64_t rows, std::uint64_t waiting) {
    const TableBytes bytes = bytes_of(spec, rows, waiting);
    nb::dict found;
    found["row"] = bytes.row;
    found["rows"] = bytes.rows;
    found["keys"] = bytes.keys;
    found["counts"] = bytes.counts;
    found["listed"] = bytes.listed;
    return found;
}

void set_part(TableSpec& spec, std::uint32_t first, std::uint32_t end) {
    need(first < end && end <= kNumBuckets, "buckets must be a range of 0..1023");
    spec.buckets = {first, end};
}

void set_keys_of(TableSpec& spec, int table) {
    need(table >= 0, "a table shares the keys of one before it");
    spec.keys_of = table;
}

void set_policy(TableSpec& spec, std::uint32_t min_count, double probability, std::uint64_t max_waiting,
                bool sketch, std::uint32_t ttl_seconds, std::uint64_t max_rows, bool cold_row_learns) {
    need(min_count >= 1 && min_count <= 0xFFFF, "min_count must be in 1..65535");
    spec.policy = Policy{spec.config.initial.seed, min_count, probability, max_waiting, sketch, ttl_seconds, max_rows};
    spec.cold_row_learns = cold_row_learns;
}

}  // namespace

Kernels kernels_of(Isa isa) {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::avx2: return {&avx2::row_kernels, avx2::find_rows, avx2::rank_rows};
        case Isa::avx512: return {&avx512::row_kernels, avx512::find_rows, avx512::rank_rows};
#endif
        default: return {&scalar::row_kernels, scalar::find_rows, scalar::rank_rows};
    }
}

void define_store(nb::module_& module) {
    module.def(
        "stride_of",
        [](int dim) {
            need(dim >= 1 && dim <= 4096, "dim must be in 1..4096");
            return stride_of(dim);
        },
        "dim"_a);
    nb::class_<TableSpec>(module, "TableSpec")
        .def("__init__", &make_spec, "dim"_a, "num_rows"_a, "rule"_a, "rate"_a, "eps"_a, "weight_decay"_a, "beta1"_a,
             "beta2"_a, "initial"_a, "initial_a"_a, "initial_b"_a, "seed"_a)
        .def("set_policy", &set_policy, "min_count"_a, "probability"_a, "max_waiting"_a, "sketch"_a, "ttl_seconds"_a, "max_rows"_a,
             "cold_row_learns"_a)
        .def("set_part", &set_part, "first"_a, "end"_a)
        .def("set_keys_of", &set_keys_of, "table"_a);
    module.def("table_bytes", &table_bytes, "spec"_a, "rows"_a, "waiting"_a);
    nb::class_<Store> store(module, "Store");
    store
        .def(
            "__init__",
            [](Store* self, const std::vector<TableSpec>& tables, const std::vector<int>& feature_tables,
               const std::string& isa, int threads) {
                for (int t : feature_tables)
                    need(t >= 0 && static_cast<std::size_t>(t) < tables.size(), "a feature names no table");
                new (self) Store(kernels_of(isa_from_name(isa)), tables, feature_tables, threads);
            },
            "tables"_a, "feature_tables"_a, "isa"_a, "threads"_a)
        .def("resolve", &resolve, "features"_a.noconvert(), "keys"_a.noconvert(), "offsets"_a.noconvert(), "bags"_a,
             "train"_a, "threads"_a, "rows"_a.noconvert(), "counts"_a.noconvert() = nb::none())
        .def("find", &find, "table"_a, "keys"_a.noconvert(), "threads"_a, "rows"_a.noconvert())
        .def("output", &output, "rows"_a, "width"_a)
        .def("pooled", &pooled, "features"_a.noconvert(), "rows"_a.noconvert(), "offsets"_a.noconvert(),
             "weights"_a.noconvert().none(), "bags"_a, "threads"_a, "out"_a.noconvert())
        .def("dots", &dots, "features"_a.noconvert(), "rows"_a.noconvert(), "offsets"_a.noconvert(), "bags"_a,
             "gradient"_a.noconvert(), "threads"_a, "out"_a.noconvert())
        .def("gather", &gather, "features"_a.noconvert(), "rows"_a.noconvert(), "bounds"_a.noconvert(),
             "places"_a.noconvert(), "threads"_a, "message"_a.noconvert())
        .def("gradient_norm", &gradient_norm, "kept"_a, "threads"_a)
        .def("update", &update, "kept"_a, "factor"_a, "scale"_a, "threads"_a)
        .def("read", &read, "table"_a, "column"_a, "rows"_a.noconvert(), "threads"_a, "out"_a.noconvert())
        .def("write", &write, "table"_a, "column"_a, "rows"_a.noconvert(), "threads"_a, "values"_a.noconvert())
        .def("scale", [](Store& store, int table) { return store.rows(table).scale(); }, "table"_a)
        .def("set_scale",
             [](Store& store, int table, double scale) {
                 need(scale > 0.0 && scale <= 1.0, "a scale must be in (0, 1]");
                 const Turns::Turn turn(store.turns());
                 store.rows(table).set_scale(scale);
             },
             "table"_a, "scale"_a)
        .def("fold_scale",
             [](Store& store, int table, int threads) {
                 nb::gil_scoped_release released;
                 const Turns::Turn turn(store.turns());
                 store.rows(table).fold_scale(store.num_rows(table), threads);
             },
             "table"_a, "threads"_a)
        .def("num_steps", [](Store& store, int table) { return store.rows(table).steps(); }, "table"_a)
        .def("set_num_steps",
             [](Store& store, int table, std::uint64_t steps) { store.rows(table).set_steps(steps); }, "table"_a,
             "steps"_a)
        .def("advance", [](Store& store, int table, std::uint32_t now) { keys_of(store, table).advance(now); },
             "table"_a, "now"_a)
        .def("end_step",
             [](Store& store, int table, int threads) {
                 nb::gil_scoped_release released;
                 const Turns::Turn turn(store.turns());
                 keys_of(store, table).end_step(threads);
             },
             "table"_a, "threads"_a)
        .def("stats", &stats, "table"_a);
    define_state(module, store);
    define_parts(store);
}

}  // namespace embtables
