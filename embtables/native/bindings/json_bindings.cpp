// The nanobind edge of read_json_rows: columns leave through the Arrow C data interface, without a copy.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <array>

#include "bindings/store_bindings.h"
#include "json/json_rows.h"

namespace nb = nanobind;
using namespace nanobind::literals;

// https://arrow.apache.org/docs/format/CDataInterface.html
struct ArrowSchema {
    const char* format;
    const char* name;
    const char* metadata;
    std::int64_t flags;
    std::int64_t n_children;
    ArrowSchema** children;
    ArrowSchema* dictionary;
    void (*release)(ArrowSchema*);
    void* private_data;
};

struct ArrowArray {
    std::int64_t length;
    std::int64_t null_count;
    std::int64_t offset;
    std::int64_t n_buffers;
    std::int64_t n_children;
    const void** buffers;
    ArrowArray** children;
    ArrowArray* dictionary;
    void (*release)(ArrowArray*);
    void* private_data;
};

namespace embtables {
namespace {

constexpr std::int64_t kNullable = 2;
constexpr std::size_t kManyBytes = 1 << 20;  // about 2 ms

using Columns = std::vector<std::shared_ptr<JsonColumn>>;

const char* format_of(const JsonColumn& column) {
    switch (column.kind) {
        case JsonColumn::Kind::ints: return "l";
        case JsonColumn::Kind::floats: return "g";
        case JsonColumn::Kind::text: return "u";
        case JsonColumn::Kind::none: break;
    }
    return "n";
}

// What a schema or an array of the interface points to. A child may be moved out and outlive its parent.
template <typename Exported>
struct Kept {
    std::shared_ptr<JsonColumn> column;  // of a child
    std::vector<std::uint8_t> validity;
    std::vector<std::int32_t> offsets;
    std::array<const void*, 3> buffers{};
    std::vector<Exported> children;
    std::vector<Exported*> pointers;
};

template <typename Exported>
void release(Exported* exported) {
    auto* const kept = static_cast<Kept<Exported>*>(exported->private_data);
    for (Exported& child : kept->children) {
        if (child.release != nullptr) child.release(&child);
    }
    delete kept;
    exported->release = nullptr;
}

// Children of their own, and room for as many pointers.
template <typename Exported>
Kept<Exported>* with_children(std::size_t count) {
    auto* const kept = new Kept<Exported>();
    kept->children.resize(count);
    for (Exported& child : kept->children) kept->pointers.push_back(&child);
    return kept;
}

void export_schema(const Columns& columns, ArrowSchema& into) {
    auto* const all = with_children<ArrowSchema>(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) {
        auto* const kept = new Kept<ArrowSchema>();
        kept->column = columns[i];
        all->children[i] = {format_of(*columns[i]), columns[i]->name.c_str(), nullptr, kNullable, 0, nullptr, nullptr,
                            release<ArrowSchema>, kept};
    }
    into = {"+s", "", nullptr, 0, static_cast<std::int64_t>(columns.size()), all->pointers.data(), nullptr,
            release<ArrowSchema>, all};
}

void export_column(const std::shared_ptr<JsonColumn>& column, std::int64_t n, ArrowArray& into) {
    auto* const kept = new Kept<ArrowArray>();
    kept->column = column;
    std::int64_t count = 2;
    if (column->nulls > 0) {
        kept->validity.resize(static_cast<std::size_t>(n + 7) / 8);
        for (std::size_t i = 0; i < column->valid.size(); ++i) {
            kept->validity[i / 8] = static_cast<std::uint8_t>(kept->validity[i / 8] | column->valid[i] << i % 8);
        }
        kept->buffers[0] = kept->validity.data();
    }
    switch (column->kind) {
        case JsonColumn::Kind::none: count = 0; break;
        case JsonColumn::Kind::ints: kept->buffers[1] = column->ints.data(); break;
        case JsonColumn::Kind::floats: kept->buffers[1] = column->floats.data(); break;
        case JsonColumn::Kind::text:
            count = 3;
            kept->offsets.push_back(0);
            kept->offsets.insert(kept->offsets.end(), column->ends.begin(), column->ends.end());
            kept->buffers[1] = kept->offsets.data();
            kept->buffers[2] = column->text.data();
    }
    into = {n, column->nulls, 0, count, 0, kept->buffers.data(), nullptr, nullptr, release<ArrowArray>, kept};
}

void export_rows(const Columns& columns, std::int64_t n, ArrowArray& into) {
    auto* const all = with_children<ArrowArray>(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) export_column(columns[i], n, all->children[i]);
    into = {n, 0, 0, 1, static_cast<std::int64_t>(columns.size()), all->buffers.data(), all->pointers.data(), nullptr,
            release<ArrowArray>, all};
}

// Until whoever imports it has moved it out, it is released with its owner.
template <typename Exported>
struct Released {
    void operator()(Exported* exported) const noexcept {
        if (exported->release != nullptr) exported->release(exported);
        delete exported;
    }
};
template <typename Exported>
using Owned = std::unique_ptr<Exported, Released<Exported>>;

template <typename Exported>
nb::capsule capsule(Owned<Exported> exported, const char* name) {
    nb::capsule made(exported.get(), name, [](void* p) noexcept { Released<Exported>{}(static_cast<Exported*>(p)); });
    exported.release();
    return made;
}

nb::tuple arrow_c_array(const JsonRows& rows, nb::handle) {
    Owned<ArrowSchema> schema(new ArrowSchema{});
    Owned<ArrowArray> array(new ArrowArray{});
    export_schema(rows.columns, *schema);
    export_rows(rows.columns, rows.n, *array);
    return nb::make_tuple(capsule(std::move(schema), "arrow_schema"), capsule(std::move(array), "arrow_array"));
}

nb::object read(nb::bytes body) {
    const std::string_view text(body.c_str(), body.size());
    std::optional<JsonRows> found;
    {
        // A thread that gives the GIL up may wait milliseconds to have it again.
        std::optional<nb::gil_scoped_release> released;
        if (text.size() >= kManyBytes) released.emplace();
        found = read_json_rows(text);
    }
    return found ? nb::cast(std::move(*found)) : nb::none();
}

nb::list mixed(const JsonRows& rows) {
    nb::list found;
    for (const auto& column : rows.columns) {
        if (column->is_mixed) found.append(nb::str(column->name.data(), column->name.size()));
    }
    return found;
}

// A name has neither control characters nor quotes.
std::string shape(const JsonRows& rows) {
    std::string found;
    for (const auto& column : rows.columns) {
        found += column->name;
        found += '"';
        found += column->is_mixed ? "m" : format_of(*column);
    }
    return found;
}

}  // namespace

void define_json(nb::module_& module) {
    nb::class_<JsonRows>(module, "JsonRows")
        .def_prop_ro("context", [](const JsonRows& rows) { return nb::bytes(rows.context.data(), rows.context.size()); })
        .def_ro("request_id", &JsonRows::request_id)
        .def_ro("is_candidates", &JsonRows::is_candidates)
        .def_ro("num_rows", &JsonRows::n)
        .def_prop_ro("mixed", &mixed)
        .def_prop_ro("shape", &shape)
        .def("__arrow_c_array__", &arrow_c_array, "requested_schema"_a = nb::none());
    module.def("read_json_rows", &read, "body"_a);
}

}  // namespace embtables
