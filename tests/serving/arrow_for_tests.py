"""Tables as clients send them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def arrow(table: pa.Table, **options: Any) -> bytes:
    """An Arrow IPC stream; `options` are those of `IpcWriteOptions`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
