"""Arrow columns in the few types that the reader and the features stage work with: `plain`.

Writers store the same values in many ways. Before anything looks at a column, its type becomes one of these:

    bool, integers, float32, float64, decimal128, decimal256   float16 becomes float32
    string, large_string, binary, large_binary                 views become large ones; a uuid or another
                                                               fixed-size binary becomes large_binary
    dictionary<int32, any of the four>                         of other values: the values themselves
    timestamp, date32                                          date64 becomes a timestamp
    list, large_list, fixed_size_list of these                 views of lists become large_list
    null, and what nothing reads (struct, map, time, ...)      as they are

Extension types count as their storage, run-end encoded columns as their values. A column inside a struct is named by
its path: `user.id`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError

_lib = pa.lib
_LISTS = frozenset(
    {_lib.Type_LIST, _lib.Type_LARGE_LIST, _lib.Type_FIXED_SIZE_LIST, _lib.Type_LIST_VIEW, _lib.Type_LARGE_LIST_VIEW}
)
_BYTES = frozenset({_lib.Type_BINARY, _lib.Type_LARGE_BINARY})
_TEXT = _BYTES | {_lib.Type_STRING, _lib.Type_LARGE_STRING}


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any kind."""
    return kind.id in _LISTS


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a plain type holds bytes that need not be text, dictionary-encoded or not."""
    return (kind.value_type if kind.id == _lib.Type_DICTIONARY else kind).id in _BYTES


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type holds strings or bytes, dictionary-encoded or not."""
    return (kind.value_type if kind.id == _lib.Type_DICTIONARY else kind).id in _TEXT


@functools.lru_cache(maxsize=1024)
def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that `plain` gives a column of type `kind`."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_dictionary(kind):
        values = plain_type(kind.value_type)
        return pa.dictionary(pa.int32(), values) if is_text(values) else values
    if is_list(kind):
        items = plain_type(kind.value_type)
        is_plain = items == kind.value_type and not (pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))
        return kind if is_plain else pa.large_list(items)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.large_binary()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_date64(kind):
        return pa.timestamp("ms")
    if pa.types.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def plain(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column in its plain type; the same object if it has it already.

    Raises:
        DataError: the array is damaged.
    """
    if plain_type(array.type) == array.type:
        return array
    if isinstance(array, pa.ChunkedArray):
        return pa.chunked_array([_plain_array(chunk) for chunk in array.chunks], plain_type(array.type))
    return _plain_array(array)


def _plain_array(array: pa.Array) -> pa.Array:
    kind, wanted = array.type, plain_type(array.type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_string_view(kind):
        # As bytes, because the full check of text would also decode it; without that check the cast trusts the views.
        return _plain_array(array.view(pa.binary_view())).view(pa.large_string())
    if pa.types.is_binary_view(kind):
        try:
            array.validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
            raise DataError(f"the array is damaged: {error}; read it again from its source") from error
        return array.cast(wanted)
    if pa.types.is_dictionary(kind):
        values = plain(array.dictionary)
        if is_text(values.type):
            return pa.DictionaryArray.from_arrays(array.indices.cast(pa.int32()), values)
        return values.take(array.indices)
    if pa.types.is_date64(kind):
        return array.cast(pa.int64()).cast(wanted)
    if is_list(kind):
        return _plain_list(array)
    return array.cast(wanted)


def _plain_list(array: pa.Array) -> pa.Array:
    # flatten() honours slices and leaves out what lies under null lists.
    return with_items(array, plain(array.flatten()))


def with_items(array: pa.Array, items: pa.Array, kind: pa.DataType | None = None) -> pa.Array:
    """The lists of `array` (n lists, perhaps null) with other items, one for each of theirs in order.

    Args:
        kind: a large_list of the items' type; by default one with Arrow's own name of the item.
    """
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    mask = array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), items, type=kind, mask=mask)


def field_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a column, or of the path of a field within a struct or a list of structs; None: there is none.

    A column whose own name is `name`, dots included, comes before a path.

    Raises:
        DataError: two columns have the name.
    """
    found = schema.get_all_field_indices(name)
    if len(found) > 1:
        raise DataError(f"is there {len(found)} times; give each column a name of its own", column=name)
    if found:
        return schema.field(found[0]).type
    for top, rest in _paths(name):
        if schema.get_all_field_indices(top):
            return _inner_type(field_type(schema, top), rest)
    return None


def stored_column(schema: pa.Schema, name: str) -> str | None:
    """The column of the schema that holds `name`: itself, or the struct at the beginning of its path."""
    if schema.get_all_field_indices(name):
        return name
    return next((top for top, _ in _paths(name) if schema.get_all_field_indices(top)), None)


def take_column(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array | pa.ChunkedArray | None:
    """A column of a table by its name, or a struct's field by its path; plain. None: there is none."""
    found = table.schema.get_all_field_indices(name)
    if len(found) > 1:
        raise DataError(f"is there {len(found)} times; give each column a name of its own", column=name)
    if found:
        return plain(table.column(found[0]))
    for top, rest in _paths(name):
        if table.schema.get_all_field_indices(top):
            column = take_column(table, top)
            return None if column is None else _inner(column, rest)
    return None


def _paths(name: str) -> list[tuple[str, str]]:
    """The ways to part a dotted name into a column and a path below it, the longest column first."""
    parts = name.split(".")
    return [(".".join(parts[:n]), ".".join(parts[n:])) for n in range(len(parts) - 1, 0, -1)]


def _inner_type(kind: pa.DataType | None, path: str) -> pa.DataType | None:
    if kind is not None and is_list(kind):
        items = _inner_type(kind.value_type, path)
        return None if items is None else pa.large_list(items)
    if kind is None or not pa.types.is_struct(kind):
        return None
    return field_type(pa.schema(list(kind)), path)


def _inner(column: Any, path: str) -> Any:
    if isinstance(column, pa.ChunkedArray):
        parts = [_inner(chunk, path) for chunk in column.chunks]
        if any(part is None for part in parts):
            return None
        wanted = _inner_type(column.type, path)
        return None if wanted is None else pa.chunked_array(parts, plain_type(wanted))
    if is_list(column.type):
        items = _inner(column.flatten(), path)
        return None if items is None else with_items(column, items)
    names = [field.name for field in column.type] if pa.types.is_struct(column.type) else []
    for top, rest in [(path, ""), *_paths(path)]:
        if top in names:
            field = pc.struct_field(column, [names.index(top)])
            return _inner(plain(field), rest) if rest else plain(field)
    return None
