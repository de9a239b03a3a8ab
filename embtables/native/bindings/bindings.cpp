// nanobind edge of the native core: checks sizes, drops the GIL, calls plain C++.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "base/isa.h"
#include "base/mix.h"
#include "bindings/binding_types.h"
#include "bindings/store_bindings.h"
#include "strings/split.h"
#include "strings/string_hash.h"

using namespace nanobind::literals;

namespace embtables {
namespace {

constexpr std::size_t kManyBytes = 1 << 18;  // tens of microseconds

template <typename Offset>
HashStrings<Offset> kernel(Isa isa) {
    if constexpr (sizeof(Offset) == 4) {
        switch (isa) {
#if defined(__x86_64__)
            case Isa::avx2: return avx2::hash_strings_32;
            case Isa::avx512: return avx512::hash_strings_32;
#endif
            default: return scalar::hash_strings_32;
        }
    } else {
        switch (isa) {
#if defined(__x86_64__)
            case Isa::avx2: return avx2::hash_strings_64;
            case Isa::avx512: return avx512::hash_strings_64;
#endif
            default: return scalar::hash_strings_64;
        }
    }
}

template <typename Offset>
void hash(In<std::uint8_t> data, In<Offset> offsets, Out<std::int64_t> out, const std::string& isa) {
    const auto run = kernel<Offset>(isa_from_name(isa));
    if (offsets.size() == 0 || out.size() != offsets.size() - 1)
        throw std::invalid_argument("n strings need n + 1 offsets and room for n hashes");
    std::optional<nb::gil_scoped_release> released;
    if (data.size() >= kManyBytes) released.emplace();
    if (!run(data.data(), data.size(), offsets.data(), out.size(), out.data()))
        throw std::invalid_argument("string offsets fall, or point outside the data: the array is damaged");
}

template <typename Offset>
nb::tuple split(In<std::uint8_t> data, In<Offset> offsets, std::string_view separator) {
    need(offsets.size() >= 1 && !separator.empty(), "n strings need n + 1 offsets, and a separator of some bytes");
    need(offsets.data()[0] >= 0, "string offsets point outside the data: the array is damaged");
    for (std::size_t i = 1; i < offsets.size(); ++i)
        need(offsets.data()[i] >= offsets.data()[i - 1], "string offsets fall: the array is damaged");
    need(static_cast<std::size_t>(offsets.data()[offsets.size() - 1]) <= data.size(),
         "string offsets point outside the data: the array is damaged");
    Pieces found;
    {
        std::optional<nb::gil_scoped_release> released;
        if (data.size() >= kManyBytes) released.emplace();
        found = split_strings(data.data(), offsets.data(), offsets.size() - 1, separator);
    }
    return nb::make_tuple(owned(std::move(found.data)), owned(std::move(found.offsets)), owned(std::move(found.starts)));
}

void mix_all(In<std::uint64_t> words, std::uint64_t offset, Out<std::uint64_t> out) {
    need(out.size() == words.size(), "n words need room for n");
    std::optional<nb::gil_scoped_release> released;
    if (words.size() >= kManyBytes / sizeof(std::uint64_t)) released.emplace();
    const std::uint64_t* const from = words.data();
    std::uint64_t* const to = out.data();
    for (std::size_t i = 0; i < words.size(); ++i) to[i] = mix(from[i] + offset);
}

template <typename Offset>
void define_strings(nb::module_& module) {
    // Without noconvert a wrong `out` would be copied, and the hashes lost with the copy.
    module.def("hash_strings", &hash<Offset>, "data"_a.noconvert(), "offsets"_a.noconvert(), "out"_a.noconvert(),
               "isa"_a);
    module.def("split_strings", &split<Offset>, "data"_a.noconvert(), "offsets"_a.noconvert(), "separator"_a);
}

}  // namespace

NB_MODULE(_core, module) {
    // A loss that a user's loop still holds when the process ends keeps its graph, and with it the store, alive.
    nb::set_leak_warnings(false);
    define_strings<std::int32_t>(module);
    define_strings<std::int64_t>(module);
    module.def("mix", &mix_all, "words"_a.noconvert(), "offset"_a, "out"_a.noconvert());
    define_store(module);
    define_exchange(module);
    define_serve(module);
    define_json(module);
    define_running(module);
    define_join(module);
    module.def("available_isas", [] {
        std::vector<std::string> names;
        for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
        return names;
    });
}

}  // namespace embtables
