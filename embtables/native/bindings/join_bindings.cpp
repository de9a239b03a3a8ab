// The nanobind edge of Joiner: checks sizes and ranges, drops the GIL, calls plain C++. One call works at a time.
#include <nanobind/stl/optional.h>

#include <mutex>

#include "bindings/binding_types.h"
#include "bindings/store_bindings.h"
#include "join/joiner.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

// Calls may come from several threads, and the GIL does not keep them apart.
struct SharedJoiner {
    explicit SharedJoiner(JoinWindows windows) : joiner(windows) {}

    Joiner joiner;
    std::mutex mutex;
};

class Turn {
public:
    explicit Turn(SharedJoiner& shared) : held_(shared.mutex) {}

private:
    nb::gil_scoped_release released_;
    std::lock_guard<std::mutex> held_;
};

void make(SharedJoiner* self, std::int64_t window_us, std::int64_t late_us, std::int64_t skew_us) {
    need(window_us >= 1, "a window takes at least a microsecond");
    new (self) SharedJoiner({window_us, late_us, skew_us});
}

void check_events(const In<std::uint64_t>& keys, const In<std::int64_t>& times, const In<std::uint32_t>& rows,
                  std::size_t outcomes, std::size_t entries, std::size_t found_rows) {
    const std::size_t n = keys.size();
    need(times.size() == n && rows.size() == n && outcomes == n && entries == n && found_rows == n,
         "n events have n keys, times and rows, and room for n outcomes");
    for (std::size_t i = 0; i < n; ++i) {
        need(times.data()[i] >= -Joiner::kMaxTime && times.data()[i] <= Joiner::kMaxTime,
             "times must lie within 2^60 microseconds of 1970");
        need(rows.data()[i] <= JoinRecord::kMaxRow, "an entry has at most 2^29 rows");
    }
}

using Call = void (Joiner::*)(std::uint32_t, const std::uint64_t*, const std::int64_t*, const std::uint32_t*,
                              std::size_t, JoinOutcome*, Payload*);

template <Call call>
void events(SharedJoiner& shared, std::uint32_t entry, In<std::uint64_t> keys, In<std::int64_t> times,
            In<std::uint32_t> rows, Out<std::uint8_t> outcomes, Out<std::uint32_t> found_entries,
            Out<std::uint32_t> found_rows) {
    check_events(keys, times, rows, outcomes.size(), found_entries.size(), found_rows.size());
    const Turn turn(shared);
    need(shared.joiner.is_held(entry), "no such entry is held");
    std::vector<Payload> found(keys.size());
    (shared.joiner.*call)(entry, keys.data(), times.data(), rows.data(), keys.size(),
                          reinterpret_cast<JoinOutcome*>(outcomes.data()), found.data());
    for (std::size_t i = 0; i < found.size(); ++i) {
        found_entries.data()[i] = found[i].entry;
        found_rows.data()[i] = found[i].row;
    }
}

nb::tuple advance(SharedJoiner& shared, std::int64_t watermark, std::uint64_t most) {
    need(watermark >= -Joiner::kMaxTime && watermark <= Joiner::kMaxTime,
         "times must lie within 2^60 microseconds of 1970");
    need(most >= 1, "at least one impression is closed at a time");
    Closed closed;
    {
        const Turn turn(shared);
        closed = shared.joiner.advance(watermark, most);
    }
    return nb::make_tuple(owned(std::move(closed.keys)), owned(std::move(closed.times)),
                          owned(std::move(closed.entries)), owned(std::move(closed.rows)),
                          owned(std::move(closed.corrected)), owned(std::move(closed.orphan_entries)), owned(std::move(closed.orphan_rows)), closed.done);
}

nb::tuple save(SharedJoiner& shared) {
    JoinArrays arrays;
    {
        const Turn turn(shared);
        arrays = shared.joiner.save();
    }
    return nb::make_tuple(owned(std::move(arrays.keys)), owned(std::move(arrays.times)),
                          owned(std::move(arrays.entries)), owned(std::move(arrays.rows)),
                          owned(std::move(arrays.states)));
}

void load(SharedJoiner& shared, In<std::uint64_t> keys, In<std::int64_t> times, In<std::uint32_t> entries,
          In<std::uint32_t> rows, In<std::uint8_t> states, std::uint32_t num_entries,
          std::optional<std::int64_t> watermark) {
    const std::size_t n = keys.size();
    need(times.size() == n && entries.size() == n && rows.size() == n && states.size() == n,
         "the arrays must have one length");
    const Turn turn(shared);
    shared.joiner.load({keys.data(), times.data(), entries.data(), rows.data(), states.data(), n}, num_entries,
                       watermark.value_or(Joiner::kBegin));
}

// What takes no time worth giving the GIL up for.
template <typename F>
auto locked(SharedJoiner& shared, F&& use) {
    const std::lock_guard<std::mutex> held(shared.mutex);
    return use(shared.joiner);
}

std::optional<std::int64_t> watermark(SharedJoiner& shared) {
    const std::int64_t at = locked(shared, [](Joiner& joiner) { return joiner.watermark(); });
    return at == Joiner::kBegin ? std::nullopt : std::optional(at);
}

}  // namespace

void define_join(nb::module_& module) {
    nb::class_<SharedJoiner>(module, "Joiner")
        .def("__init__", &make, "window_us"_a, "late_us"_a, "skew_us"_a)
        .def("hold", [](SharedJoiner& of) { return locked(of, [](Joiner& joiner) { return joiner.hold(); }); })
        .def("release", [](SharedJoiner& of, std::uint32_t entry) {
            locked(of, [&](Joiner& joiner) { joiner.release(entry); });
        }, "entry"_a)
        .def("take_freed", [](SharedJoiner& of) {
            return owned(locked(of, [](Joiner& joiner) { return joiner.take_freed(); }));
        })
        .def("impressions", &events<&Joiner::impressions>, "entry"_a, "keys"_a.noconvert(), "times"_a.noconvert(),
             "rows"_a.noconvert(), "outcomes"_a.noconvert(), "found_entries"_a.noconvert(), "found_rows"_a.noconvert())
        .def("actions", &events<&Joiner::actions>, "entry"_a, "keys"_a.noconvert(), "times"_a.noconvert(),
             "rows"_a.noconvert(), "outcomes"_a.noconvert(), "found_entries"_a.noconvert(), "found_rows"_a.noconvert())
        .def("advance", &advance, "watermark"_a, "most"_a)
        .def("save", &save)
        .def("load", &load, "keys"_a.noconvert(), "times"_a.noconvert(), "entries"_a.noconvert(), "rows"_a.noconvert(),
             "states"_a.noconvert(), "num_entries"_a, "watermark"_a.none())
        .def_prop_ro("watermark", &watermark)
        .def_prop_ro("size", [](SharedJoiner& of) { return locked(of, [](Joiner& joiner) { return joiner.size(); }); })
        .def_prop_ro("bytes", [](SharedJoiner& of) { return locked(of, [](Joiner& joiner) { return joiner.bytes(); }); });
}

}  // namespace embtables
