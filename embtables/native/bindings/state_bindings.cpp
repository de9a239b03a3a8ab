// The nanobind edge of what is saved and restored: keys in the order of files, rows for them, cuts, tombstones.
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "bindings/binding_types.h"
#include "rows/bucket_order.h"
#include "rows/row_image.h"
#include "rows/row_columns.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

nb::tuple tuple_of(KeyList&& found) {
    return nb::make_tuple(owned(std::move(found.keys)), owned(std::move(found.values)), owned(std::move(found.seen)),
                          owned(std::move(found.begins)));
}

nb::tuple listed_rows(Store& store, int table, std::uint32_t after, int threads) {
    KeyList found;
    {
        nb::gil_scoped_release released;
        found = store.list_rows(table, after, threads);
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

void need_rows(Store& store, int table, const In<std::uint32_t>& rows) {
    const std::uint64_t most = store.num_rows(table);
    for (std::size_t i = 0; i < rows.size(); ++i) need(rows.data()[i] < most, "a row is outside the table");
}

void see(Store& store, int table, In<std::uint32_t> rows) {
    need_rows(store, table, rows);
    const Turns::Turn turn(store.turns());
    store.see(table, rows.data(), rows.size());
}

void place(Store& store, int table, In<std::int64_t> keys, In<std::uint32_t> seen, int threads,
           Out<std::uint32_t> rows) {
    need(keys.size() == seen.size() && keys.size() == rows.size(), "keys, times and rows must be of one length");
    nb::gil_scoped_release released;
    const Turns::Turn turn(store.turns());
    keys_of(store, table);
    store.place(table, keys.data(), seen.data(), keys.size(), threads, rows.data());
}

void set_waiting(Store& store, int table, In<std::int64_t> keys, In<std::uint32_t> counts, In<std::uint32_t> seen) {
    need(keys.size() == seen.size() && keys.size() == counts.size(), "keys, counts and times must be of one length");
    nb::gil_scoped_release released;
    keys_of(store, table).set_waiting(keys.data(), counts.data(), seen.data(), keys.size());
}

void remove(Store& store, int table, In<std::int64_t> keys) {
    nb::gil_scoped_release released;
    const Turns::Turn turn(store.turns());
    Collisionless& of = keys_of(store, table);
    for (std::size_t i = 0; i < keys.size(); ++i) of.remove(keys.data()[i]);
}

void make(Store& store, int table, In<std::int64_t> keys) {
    nb::gil_scoped_release released;
    const Turns::Turn turn(store.turns());
    store.make(table, keys.data(), keys.size());
}

void make_fresh(Store& store, int table, In<std::uint32_t> rows) {
    need_rows(store, table, rows);
    const Turns::Turn turn(store.turns());
    store.make_fresh(table, rows.data(), rows.size());
}

void clear(Store& store, int table) {
    const Turns::Turn turn(store.turns());
    store.clear(table);
}

void read_counts(Store& store, int table, In<std::uint32_t> rows, Out<std::uint32_t> out) {
    need(out.size() == rows.size(), "as many counts as rows are needed");
    need_rows(store, table, rows);
    const RowMeta* const meta = store.rows(table).meta();
    for (std::size_t i = 0; i < rows.size(); ++i) out.data()[i] = meta[rows.data()[i]].count;
}

void write_counts(Store& store, int table, In<std::uint32_t> rows, In<std::uint32_t> counts) {
    need(counts.size() == rows.size(), "as many counts as rows are needed");
    need_rows(store, table, rows);
    const Turns::Turn turn(store.turns());
    TableRows& t = store.rows(table);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        t.touch(rows.data()[i]);
        t.meta()[rows.data()[i]].count = counts.data()[i];
    }
}

// The rows of a table as they were, while it goes on. Its methods may be called on another thread than the store's.
class Capture {
public:
    Capture(Store& store, int table)
        : store_(store), table_(table), now_(store.keys(table) == nullptr ? 0 : store.keys(table)->now()) {
        const Turns::Turn turn(store.turns());
        image_ = store.rows(table).capture(store.num_rows(table));
    }
    ~Capture() { close(); }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    // The memory is freed after the turn, and without the GIL: a large image takes tenths of a second. Another thread may
    // be reading: it holds the image too, and its next slice finds it abandoned.
    void close() {
        std::shared_ptr<RowImage> image = std::move(image_);
        image_.reset();
        if (!image) return;
        nb::gil_scoped_release released;
        {
            const Turns::Turn turn(store_.turns());
            image->abandon();
        }
        image.reset();
    }

    nb::tuple list_rows(int threads) {
        const std::shared_ptr<RowImage> image = need_open();
        KeyList found;
        {
            nb::gil_scoped_release released;
            found = store_.list_rows(table_, *image, now_, threads);
        }
        return tuple_of(std::move(found));
    }

    void read(int column, In<std::uint32_t> rows, Out<float> out) const {
        const std::shared_ptr<RowImage> image = need_open();
        const std::size_t width = store_.rows(table_).width_of(static_cast<Column>(column));
        need(out.size() == rows.size() * width, "values must be (rows, values per row)");
        each_slice(*image, rows, [&](std::size_t at, std::size_t n) {
            image->read(static_cast<Column>(column), width, rows.data() + at, n, out.data() + at * width);
        });
    }

    void read_counts(In<std::uint32_t> rows, Out<std::uint32_t> out) const {
        const std::shared_ptr<RowImage> image = need_open();
        need(out.size() == rows.size(), "as many counts as rows are needed");
        each_slice(*image, rows,
                   [&](std::size_t at, std::size_t n) { image->read_counts(rows.data() + at, n, out.data() + at); });
    }

private:
    std::shared_ptr<RowImage> need_open() const {
        need(image_ != nullptr, "the capture is closed");
        return image_;
    }

    template <typename F>
    void each_slice(const RowImage& image, const In<std::uint32_t>& rows, F&& f) const {
        constexpr std::size_t kSlice = 8192;
        const std::size_t n = rows.size();
        nb::gil_scoped_release released;
        for (std::size_t i = 0; i < n; ++i) need(rows.data()[i] < image.end(), "a row is outside the table");
        std::size_t at = 0;
        store_.turns().in_slices([&] {
            const std::size_t begin = at;
            at = std::min(n, at + kSlice);
            need(!image.is_abandoned(), "the capture was closed while it was read");
            f(begin, at - begin);
            return at < n;
        });
    }

    Store& store_;
    int table_;
    std::uint32_t now_;
    std::shared_ptr<RowImage> image_;
};

nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>> lost(Store& store, int table, std::uint32_t after) {
    const CutLog<std::int64_t>& log = keys_of(store, table).lost();
    if (!log.knows(after))
        throw std::invalid_argument("changes since cut " + std::to_string(after) + " are not known");
    std::vector<std::int64_t> keys = log.since(after);
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    return owned(std::move(keys));
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
    nb::class_<Capture>(module, "Capture")
        .def(nb::init<Store&, int>(), "store"_a, "table"_a, nb::keep_alive<1, 2>())
        .def("close", &Capture::close)
        .def("list_rows", &Capture::list_rows, "threads"_a)
        .def("read", &Capture::read, "column"_a, "rows"_a.noconvert(), "out"_a.noconvert())
        .def("read_counts", &Capture::read_counts, "rows"_a.noconvert(), "out"_a.noconvert());
    store
        .def("remove", &remove, "table"_a, "keys"_a.noconvert())
        .def("clear", &clear, "table"_a)
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
        .def("list_rows", &listed_rows, "table"_a, "after"_a, "threads"_a)
        .def("list_waiting", &list_waiting, "table"_a, "threads"_a)
        .def("draw_cut", &Store::draw_cut)
        .def("see", &see, "table"_a, "rows"_a.noconvert())
        .def("tombstones", &lost, "table"_a, "after"_a)
        .def("forget", &Store::forget, "cut"_a)
        .def("sketch", &sketch, "table"_a)
        .def("set_sketch", &set_sketch, "table"_a, "saved"_a.noconvert());
}

}  // namespace embtables
