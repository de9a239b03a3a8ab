"""The columns that every event has, and what their values may be; all other columns are the event's own."""

from __future__ import annotations

import pyarrow as pa

EVENT_ID = "event_id"
"""string, not null, 1 to 128 bytes: the same event has the same id however often it is appended."""

KIND = "kind"
"""string, not null: `impression`, or the name of an action (`click`, `purchase`), or any other."""

EVENT_TIME = "event_time"
"""timestamp in microseconds, UTC, not null: when it happened."""

REQUEST_ID = "request_id"
"""string or null: the request that an impression was served by, and an action belongs to."""

IMPRESSION = "impression"

FORMAT = 1
"""Of what these columns mean; the metadata of an entry's schema holds it under `FORMAT_KEY`."""

FORMAT_KEY = b"embtables.events"

COLUMNS = pa.schema(
    [
        pa.field(EVENT_ID, pa.string(), nullable=False),
        pa.field(KIND, pa.string(), nullable=False),
        pa.field(EVENT_TIME, pa.timestamp("us"), nullable=False),
        pa.field(REQUEST_ID, pa.string()),
    ]
)
