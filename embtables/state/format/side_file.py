"""A side table of a serving version: one Arrow IPC file with one uncompressed record batch, `side.<n>.arrow`."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from embtables.errors import StateError
from embtables.state.format.arrow_footer import need_metadata
from embtables.state.format.arrow_writer import batch_pieces
from embtables.state.format.checksums import Digests
from embtables.state.format.manifest import Manifest

_NAME = re.compile(r"side\.(0|[1-9][0-9]{0,4})\.arrow")
_NOT_ARROW = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def side_file_name(number: int) -> str:
    """The name of the file of a version's side table: `side.0.arrow`."""
    return f"side.{number}.arrow"


def is_side_file(name: str) -> bool:
    """Whether a file of a version is a side table's."""
    return _NAME.fullmatch(name) is not None


def named_side_files(content: Mapping[str, Any]) -> list[str]:
    """The files of tables that a version's content names: what servers join, and what a reader of events goes on from;
    none where it is laid out in another way.
    """
    listed, training = content.get("side_tables"), content.get("state")
    files = [of.get("file") for of in listed if isinstance(of, dict)] if isinstance(listed, list) else []
    of_reader = training.get("reader_files") if isinstance(training, dict) else None
    files += list(of_reader.values()) if isinstance(of_reader, dict) else []
    return [name for name in files if isinstance(name, str) and is_side_file(name)]


def side_files_of(chain: Sequence[Manifest]) -> dict[str, Manifest]:
    """By file of the side tables of the last version of a chain the newest version that has it.

    Args:
        chain: that leads to the version, or the end of it; a file that none of them has is left out.
    """
    newest = {name: version for version in chain for name in version.files if is_side_file(name)}
    return {name: newest[name] for name in named_side_files(chain[-1].content) if name in newest}


class SideFile:
    """A side table, ready to be written.

    Args:
        table: its columns: numbers, times, text, and lists of them; dictionaries become values.

    Raises:
        StateError: a column has another type, or is longer than 2 GiB.
    """

    def __init__(self, table: pa.Table) -> None:
        schema = pa.schema([pa.field(f.name, stored_type(f.type), f.nullable) for f in table.schema])
        for field in schema:
            if not is_stored_type(field.type):
                raise StateError(f"a side table cannot be published with values of {field.type}", column=field.name)
        batches = table.cast(schema).combine_chunks().to_batches()
        if len(batches) > 1:
            raise StateError("a side table has a column of more than 2 GiB, which one file cannot hold")
        empty = [pa.array([], field.type) for field in schema]
        self._batch = batches[0] if batches else pa.record_batch(empty, schema=schema)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes of the file, in pieces."""
        return batch_pieces(self._batch)

    @cached_property
    def xxh3(self) -> str:
        """The checksum that the file will have."""
        digests = Digests()
        for chunk in self.chunks():
            digests.update(chunk)
        return digests.written().xxh3


def stored_type(type_: pa.DataType) -> pa.DataType:
    """The type that a column has in a file."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def parse_side_file(raw: memoryview, file: object) -> pa.Table:
    """The table in the bytes of a side table's file, which it keeps.

    Raises:
        StateError: these are not bytes that SideFile would have written.
    """

    def need(first: int, end: int) -> None:
        if not 0 <= first <= end <= len(raw):
            raise StateError(f"is damaged: it points to bytes {first}..{end} of its {len(raw)}", file=file)

    try:
        need_metadata(raw, need, file)
        reader = pa.ipc.open_file(pa.BufferReader(raw))
        for field in reader.schema:
            _ = field.name  # raises ValueError if it is not UTF-8
            if not is_stored_type(field.type):
                raise StateError(f"has values of {field.type}, which this build never writes", file=file)
        batch = reader.get_batch(0)
        # Values that take no room in the file may be as many as it likes.
        if batch.num_rows > 8 * len(raw):
            raise StateError(f"is damaged: {batch.num_rows:,} rows in {len(raw):,} bytes", file=file)
        batch.validate(full=True)
    except _NOT_ARROW as error:
        raise StateError(f"is damaged: {(str(error) or type(error).__name__).splitlines()[0]}", file=file) from error
    return pa.Table.from_batches([batch])


def is_stored_type(type_: pa.DataType) -> bool:
    """Whether values of a type take as much room in a file as in memory: dictionaries and runs may not."""
    kinds = pa.types
    if kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_):
        return is_stored_type(type_.value_type)
    known = (
        *(kinds.is_null, kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_temporal),
        *(kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary),
    )
    return any(is_it(type_) for is_it in known)
