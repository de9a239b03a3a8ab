"""What a server answered as impressions, one for each candidate: the ground on which clicks are joined and trained.

    event_id  <request id>/<number of the candidate>     kind  impression     event_time, request_id
    the columns that the model read, side tables and defaults among them, as they were then
    served_score (of further labels served_score_<label>), served_version: of dense weights, served_rows: of rows

The event time is that of the request (the schema's event time column where it has one), else when it came.
"""

from __future__ import annotations

import pyarrow as pa

from embtables.errors import ConfigError
from embtables.events.columns import EVENT_ID, EVENT_TIME, FORMAT, FORMAT_KEY, IMPRESSION, KIND, REQUEST_ID
from embtables.inputs.values import one_array
from embtables.schema import Schema
from embtables.serving.service import Scored, Served

SCORE, VERSION, ROWS = "served_score", "served_version", "served_rows"


def need_free_names(schema: Schema) -> None:
    """Raises ConfigError where a column that the model reads has the name of one that impressions have."""
    event_time = None if schema.event_time is None else schema.event_time.column
    taken = {EVENT_ID, KIND, REQUEST_ID, SCORE, VERSION, ROWS} | ({EVENT_TIME} - {event_time})
    read = {name for feature in schema.features for name in feature.columns} | {d.column for d in schema.dense}
    if both := sorted(taken & read):
        raise ConfigError(f"log_served: impressions have a column '{both[0]}' of their own; rename that of the log")


def impressions(request_id: str, scored: Scored, served: Served) -> pa.RecordBatch:
    """(K,) events of a request that was answered."""
    k = served.columns.num_rows
    found: dict[str, pa.Array] = {
        EVENT_ID: pa.array([f"{request_id}/{number}" for number in range(k)]),
        KIND: pa.array([IMPRESSION] * k),
        EVENT_TIME: pa.array(served.times_us).cast(pa.timestamp("us")),
        REQUEST_ID: pa.array([request_id] * k),
    }
    columns = served.columns
    found |= {name: one_array(columns.column(name)) for name in columns.column_names if name not in found}
    for place, label in enumerate(scored.labels):
        found[SCORE if place == 0 else f"{SCORE}_{label}"] = pa.array(scored.scores[:, place])
    found[VERSION], found[ROWS] = (pa.array([v] * k) for v in (scored.versions.dense, scored.versions.rows))
    schema = pa.schema([pa.field(name, of.type) for name, of in found.items()])
    return pa.record_batch(list(found.values()), schema=schema.with_metadata({FORMAT_KEY: str(FORMAT).encode()}))
