// The nanobind edge of ServedStore: checks sizes, drops the GIL, calls plain C++.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/binding_types.h"
#include "bindings/store_bindings.h"
#include "serve/served_store.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

constexpr std::size_t kManyKeys = 8192;  // about 0.2 ms

// Gives the GIL up for many keys alone: a thread that does may wait milliseconds to have it again.
class ReleasedForMany {
public:
    explicit ReleasedForMany(std::size_t keys) {
        if (keys >= kManyKeys) released_.emplace();
    }

private:
    std::optional<nb::gil_scoped_release> released_;
};

void make(ServedStore* self, const std::vector<ServedConfig>& tables, const std::vector<int>& feature_tables,
          const std::string& isa) {
    new (self) ServedStore(*kernels_of(isa_from_name(isa)).rows, tables, feature_tables);
}

void make_config(ServedConfig* self, int dim, std::uint64_t seed, std::uint64_t num_rows, std::uint32_t ttl_seconds) {
    need(dim >= 1 && dim <= 4096, "dim must be in 1..4096");
    need(num_rows < (std::uint64_t{1} << 32) - 1, "a table that is served holds at most 2^32 - 2 rows");
    new (self) ServedConfig{dim, seed, num_rows, ttl_seconds};
}

void pooled(const ServedStore& store, In<std::int32_t> features, In<std::int64_t> keys, In<std::int64_t> offsets,
            Weights weights, std::int64_t bags, int threads, OutMatrix out) {
    const LookupView view = view_of(store, features, offsets, weights, bags, keys.size());
    need(out.shape(0) == static_cast<std::size_t>(bags) && out.shape(1) == store.width(view),
         "out must be (bags, sum of the features' dims)");
    const ReleasedForMany released(keys.size());
    for (std::size_t i = 1; i < offsets.size(); ++i)
        need(view.offsets[i] >= view.offsets[i - 1], "offsets must not fall");
    store.pooled(view, keys.data(), threads, out.data());
}

std::size_t gather(const ServedStore& store, int table, In<std::int64_t> keys, int threads, OutMatrix out,
                   std::optional<Out<bool>> is_cold) {
    need(out.shape(0) == keys.size() && out.shape(1) == static_cast<std::size_t>(store.table(table).config().dim),
         "out must be (keys, dim)");
    need(!is_cold || is_cold->size() == keys.size(), "is_cold must be (keys,)");
    const ReleasedForMany released(keys.size());
    return store.gather(table, keys.data(), keys.size(), threads, out.data(), is_cold ? is_cold->data() : nullptr);
}

// The rows in a new bytes object: what a server sends needs no array around it.
nb::tuple gather_bytes(const ServedStore& store, int table, In<std::int64_t> keys) {
    const std::size_t size = keys.size() * static_cast<std::size_t>(store.table(table).config().dim) * sizeof(float);
    PyObject* made = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (made == nullptr) throw nb::python_error();
    nb::bytes rows = nb::steal<nb::bytes>(made);
    std::size_t cold = 0;
    {
        const ReleasedForMany released(keys.size());
        cold = store.gather(table, keys.data(), keys.size(), 1, reinterpret_cast<float*>(PyBytes_AS_STRING(made)), nullptr);
    }
    return nb::make_tuple(rows, cold);
}

void cold(const ServedStore& store, int table, In<std::int64_t> keys, Out<bool> is_cold) {
    need(is_cold.size() == keys.size(), "is_cold must be (keys,)");
    const ReleasedForMany released(keys.size());
    store.cold(table, keys.data(), keys.size(), is_cold.data());
}

void seen(const ServedStore& store, int table, In<std::int64_t> keys, Out<std::uint32_t> clocks) {
    need(clocks.size() == keys.size(), "clocks must be (keys,)");
    nb::gil_scoped_release released;
    store.seen(table, keys.data(), keys.size(), clocks.data());
}

void apply(const ServedStore& store, int table, In<std::int64_t> keys, In<float> weights,
           std::optional<In<std::uint32_t>> seen, In<std::int64_t> tombstones, Weights cold, std::uint32_t now, float scale,
           bool more) {
    ServedTable& of = store.table(table);
    const ServedConfig& config = of.config();
    const bool grows = config.num_rows == 0;
    need(weights.size() == keys.size() * static_cast<std::size_t>(config.dim), "weights must be (keys, dim)");
    need(!cold || cold->size() == static_cast<std::size_t>(config.dim), "a cold row has dim values");
    need(grows == seen.has_value() && (!seen || seen->size() == keys.size()),
         "a collisionless table needs a time for each key, a fixed one none");
    need(grows || (tombstones.size() == 0 && !cold), "a fixed table has neither tombstones nor a cold row");
    need(scale > 0.0f && scale <= 1.0f, "a scale must be in (0, 1]");
    const ServedChange change{keys.data(), weights.data(), seen ? seen->data() : nullptr, keys.size(),
                              tombstones.data(), tombstones.size(), cold ? cold->data() : nullptr, now, scale, more};
    nb::gil_scoped_release released;
    of.apply(change);
}

void reserve(const ServedStore& store, int table, std::uint64_t rows) {
    nb::gil_scoped_release released;
    store.table(table).reserve(rows);
}

nb::dict stats(const ServedStore& store, int table) {
    const ServedTable& of = store.table(table);
    nb::dict found;
    found["rows"] = of.num_rows();
    found["now"] = of.now();
    found["bytes"] = of.bytes();
    return found;
}

}  // namespace

void define_serve(nb::module_& module) {
    nb::class_<ServedConfig>(module, "ServedConfig")
        .def("__init__", &make_config, "dim"_a, "seed"_a, "num_rows"_a, "ttl_seconds"_a);
    nb::class_<ServedStore>(module, "ServedStore")
        .def("__init__", &make, "tables"_a, "feature_tables"_a, "isa"_a)
        .def("pooled", &pooled, "features"_a.noconvert(), "keys"_a.noconvert(), "offsets"_a.noconvert(),
             "weights"_a.noconvert().none(), "bags"_a, "threads"_a, "out"_a.noconvert())
        .def("gather", &gather, "table"_a, "keys"_a.noconvert(), "threads"_a, "out"_a.noconvert(),
             "is_cold"_a.noconvert().none())
        .def("gather_bytes", &gather_bytes, "table"_a, "keys"_a.noconvert())
        .def("cold", &cold, "table"_a, "keys"_a.noconvert(), "is_cold"_a.noconvert())
        .def("seen", &seen, "table"_a, "keys"_a.noconvert(), "clocks"_a.noconvert())
        .def("apply", &apply, "table"_a, "keys"_a.noconvert(), "weights"_a.noconvert(), "seen"_a.noconvert().none(),
             "tombstones"_a.noconvert(), "cold"_a.noconvert().none(), "now"_a, "scale"_a, "more"_a)
        .def("reserve", &reserve, "table"_a, "rows"_a)
        .def("stats", &stats, "table"_a);
}

}  // namespace embtables
