"""Arrow IPC streams as they come from outside: looked at before anything is made of them.

A stream may lie: a few bytes may stand for a billion rows (nulls, run ends), compressed buffers may grow without bound,
offsets may point outside. So: no compression (read from each message's head, before its body is), few and plain column
types, rows counted before columns are touched, and all offsets checked.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embtables.serving.http.exchange.parse import MAX_TEXT, Caps
from embtables.serving.refusals import Refusal

_MAX_COLUMNS = 4096
_DICTIONARY, _BATCH = 2, 3  # kinds of messages with buffers
_CONTINUES = b"\xff\xff\xff\xff"


def read_rows(body: bytes, caps: Caps) -> pa.Table:
    """The rows (K,) of a stream.

    Raises:
        Refusal: 400 it is no such stream; 422 with the column: too many rows, types that no column may have, lists that
            are too long, numbers that are NaN or infinite.
    """
    try:
        _refuse_compression(body)
    except (struct.error, IndexError):
        raise Refusal(400, "the body is no Arrow IPC stream: a message is cut off or damaged") from None
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_schema(reader.schema)
            batches, rows = [], 0
            for batch in reader:
                rows += batch.num_rows
                if rows > caps.candidates:
                    reason = f"has more than {caps.candidates:,} rows, the most that are taken: ask in parts"
                    raise Refusal(422, reason, "rows")
                batch.validate(full=True)
                batches.append(batch)
            schema = reader.schema
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = str(error).partition("\n")[0][:200]
        raise Refusal(400, f"the body is no Arrow IPC stream that can be read: {first}") from None
    if not rows:
        raise Refusal(422, "has no rows: there is nothing to score", "rows")
    table = pa.Table.from_batches(batches, schema)
    for name, column in zip(table.column_names, table.columns, strict=True):
        _check_values(name, column, caps)
    return table


def _check_schema(schema: pa.Schema) -> None:
    if len(schema) > _MAX_COLUMNS:
        raise Refusal(422, f"has {len(schema):,} columns, at most {_MAX_COLUMNS:,} are taken", "rows")
    for field in schema:
        if not _is_plain(field.type):
            raise Refusal(422, f"a column of type {str(field.type)[:60]} is not read", field.name[:128])
    if len(set(schema.names)) < len(schema):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise Refusal(422, "the column is there twice", twice[:128])


def _is_plain(kind: pa.DataType, *, in_list: bool = False) -> bool:
    if pa.types.is_dictionary(kind):
        return not in_list and _is_text(kind.value_type)
    if not in_list and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return _is_plain(kind.value_type, in_list=True)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null, pa.types.is_temporal)
    return _is_text(kind) or any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _check_values(name: str, column: pa.ChunkedArray, caps: Caps) -> None:
    if pa.types.is_dictionary(column.type):
        _check_entries(name, column)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column)
        if (longest := pc.max(lengths).as_py() or 0) > caps.list_length:
            row = pc.index(lengths, longest).as_py()
            reason = f"has {longest:,} entries, at most {caps.list_length:,} are taken"
            raise Refusal(422, reason, f"rows.{row}.{name}"[:200])
        column = pc.list_flatten(column)
        if pa.types.is_floating(column.type) and not _all_finite(column):
            raise Refusal(422, "a list has a number that is NaN or infinite", f"rows.{name}"[:200])
    elif pa.types.is_floating(column.type) and not _all_finite(column):
        row = pc.index(pc.is_finite(column), False).as_py()
        raise Refusal(
            422, "the number is NaN or infinite; leave it out (null) if it is unknown", f"rows.{row}.{name}"[:200]
        )


def _check_entries(name: str, column: pa.ChunkedArray) -> None:
    """A dictionary's strings, as often as rows name them, are not much more than what came."""
    longest = max((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0)
    if longest > MAX_TEXT:
        raise Refusal(422, f"has a string of {longest:,} bytes, at most {MAX_TEXT:,} are taken", name[:128])


def _all_finite(column: pa.ChunkedArray) -> bool:
    return pc.all(pc.is_finite(column), min_count=0).as_py() is True


def _refuse_compression(body: bytes) -> None:
    """Raises Refusal if a message of a stream says that its buffers are compressed."""
    place = 0
    while place + 8 <= len(body):
        if body[place : place + 4] != _CONTINUES:
            raise Refusal(400, "the body is no Arrow IPC stream")
        (size,) = struct.unpack_from("<i", body, place + 4)
        if size == 0:
            return
        head = memoryview(body)[place + 8 : place + 8 + size]
        if size < 0 or len(head) < size:
            raise Refusal(400, "the body is no Arrow IPC stream: a message is cut off")
        message = _Flat.root(head)
        kind = message.scalar("<B", 1)
        if kind in (_DICTIONARY, _BATCH):
            batch = message.table(2)
            batch = batch.table(1) if batch is not None and kind == _DICTIONARY else batch
            if batch is None or batch.has(3):
                raise Refusal(415, "compressed Arrow buffers are not read: write the stream without compression")
        length = message.scalar("<q", 3)
        if length < 0:
            raise Refusal(400, "the body is no Arrow IPC stream: a message has a negative length")
        place += 8 + size + length


class _Flat:
    """A table of a flatbuffer: fields by number. struct.error where it points outside."""

    def __init__(self, data: memoryview, place: int) -> None:
        self._data, self._place = data, place
        self._fields = place - self._number("<i", place)
        self._size = self._number("<H", self._fields) if self._fields >= 0 else 0

    @classmethod
    def root(cls, data: memoryview) -> _Flat:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _number(self, form: str, place: int) -> int:
        if place < 0:
            raise struct.error("outside")
        found: int = struct.unpack_from(form, self._data, place)[0]
        return found

    def _offset(self, field: int) -> int:
        entry = 4 + 2 * field
        return self._number("<H", self._fields + entry) if entry + 2 <= self._size else 0

    def has(self, field: int) -> bool:
        return self._offset(field) != 0

    def scalar(self, form: str, field: int) -> int:
        offset = self._offset(field)
        return self._number(form, self._place + offset) if offset else 0

    def table(self, field: int) -> _Flat | None:
        offset = self._offset(field)
        if not offset:
            return None
        place = self._place + offset
        return _Flat(self._data, place + self._number("<I", place))


def write_scores(labels: tuple[str, ...], scores: Any) -> bytes:
    """A stream with a float32 column for each label. `scores`: (K, n_labels) float32."""
    table = pa.table([pa.array(scores[:, number]) for number in range(len(labels))], list(labels))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
