"""An entry's bytes: one Arrow IPC stream of a schema and one record batch, the same in every log."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import partial
from typing import Any

import pyarrow as pa

from embtables.errors import DataError, EventLogError
from embtables.state.format.arrow_footer import is_compressed

MAX_ENTRY_BYTES = 64 << 20
"""Of one entry's Arrow IPC stream, in bytes; a log may take less."""


def encode(events: pa.RecordBatch, max_bytes: int = MAX_ENTRY_BYTES) -> memoryview:
    """The bytes of an entry.

    Raises:
        DataError: the batch has no rows, or needs more than `max_bytes`.
    """
    if not isinstance(events, pa.RecordBatch):
        raise DataError(f"an entry is a pyarrow.RecordBatch, received {type(events).__name__}")
    if not events.num_rows:
        raise DataError("an entry needs at least one event, received a batch without rows")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, events.schema) as writer:
        writer.write_batch(events)
    encoded = memoryview(sink.getvalue())
    if encoded.nbytes > max_bytes:
        raise DataError(
            f"{events.num_rows:,} events take {encoded.nbytes:,} bytes, more than the {max_bytes:,} of one entry; "
            "append them in several batches"
        )
    return encoded


def decode(encoded: bytes | memoryview, **path: object) -> pa.RecordBatch:
    """The events of an entry. Its values are checked, so that nothing that a foreign writer made can crash a reader.

    Raises:
        EventLogError: the bytes are not what `encode` makes; `path` says where they lie.
    """
    try:
        _refuse_compressed(encoded, path)
        with pa.ipc.open_stream(pa.py_buffer(encoded)) as reader:
            events = reader.read_next_batch()
        events.validate(full=True)
        _decode_names(events.schema)
    except (pa.ArrowException, StopIteration, OSError, ValueError, struct.error) as error:
        raise EventLogError(f"an entry is not a record batch as an Arrow IPC stream: {error}", **path) from error
    if not events.num_rows:
        raise EventLogError("an entry has no events", **path)
    return events


def _refuse_compressed(encoded: bytes | memoryview, path: dict[str, object]) -> None:
    """Arrow would decompress without asking how much memory that takes."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(encoded))
    for message in iter(partial(_next_message, reader), None):
        dictionary = message.type == "dictionary"
        if message.type in ("record batch", "dictionary") and is_compressed(
            message.metadata.to_pybytes(), dictionary=dictionary
        ):
            raise EventLogError("an entry is compressed, which this package never writes", **path)


def _next_message(reader: Any) -> Any:
    """None where there is no more."""
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _decode_names(fields: Iterable[pa.Field]) -> None:
    """Raises UnicodeDecodeError, a ValueError, where a name is not UTF-8: Arrow does not look."""
    for field in fields:
        _ = field.name
        if not pa.types.is_dictionary(field.type):
            _decode_names(field.type.field(i) for i in range(field.type.num_fields))
