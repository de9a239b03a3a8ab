"""`RowsRequest`: a request in JSON whose rows were read as columns, without an object for each value.

    body --native--> rows as an Arrow batch, the context as it was sent --msgspec--> RowsRequest
      \\-- anything but numbers, strings and nulls in rows of equal names: None, and it is read as a `ScoreRequest`

Both ways give the same columns. Most requests of many candidates are of this kind, and take a sixth of the time. Of
those that this way gives back, and of rows with a time each, the body is read twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pyarrow as pa

from embtables.native import _core
from embtables.serving import wire


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """See above. Shape letters: K candidates or rows.

    Attributes:
        rows: (K,) by column: int64, float64, string or null.
        mixed: columns of float64 in which some rows have integers.
        shape: equal for rows with equal names, types and `mixed`.
        rows_name: what the request calls them.
        body: the request.
    """

    request_id: str | None
    context: Mapping[str, Any]
    rows: pa.RecordBatch
    mixed: frozenset[str]
    shape: str
    rows_name: Literal["candidates", "rows"]
    body: bytes

    def whole(self) -> wire.ScoreRequest:
        """The same request with a value for each row and column."""
        return msgspec.json.decode(self.body, type=wire.ScoreRequest)


def read_rows_request(body: bytes) -> RowsRequest | None:
    """The request in a body; None if it is of another kind, or has a fault."""
    found = _core.read_json_rows(body)
    if found is None:
        return None
    try:
        text = found.context
        context = msgspec.json.decode(text) if text else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    name: Literal["candidates", "rows"] = "candidates" if found.is_candidates else "rows"
    rows, mixed = pa.record_batch(found), frozenset(found.mixed)
    return RowsRequest(found.request_id, context, rows, mixed, found.shape, name, body)
