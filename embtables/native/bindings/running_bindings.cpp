// The nanobind edge of RunningKeys: checks sizes, drops the GIL, calls plain C++.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "bindings/binding_types.h"
#include "bindings/store_bindings.h"
#include "running/running_keys.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

using Kind = RunningColumn::Kind;
using Int64s = In<std::int64_t>;
using Flags = std::optional<In<bool>>;

constexpr std::size_t kManyQuestions = 8192;  // about a millisecond
constexpr std::int64_t kLongest = std::int64_t{1} << 60;

void make_config(RunningConfig* self, std::int64_t lateness_us, std::optional<std::int64_t> keep_us) {
    need(lateness_us >= 0 && lateness_us <= kLongest, "lateness must be in 0..2^60 microseconds");
    need(!keep_us || (*keep_us >= lateness_us && *keep_us <= kLongest), "keep must be in lateness..2^60 microseconds");
    new (self) RunningConfig{lateness_us, keep_us};
}

void add_count(RunningConfig& config, std::optional<std::int64_t> window_us) {
    need(!window_us || (*window_us > 0 && *window_us <= kLongest), "a window must be in 1..2^60 microseconds");
    config.columns.push_back({window_us ? Kind::window_count : Kind::count, window_us.value_or(0)});
}

void add_since(RunningConfig& config, Kind kind, double unit_us, std::optional<double> missing, std::optional<double> most) {
    need(unit_us > 0.0, "a unit is a positive number of microseconds");
    config.columns.push_back({kind, 0, unit_us, missing.value_or(NAN), most.value_or(INFINITY)});
}

void add_last_value(RunningConfig& config) {
    config.columns.push_back({.kind = Kind::last_value, .missing = NAN, .track = config.tracks.size()});
    config.tracks.push_back(1);
}

void add_last_n(RunningConfig& config, std::uint32_t n) {
    need(n >= 1 && n <= (1u << 20), "a list remembers 1..2^20 values");
    config.list_tracks.push_back(config.tracks.size());
    config.tracks.push_back(n);
}

void make(RunningKeys* self, const RunningConfig& config) {
    need(!config.keep || *config.keep >= config.lateness + config.longest_window(),
         "keep must be at least lateness and the longest window");
    new (self) RunningKeys(config);
}

void fold(RunningKeys& keys, std::int64_t clock, Int64s times, Int64s of, const std::vector<Int64s>& values,
          const std::vector<Flags>& has_value) {
    const std::size_t tracks = keys.config().tracks.size();
    need(of.size() == times.size() && values.size() == tracks && has_value.size() == tracks,
         "n events need n keys, and values for each track");
    RunningEvents events{times.size(), times.data(), of.data(), {}, {}};
    for (std::size_t t = 0; t < tracks; ++t) {
        need(values[t].size() == times.size() && (!has_value[t] || has_value[t]->size() == times.size()),
             "n events need n values");
        events.values.push_back(values[t].data());
        events.has_value.push_back(has_value[t] ? has_value[t]->data() : nullptr);
    }
    nb::gil_scoped_release released;
    keys.fold(events, clock);
}

nb::list ask(const RunningKeys& keys, Int64s times, Int64s of, const Flags& known, OutMatrix out) {
    need(of.size() == times.size() && (!known || known->size() == times.size()), "n questions need n keys");
    need(out.shape(0) == keys.config().columns.size() && out.shape(1) == times.size(), "out must be (columns, n)");
    std::vector<RunningLists> lists;
    {
        // A thread that gives the GIL up may wait milliseconds to have it again.
        std::optional<nb::gil_scoped_release> released;
        if (times.size() >= kManyQuestions) released.emplace();
        lists = keys.ask({times.size(), times.data(), of.data(), known ? known->data() : nullptr}, out.data());
    }
    nb::list found;
    for (RunningLists& list : lists)
        found.append(nb::make_tuple(owned(std::move(list.offsets)), owned(std::move(list.values))));
    return found;
}

nb::dict image(RunningKeys& keys) {
    RunningImage made;
    {
        nb::gil_scoped_release released;
        made = keys.image();
    }
    nb::dict found;
    found["keys"] = owned(std::move(made.keys));
    found["first"] = owned(std::move(made.first));
    found["gone"] = owned(std::move(made.gone));
    found["last_gone"] = owned(std::move(made.last_gone));
    found["counts"] = owned(std::move(made.counts));
    found["times"] = owned(std::move(made.times));
    for (std::size_t t = 0; t < made.tracks.size(); ++t) {
        const std::string name = "track." + std::to_string(t) + ".";
        found[nb::str((name + "counts").c_str())] = owned(std::move(made.tracks[t].counts));
        found[nb::str((name + "times").c_str())] = owned(std::move(made.tracks[t].times));
        found[nb::str((name + "values").c_str())] = owned(std::move(made.tracks[t].values));
    }
    return found;
}

std::vector<std::int64_t> taken(const nb::dict& arrays, const std::string& name) {
    need(arrays.contains(name.c_str()), "an array is missing");
    const Int64s array = nb::cast<Int64s>(arrays[name.c_str()]);
    return {array.data(), array.data() + array.size()};
}

void fill(RunningKeys& keys, const nb::dict& arrays, std::int64_t clock) {
    RunningImage image{taken(arrays, "keys"),      taken(arrays, "first"),  taken(arrays, "gone"),
                       taken(arrays, "last_gone"), taken(arrays, "counts"), taken(arrays, "times")};
    for (std::size_t t = 0; t < keys.config().tracks.size(); ++t) {
        const std::string name = "track." + std::to_string(t) + ".";
        image.tracks.push_back({taken(arrays, name + "counts"), taken(arrays, name + "times"), taken(arrays, name + "values")});
    }
    nb::gil_scoped_release released;
    keys.fill(image, clock);
}

}  // namespace

void define_running(nb::module_& module) {
    nb::class_<RunningConfig>(module, "RunningConfig")
        .def("__init__", &make_config, "lateness_us"_a, "keep_us"_a.none())
        .def("add_count", &add_count, "window_us"_a.none())
        .def("add_age", [](RunningConfig& config, double unit_us, std::optional<double> missing, std::optional<double> most) {
            add_since(config, Kind::age, unit_us, missing, most);
        }, "unit_us"_a, "missing"_a.none(), "most"_a.none())
        .def("add_idle", [](RunningConfig& config, double unit_us, std::optional<double> missing, std::optional<double> most) {
            add_since(config, Kind::idle, unit_us, missing, most);
        }, "unit_us"_a, "missing"_a.none(), "most"_a.none())
        .def("add_last_value", &add_last_value)
        .def("add_last_n", &add_last_n, "n"_a);
    nb::class_<RunningKeys>(module, "RunningKeys")
        .def("__init__", &make, "config"_a)
        .def("fold", &fold, "clock"_a, "times"_a.noconvert(), "keys"_a.noconvert(), "values"_a, "has_value"_a)
        .def("ask", &ask, "times"_a.noconvert(), "keys"_a.noconvert(), "known"_a.noconvert().none(), "out"_a.noconvert())
        .def("image", &image)
        .def("fill", &fill, "arrays"_a, "clock"_a)
        .def_prop_ro("num_keys", &RunningKeys::num_keys)
        .def_prop_ro("bytes", &RunningKeys::bytes);
}

}  // namespace embtables
