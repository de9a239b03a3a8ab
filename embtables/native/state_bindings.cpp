// The nanobind edge of what is saved and restored: keys in the order of files, rows for them, cuts, tombstones.
#include <nanobind/stl/vector.h>

#include "binding_types.h"
#include "bucket_order.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

nb::tuple tuple_of(KeyList&& found) {
    return nb::make_tuple(owned(std::move(found.keys)), owned(std::move(found.values)), owned(std::move(found.seen)),
                          owned(std::move(found.begins)));
}

nb::tuple list_rows(Store& store, int table, std::uint32_t after, int threads) {
    KeyList found;
    {
        nb::gil_scoped_release released;
        found = keys_of(store, table).list_rows(after, threads);
    }
    return tuple_of(std::move(found));
}

nb::tuple list_waiting(Store& store, int table, int threads) {
    KeyList found;
    {
        nb::gil_scoped_release released;
        found = keys_of(store, table).list_waiting(threads);
    }
    return tuple_of(std::move(found));
}

void mark(Store& store, int table, In<std::uint32_t> rows) {
    for (std::size_t i = 0; i < rows.size(); ++i)
        need(rows.data()[i] < store.num_rows(table), "a row is outside the table");
    store.mark(table, rows.data(), rows.size());
}

// Marks rows that were written though nothing saw them.
void mark_written(Store& store, int table, In<std::uint32_t> rows) {
    mark(store, table, rows);
    if (Collisionless* const keys = store.keys(table)) keys->cut_log().note_written();
}

void place(Store& store, int table, In<std::int64_t> keys, In<std::uint32_t> seen, int threads,
           Out<std::uint32_t> rows) {
    need(keys.size() == seen.size() && keys.size() == rows.size(), "keys, times and rows must be of one length");
    nb::gil_scoped_release released;
    keys_of(store, table).place(keys.data(), seen.data(), keys.size(), threads, rows.data());
}

void set_waiting(Store& store, int table, In<std::int64_t> keys, In<std::uint32_t> counts, In<std::uint32_t> seen) {
    need(keys.size() == seen.size() && keys.size() == counts.size(), "keys, counts and times must be of one length");
    nb::gil_scoped_release released;
    keys_of(store, table).set_waiting(keys.data(), counts.data(), seen.data(), keys.size());
}

void remove(Store& store, int table, In<std::int64_t> keys) {
    nb::gil_scoped_release released;
    Collisionless& of = keys_of(store, table);
    for (std::size_t i = 0; i < keys.size(); ++i) of.remove(keys.data()[i]);
}

void make(Store& store, int table, In<std::int64_t> keys) {
    nb::gil_scoped_release released;
    store.make(table, keys.data(), keys.size());
}

void make_fresh(Store& store, int table, In<std::uint32_t> rows) {
    for (std::size_t i = 0; i < rows.size(); ++i)
        need(rows.data()[i] < store.num_rows(table), "a row is outside the table");
    store.make_fresh(table, rows.data(), rows.size());
}

template <typename A, typename F>
void each_count(Store& store, int table, const In<std::uint32_t>& rows, const A& counts, F&& f) {
    need(counts.size() == rows.size(), "as many counts as rows are needed");
    RowMeta* const meta = store.rows(table).meta();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        need(rows.data()[i] < store.num_rows(table), "a row is outside the table");
        f(meta[rows.data()[i]].count, i);
    }
}

void read_counts(Store& store, int table, In<std::uint32_t> rows, Out<std::uint32_t> out) {
    each_count(store, table, rows, out, [&](std::uint32_t count, std::size_t i) { out.data()[i] = count; });
}

void write_counts(Store& store, int table, In<std::uint32_t> rows, In<std::uint32_t> counts) {
    each_count(store, table, rows, counts, [&](std::uint32_t& count, std::size_t i) { count = counts.data()[i]; });
}

nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<1>> order_of(In<std::int64_t> keys, std::uint64_t seed, int threads) {
    need(keys.size() < (std::size_t{1} << 32), "at most 2^32 keys");
    std::vector<std::uint32_t> order(keys.size());
    {
        nb::gil_scoped_release released;
        bucket_order(keys.data(), keys.size(), seed, threads, order.data());
    }
    return owned(std::move(order));
}

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> sketch(Store& store, int table) {
    const CountSketch* const counts = keys_of(store, table).sketch();
    std::vector<std::uint8_t> saved(counts == nullptr ? 0 : counts->bytes());
    if (counts != nullptr) counts->save(saved.data());
    return owned(std::move(saved));
}

void set_sketch(Store& store, int table, In<std::uint8_t> saved) {
    CountSketch* const counts = keys_of(store, table).sketch();
    need(saved.size() == (counts == nullptr ? 0 : counts->bytes()),
         "the saved table counted its waiting keys otherwise: admission has changed");
    if (counts != nullptr) counts->restore(saved.data());
}

}  // namespace

void define_state(nb::module_& module, nb::class_<Store>& store) {
    module.def("bucket_order", &order_of, "keys"_a.noconvert(), "seed"_a, "threads"_a);
    store
        .def("remove", &remove, "table"_a, "keys"_a.noconvert())
        .def("clear", &Store::clear, "table"_a)
        .def("make", &make, "table"_a, "keys"_a.noconvert())
        .def("make_fresh", &make_fresh, "table"_a, "rows"_a.noconvert())
        .def("place", &place, "table"_a, "keys"_a.noconvert(), "seen"_a.noconvert(), "threads"_a,
             "rows"_a.noconvert())
        .def("set_waiting", &set_waiting, "table"_a, "keys"_a.noconvert(), "counts"_a.noconvert(),
             "seen"_a.noconvert())
        .def("set_clock",
             [](Store& store, int table, std::uint32_t now, std::uint64_t steps) {
                 keys_of(store, table).set_clock(now, steps);
             },
             "table"_a, "now"_a, "steps"_a)
        .def("read_counts", &read_counts, "table"_a, "rows"_a.noconvert(), "out"_a.noconvert())
        .def("write_counts", &write_counts, "table"_a, "rows"_a.noconvert(), "counts"_a.noconvert())
        .def("list_rows", &list_rows, "table"_a, "after"_a, "threads"_a)
        .def("list_waiting", &list_waiting, "table"_a, "threads"_a)
        .def("draw_cut", &Store::draw_cut)
        .def("mark", &mark, "table"_a, "rows"_a.noconvert())
        .def("mark_written", &mark_written, "table"_a, "rows"_a.noconvert())
        .def("changed_rows",
             [](Store& store, int table, std::uint32_t after) { return owned(store.changed_rows(table, after)); },
             "table"_a, "after"_a)
        .def("tombstones",
             [](Store& store, int table, std::uint32_t after) {
                 return owned(keys_of(store, table).cut_log().since(after));
             },
             "table"_a, "after"_a)
        .def("forget_tombstones",
             [](Store& store, int table, std::uint32_t cut) { keys_of(store, table).cut_log().forget(cut); },
             "table"_a, "cut"_a)
        .def("sketch", &sketch, "table"_a)
        .def("set_sketch", &set_sketch, "table"_a, "saved"_a.noconvert());
}

}  // namespace embtables
