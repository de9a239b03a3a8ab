"""Events that tests append."""

from __future__ import annotations

import pyarrow as pa


def events(start: int, rows: int = 3, **more: pa.Array) -> pa.RecordBatch:
    """Events start, start + 1, ...: enough columns to tell them apart."""
    ids = range(start, start + rows)
    return pa.record_batch(
        {
            "event_id": [f"e{i}" for i in ids],
            "kind": ["click"] * rows,
            "event_time": pa.array(ids, pa.timestamp("us")),
            "request_id": [f"r{i // 2}" if i % 5 else None for i in ids],
            **more,
        }
    )
