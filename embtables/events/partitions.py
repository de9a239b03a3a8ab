"""Which partition an event goes to: `hash(request_id) % P`, so that what belongs to a request lies in one partition."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.events.columns import EVENT_ID, REQUEST_ID
from embtables.ids.strings import hash_strings


def partitions_of(events: pa.RecordBatch, num_partitions: int) -> npt.NDArray[np.int64]:
    """(n,) int64 in [0, num_partitions): by the pinned hash of `request_id`, or of `event_id` where that is null.

    Args:
        events: n rows with these two columns, as `check_events` gives them.

    Raises:
        DataError: a column is missing.
    """
    for name in (REQUEST_ID, EVENT_ID):
        if name not in events.schema.names:
            raise DataError("events have no such column; check_events tells what is missing", column=name)
    requests: Any = events.column(REQUEST_ID)
    hashed = hash_strings(requests)
    if requests.null_count:
        alone = requests.is_null().to_numpy(zero_copy_only=False)
        hashed[alone] = hash_strings(events.column(EVENT_ID).filter(requests.is_null()))
    found: npt.NDArray[np.int64] = (hashed.view(np.uint64) % np.uint64(num_partitions)).astype(np.int64)
    return found


def by_partition(events: pa.RecordBatch, num_partitions: int) -> dict[int, pa.RecordBatch]:
    """The rows of each partition that has some, in their order. Raises as `partitions_of` does."""
    partitions = partitions_of(events, num_partitions)
    found = [int(p) for p in np.unique(partitions)]
    if len(found) == 1:
        return {found[0]: events}
    return {p: events.take(pa.array(np.flatnonzero(partitions == p))) for p in found}
