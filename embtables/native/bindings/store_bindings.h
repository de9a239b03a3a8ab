#pragma once

#include <nanobind/nanobind.h>

namespace embtables {

// Adds `TableSpec` and `Store` to the module.
void define_store(nanobind::module_& module);

// Adds `ServedStore` (serve_bindings.cpp).
void define_serve(nanobind::module_& module);

// Adds `JsonRows` (json_bindings.cpp).
void define_json(nanobind::module_& module);

// Adds `RunningKeys` (running_bindings.cpp).
void define_running(nanobind::module_& module);
// Adds `Joiner` (join_bindings.cpp).
void define_join(nanobind::module_& module);

// Adds `KeyExchange` and `Buffers` (exchange_bindings.cpp).
void define_exchange(nanobind::module_& module);

}  // namespace embtables
