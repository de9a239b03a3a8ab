"""A service over one version of a really trained run, which never changes: for tests of what lies around a service."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embtables.models.scorer import Scorer
from embtables.serving import wire
from embtables.serving.refusals import Refusal, unknown
from embtables.serving.rows_request import RowsRequest
from embtables.serving.service import Embedded, Request, RowBytes, Scored
from embtables.serving.versions.live import place_of

HELD = "held"


class ScorerService:
    """Scores by `Scorer`; a candidate is a row. A request with the column `held` waits for the signal SIGUSR1."""

    running = None  # it folds no events

    def __init__(self, run: Path) -> None:
        self._run = run
        self._scorer: Scorer | None = None
        self._released = asyncio.Event()
        self._state = "following"

    async def start(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._released.set)
        self._scorer = Scorer.from_version(self._run, "last")
        self._versions = wire.Versions("serving-2", "serving-3")

    async def stop(self) -> None:
        self._scorer = None

    @property
    def scorer(self) -> Scorer:
        if self._scorer is None:
            raise Refusal(503, "no version is loaded", retry_after=1)
        return self._scorer

    async def reach(self, dense: str | None, rows: str | None) -> None:
        for field, seen, own in (("dense", dense, self._versions.dense), ("rows", rows, self._versions.rows)):
            if seen is not None and place_of(seen) > place_of(own):
                raise Refusal(503, f"the newest {field} version is {own}", retry_after=1)

    async def score(self, request: wire.ScoreRequest | RowsRequest) -> Scored:
        request = request.whole() if isinstance(request, RowsRequest) else request
        rows = request.rows or [{**request.context, **candidate} for candidate in request.candidates or ()]
        return await self.score_table(self._table(rows))

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        known = ["user", "item", "tags", "price", HELD]
        for place, row in enumerate(rows):
            for name in row:
                if name not in known:
                    raise unknown("column", name, known, f"candidates.{place}.{name}")
        try:
            return pa.Table.from_pylist(rows)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise Refusal(422, f"values of one column have different types: {error}", "candidates") from None

    async def score_table(self, rows: pa.Table) -> Scored:
        if HELD in rows.column_names:
            await self._released.wait()
            rows = rows.drop_columns([HELD])
        scores = self.scorer.score(rows).numpy()
        labels = tuple(label.name or label.column for label in self.scorer.schema.labels)
        return Scored(labels, scores, self._versions, wire.ColdIds(), {"features": 5.0, "lookup": 3.0, "dense": 20.0})

    def embed(self, *, feature: str | None, table: str | None, ids: Any) -> Embedded:
        if feature is None:
            assert table is not None
            tables = [config.name for config in self.scorer.tables.configs]
            raise unknown("table", table, tables, "table", status=404)
        features = [each.name for each in self.scorer.schema.features]
        if feature not in features:
            raise unknown("feature", feature, features, "feature", status=404)
        rows = self.scorer.embed(feature, ids).numpy()
        return Embedded(rows, np.zeros(len(rows), np.bool_), self._versions)

    async def fingerprints(self, request: Request, versions: wire.Versions) -> dict[str, str]:
        return {"user": "0123456789abcdef"}

    async def explain(self, request: wire.ScoreRequest) -> wire.ExplainAnswer:
        if len(request.candidates or request.rows or ()) != 1:
            raise Refusal(422, "one candidate is explained at a time", "candidates")
        part = wire.FeaturePart("user", "cold", {"label": 0.5}, "user", [wire.RowInfo(3, False, 1.0, 60)])
        return wire.ExplainAnswer("", {"label": 0.75}, {"label": 1.1}, self._versions, [part])

    def embed_bytes(self, *, feature: str | None, table: str | None, ids: Any) -> RowBytes:
        found = self.embed(feature=feature, table=table, ids=ids)
        return RowBytes(found.rows.tobytes(), found.rows.shape[1], int(found.is_cold.sum()), found.versions)

    def model(self) -> wire.ModelInfo:
        schema = self.scorer.schema
        columns = [
            wire.ColumnInfo("user", "integer", ["user"], example=3),
            wire.ColumnInfo("item", "string", ["item"], example="item-4"),
            wire.ColumnInfo("tags", "list of integers", ["tags"], example=[1, 2]),
            wire.ColumnInfo("price", "number", ["price"], example=1.5),
        ]
        tables = [
            wire.TableInfo(
                each.name, "fixed", each.dim, "fp32", self.scorer.tables.stats()[each.name].rows, 4096, None, 50, 7
            )
            for each in self.scorer.tables.configs
        ]
        return wire.ModelInfo(
            name=schema.name or "small",
            model="dcnv2",
            labels=["label"],
            versions=self._versions,
            written_at=time.time() - 20,
            loaded_at=time.time() - 10,
            staleness_seconds=20.0,
            columns=columns,
            features=[wire.FeatureInfo(each.name, each.table, 8) for each in schema.features],
            tables=tables,
            engine=wire.EngineInfo("exact", "torch"),
            follow=self.follow_info(),
            memory_bytes=10**8,
        )

    def follow_info(self) -> wire.FollowInfo:
        rejected = wire.RejectedDelta("serving-4", "values", "table user: a row is not finite", time.time() - 5)
        return wire.FollowInfo(
            self._state, ["serving-1", "serving-2", "serving-3"], "serving-4", 3, 100, 5, {"values": 1}, rejected
        )

    def is_ready(self) -> tuple[bool, str]:
        return (self._scorer is not None, "" if self._scorer is not None else "no version is loaded")

    def pin(self, version: str) -> None:
        known = self.follow_info().available
        if version not in known:
            raise unknown("version", version, known, "version", status=404)
        self._versions = wire.Versions(version, version)
        self._state = "pinned"

    def version_before(self) -> str:
        return "serving-1"

    def follow(self) -> None:
        self._versions = wire.Versions("serving-2", "serving-3")
        self._state = "following"

    def pause(self) -> None:
        self._state = "paused"
