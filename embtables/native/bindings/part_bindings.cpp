// The nanobind edge of what the parts of a table agree on, which rows and waiting keys go when there are too many, and of
// the figures of all their rows.
#include <vector>

#include "bindings/binding_types.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

using Integers = nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>>;

Integers age_bins(Store& store, int table, bool waiting, int threads) {
    std::vector<std::int64_t> found;
    {
        nb::gil_scoped_release released;
        const Turns::Turn turn(store.turns());
        const std::vector<std::uint64_t> bins = keys_of(store, table).age_bins(waiting, threads);
        found.assign(bins.begin(), bins.end());
    }
    return owned(std::move(found));
}

nb::tuple of_age(Store& store, int table, bool waiting, std::size_t bin, int threads) {
    std::vector<std::int64_t> seen, mixes;
    {
        nb::gil_scoped_release released;
        for (const Candidate& c : keys_of(store, table).of_age(waiting, bin, threads)) {
            seen.push_back(c.seen);
            mixes.push_back(static_cast<std::int64_t>(c.h));
        }
    }
    return nb::make_tuple(owned(std::move(seen)), owned(std::move(mixes)));
}

void evict(Store& store, int table, bool waiting, std::size_t bin, std::uint32_t seen, std::int64_t mix,
               int threads) {
    nb::gil_scoped_release released;
    const Turns::Turn turn(store.turns());
    keys_of(store, table).evict(waiting, bin, {seen, static_cast<std::uint64_t>(mix), 0}, threads);
}

nb::tuple ages_and_counts(Store& store, int table) {
    std::vector<std::uint32_t> ages, counts;
    {
        nb::gil_scoped_release released;
        keys_of(store, table).ages_and_counts(store.rows(table), ages, counts);
    }
    return nb::make_tuple(owned(std::move(ages)), owned(std::move(counts)));
}

}  // namespace

void define_parts(nb::class_<Store>& store) {
    store.def("age_bins", &age_bins, "table"_a, "waiting"_a, "threads"_a)
        .def("of_age", &of_age, "table"_a, "waiting"_a, "age_bin"_a, "threads"_a)
        .def("evict", &evict, "table"_a, "waiting"_a, "age_bin"_a, "seen"_a, "mix"_a, "threads"_a)
        .def("ages_and_counts", &ages_and_counts, "table"_a);
}

}  // namespace embtables
