// What the nanobind edges share: array types, checks, and arrays that own their values.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/isa.h"
#include "store/store.h"

namespace embtables {

namespace nb = nanobind;

template <typename T>
using In = nb::ndarray<nb::numpy, const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Weights = std::optional<In<float>>;
using Matrix = nb::ndarray<nb::numpy, const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

inline void need(bool right, const char* what) {
    if (!right) throw std::invalid_argument(what);
}

// A lookup of a store's features, whose arrays belong together.
template <typename AnyStore>
LookupView view_of(const AnyStore& store, const In<std::int32_t>& features, const In<std::int64_t>& offsets,
                   const Weights& weights, std::int64_t bags, std::size_t keys) {
    const std::size_t lists = bags == 0 ? features.size() : (offsets.size() - 1) / static_cast<std::size_t>(bags);
    need(bags >= 0 && offsets.size() == lists * static_cast<std::size_t>(bags) + 1 && lists >= 1 &&
             features.size() % lists == 0,
         "L lists of B bags need L * B + 1 offsets, and as many features each");
    need(offsets.data()[0] == 0 && offsets.data()[offsets.size() - 1] == static_cast<std::int64_t>(keys),
         "offsets must begin at 0 and end at the number of keys");
    need(!weights || weights->size() == keys, "as many weights as keys are needed");
    for (std::size_t i = 0; i < features.size(); ++i) store.table_of(features.data()[i]);
    return {features.data(), features.size(), lists, offsets.data(), weights ? weights->data() : nullptr, bags};
}

inline Collisionless& keys_of(Store& store, int table) {
    Collisionless* const keys = store.keys(table);
    if (keys == nullptr) throw std::invalid_argument("the table is not collisionless");
    return *keys;
}

template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> owned(std::vector<T>&& values) {
    auto* const kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return {kept->data(), {kept->size()}, owner};
}

// What the core was compiled to for an instruction set.
Kernels kernels_of(Isa isa);

// Adds to `Store` what state is saved and restored with (state_bindings.cpp).
void define_state(nb::module_& module, nb::class_<Store>& store);

// Adds what parts of tables agree with (part_bindings.cpp).
void define_parts(nb::class_<Store>& store);

}  // namespace embtables
