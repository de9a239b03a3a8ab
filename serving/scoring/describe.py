"""`ModelDescription`: what `/v1/model` says of a version."""

from __future__ import annotations

import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from embtables.arrow.types import is_list, is_text
from embtables.inputs.id_kinds import IdKind
from embtables.inputs.join_keys import key_family
from embtables.schema import CollisionlessTable, Feature
from embtables.serving import wire
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.counts import Counts
from embtables.serving.scoring.lookup.embedding import Embedder
from embtables.serving.versions.served_version import ServedVersion
from embtables.tables.served_tables import ServedTables

_EXAMPLES = {
    "id": 1,
    "integer": 1,
    "number": 1.0,
    "string": "a",
    "timestamp": "2011-11-01T08:30:00Z",
    "list of ids": [1, 2],
    "list of integers": [1, 2],
    "list of strings": ["a", "b"],
    "list of numbers": [1.0, 0.5],
}
_OF_IDS: dict[IdKind | None, str] = {"strings": "string", "integers": "integer"}


class ModelDescription:
    """What does not change while a version answers is made once.

    Args:
        version: to describe.
        rules: the columns of its requests.
        embedder: over its tables.

    Attributes:
        columns: what requests may give.
    """

    def __init__(self, version: ServedVersion, rules: ColumnRules, embedder: Embedder) -> None:
        self._version, self._rules = version, rules
        self._written_at = (
            datetime.strptime(version.manifest.written, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        )
        self.columns = [self._column(name) for name in rules.needed]
        self._features = [wire.FeatureInfo(name, read.table.name, read.dim) for name, read in embedder.readers.items()]

    def now(
        self,
        name: str,
        engine: wire.EngineInfo,
        follow: wire.FollowInfo,
        counts: Counts,
        running: wire.RunningInfo | None,
    ) -> wire.ModelInfo:
        """The whole description.

        Args:
            name: of the model.
            engine: what computes its scores.
            follow: how newer versions come.
            counts: of requests so far.
            running: what the server computes of events.
        """
        version, schema = self._version, self._version.content.trained
        rows = version.row_version
        is_newest = follow.newest in (None, rows)
        return wire.ModelInfo(
            name=name,
            model=schema.model.kind,
            labels=[label.name or label.column for label in schema.labels],
            versions=wire.Versions(version.name, rows),
            written_at=self._written_at,
            loaded_at=version.loaded_at,
            staleness_seconds=0.0 if is_newest else max(0.0, time.time() - self._written_at),
            columns=self.columns,
            features=self._features,
            tables=self._tables(counts),
            engine=engine,
            follow=follow,
            side_tables=[
                wire.SideTableInfo(
                    name, list(side.of.keys), list(side.of.columns), side.of.rows, counts.missing_keys[name]
                )
                for name, side in version.side_tables.items()
            ],
            item_column=self._rules.candidate_key,
            memory_bytes=_memory_bytes(),
            running=running,
        )

    def _tables(self, counts: Counts) -> list[wire.TableInfo]:
        tables = self._version.scorer.tables
        assert isinstance(tables, ServedTables)
        return [
            wire.TableInfo(
                name=config.name,
                kind=config.kind,
                dim=config.dim,
                dtype=entry.dtype if (entry := self._version.manifest.tables.get(config.name)) else "fp32",
                rows=tables.num_rows(config.name),
                bytes=tables.num_bytes(config.name),
                ttl_seconds=config.ttl_seconds if isinstance(config, CollisionlessTable) else None,
                ids=counts.ids[config.name],
                cold_ids=counts.cold_ids[config.name],
            )
            for config in tables.configs
        ]

    def _column(self, name: str) -> wire.ColumnInfo:
        schema = self._version.content.trained
        readers = [feature for feature in schema.features if name in feature.columns]
        of = [feature.name for feature in readers] + [d.column for d in schema.dense if d.column == name]
        given = self._given_by_side_table(name)
        kind = _kind_of(given.type) if given is not None else self._kind(name, readers)
        example = _example(given) if given is not None else _EXAMPLES.get(kind)
        is_joined = name in self._rules.joined
        example = _EXAMPLES.get(kind) if example is None else example
        return wire.ColumnInfo(name, kind, of, is_joined, example, name in self._rules.running)

    def _given_by_side_table(self, name: str) -> pa.ChunkedArray | None:
        """What a side table has in a column, or in the key of this name."""
        for side in self._version.side_tables.values():
            if name in side.table.column_names:
                return side.table.column(name)
        return None

    def _kind(self, name: str, readers: list[Feature]) -> str:
        reading = self._rules.reading(name)
        if reading == "times":
            return "timestamp"
        if reading not in {"ids", "numbers"}:
            return "integer"
        if any(feature.split is not None for feature in readers):
            return "string"
        is_list = any(f.cross is None and (f.pooling != "sum" or f.max_length is not None) for f in readers)
        if reading == "numbers":
            return "list of numbers" if any(f.weights_column == name for f in readers) and is_list else "number"
        one = _OF_IDS.get(self._version.content.id_kinds.get(name), "id")
        return f"list of {one}s" if is_list else one


def _kind_of(kind: pa.DataType) -> str:
    if is_list(kind):
        return f"list of {_kind_of(kind.value_type)}s"
    if is_text(kind):
        return "string"
    if key_family(kind) == "time":
        return "timestamp"
    return "integer" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else "number"


def _example(column: pa.ChunkedArray) -> object:
    """The first value of a column that JSON can hold; None: there is none."""
    found = column.slice(0, 100).drop_null()
    if not len(found) or key_family(column.type) == "time":
        return None
    value = found[0].as_py()
    if isinstance(value, list):
        value = value[:3]
    return value if isinstance(value, str | int | float | list) else None


def _memory_bytes() -> int:
    """Of this process what is resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
