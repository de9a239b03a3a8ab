"""A side table of a serving version: one Arrow IPC file with one uncompressed record batch, `side.<n>.arrow`."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from embtables.errors import StateError
from embtables.state.format.arrow_footer import need_metadata
from embtables.state.format.arrow_writer import batch_pieces
from embtables.state.format.checksums import Digests

_NAME = re.compile(r"side\.(0|[1-9][0-9]{0,4})\.arrow")
_NOT_ARROW = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def side_file_name(number: int) -> str:
    """The name of the file of a version's side table: `side.0.arrow`."""
    return f"side.{number}.arrow"


def is_side_file(name: str) -> bool:
    """Whether a file of a version is a side table's."""
    return _NAME.fullmatch(name) is not None


def named_side_files(content: Mapping[str, Any]) -> list[str]:
    """The files of the side tables that a version's content names; none where it is laid out in another way."""
    listed = content.get("side_tables")
    files = [of.get("file") for of in listed if isinstance(of, dict)] if isinstance(listed, list) else []
    return [name for name in files if isinstance(name, str) and is_side_file(name)]


class SideFile:
    """A side table, ready to be written.

    Args:
        table: its columns; dictionaries become values.

    Raises:
        StateError: a column is longer than 2 GiB.
    """

    def __init__(self, table: pa.Table) -> None:
        schema = pa.schema([pa.field(f.name, _plain(f.type), f.nullable) for f in table.schema])
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


def _plain(type_: pa.DataType) -> pa.DataType:
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
        if any(_has_dictionary(field.type) for field in reader.schema):
            raise StateError("has a column of a dictionary, which this build never writes", file=file)
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except _NOT_ARROW as error:
        raise StateError(f"is damaged: {(str(error) or type(error).__name__).splitlines()[0]}", file=file) from error
    return pa.Table.from_batches([batch])


def _has_dictionary(type_: pa.DataType) -> bool:
    inner = (type_.field(number).type for number in range(type_.num_fields))
    return pa.types.is_dictionary(type_) or any(_has_dictionary(each) for each in inner)
