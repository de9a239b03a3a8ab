"""The bytes of an entry: what foreign writers may have put there is refused, and cannot crash a reader."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import DataError, EventLogError
from embtables.events.encoding import decode, encode
from tests.events.events_for_tests import events


def stream(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("encoded", [False, True])
def test_compressed_entries_are_refused(compression: str, encoded: bool) -> None:
    values = pa.array(["x" * 1000] * 1000)
    batch = pa.record_batch({"a": values.dictionary_encode() if encoded else values})
    assert decode(stream(batch)).equals(batch)
    with pytest.raises(EventLogError, match="compressed"):
        decode(stream(batch, compression), file="f")


def test_values_that_are_not_what_their_type_says_are_refused() -> None:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xff")])
    with pytest.raises(EventLogError, match="not a record batch"):
        decode(stream(pa.record_batch({"a": text})))


@settings(max_examples=2000)
@given(st.data())
def test_bytes_that_were_changed_give_events_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(encode(events(0)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(whole), data.draw(st.integers(0, len(whole)))]))
    try:
        found = decode(bytes(whole[:end]), file="f")
    except EventLogError as error:
        assert error.path["file"] == "f"
    else:
        assert decode(encode(found)).num_rows == found.num_rows
        assert all(isinstance(name, str) for name in found.schema.names)


def test_an_entry_that_is_too_large_is_refused() -> None:
    size = encode(events(0, 100)).nbytes
    assert encode(events(0, 100), size).nbytes == size
    with pytest.raises(DataError, match="append them in several batches"):
        encode(events(0, 100), size - 1)
    with pytest.raises(DataError, match=r"pyarrow\.RecordBatch, received dict"):
        encode({})  # type: ignore[arg-type]
