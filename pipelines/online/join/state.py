"""What the joiner of a partition knows, as a version holds it: small JSON, and Arrow tables for what may be large.

| table | rows | columns |
|---|---|---|
| events | open impressions, and actions that wait | key, time (us), entry (a row of `entries`), row, state |
| entries | entries in which a payload is needed, in the order of reading | position, clock (us) |
| columns | none | the columns that samples have had |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from embtables.errors import StateError
from embtables.pipelines.online.join.payloads import OpenEntry
from embtables.schema import Model

_LAST_US = 2**60
Time = Annotated[int, Field(strict=True, ge=-_LAST_US, le=_LAST_US)]
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]

EVENTS = pa.schema(
    [
        pa.field("key", pa.uint64()),
        pa.field("time", pa.int64()),
        pa.field("entry", pa.uint32()),
        pa.field("row", pa.uint32()),
        pa.field("state", pa.uint8()),
    ]
)
ENTRIES = pa.schema([pa.field("position", pa.string()), pa.field("clock", pa.int64())])


class JoinerContent(Model):
    """The small part of a joiner's state.

    Attributes:
        closed_until: the watermark up to which windows were closed, or are being.
        item_kind: what items are.
        counts: events by what became of them.
    """

    closed_until: Time | None
    item_kind: Literal["strings", "integers"] | None
    counts: dict[str, _Count]


@dataclass(frozen=True)
class JoinerState:
    """A joiner's state.

    Attributes:
        events, entries, columns: see the module.
    """

    content: JoinerContent
    events: pa.Table
    entries: pa.Table
    columns: pa.Table

    def check(self) -> None:
        """Raises StateError where the tables are not such tables."""
        for name, table, wanted in (("events", self.events, EVENTS), ("entries", self.entries, ENTRIES)):
            if not table.schema.equals(wanted):
                raise StateError(f"has columns {table.schema.names} of types {table.schema.types}", table=name)
            if any(column.null_count for column in table.columns):
                raise StateError("has a null", table=name)
        clocks = self.entries.column("clock").to_numpy()
        if len(clocks) and not -_LAST_US <= clocks.min() <= clocks.max() <= _LAST_US:
            raise StateError("has a clock beyond the range of times", table="entries")

    @contextmanager
    def faults(self) -> Iterator[None]:
        """What the parts of a joiner find wrong with the state is a StateError."""
        try:
            yield
        except ValueError as error:
            raise StateError(f"a joiner's state is damaged: {error}; take an older version") from error

    def event_arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """key, time, entry, row, state, each (n,)."""
        return tuple(np.ascontiguousarray(column.to_numpy()) for column in self.events.columns)

    def entries_read(self) -> list[tuple[str, int]]:
        """Position and clock of each entry."""
        positions, clocks = (column.to_pylist() for column in self.entries.columns)
        return list(zip(positions, clocks, strict=True))


def events_table(*arrays: npt.NDArray[Any]) -> pa.Table:
    """The table `events` of its columns."""
    return pa.table([pa.array(values) for values in arrays], schema=EVENTS)


def entries_table(entries: Sequence[OpenEntry]) -> pa.Table:
    """The table `entries`."""
    columns = ([e.position for e in entries], [e.clock_us for e in entries])
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, ENTRIES, strict=True)], schema=ENTRIES)
