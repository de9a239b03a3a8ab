"""`LiveService`: answers of the version that is live: its scores, its rows, and what is known of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from embtables.serving import wire
from embtables.serving.events.served import need_free_names
from embtables.serving.refusals import Refusal
from embtables.serving.rows_request import RowsRequest
from embtables.serving.running.live_running import LiveRunning
from embtables.serving.scoring.batches import Batches
from embtables.serving.scoring.counts import Counts
from embtables.serving.scoring.engines.choose import GREATEST_ERROR
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.scoring.warm import recorded_requests
from embtables.serving.service import Embedded, Request, RowBytes, Scored
from embtables.serving.settings import Settings
from embtables.serving.trust.explain import explain
from embtables.serving.trust.fingerprints import served_fingerprints
from embtables.serving.versions.checks import ValueLimits
from embtables.serving.versions.follow import Following, FollowSettings
from embtables.serving.versions.live import Live
from embtables.serving.versions.served_version import ServedVersion

_RETRY_SECONDS = 1


class Follows(Protocol):
    """What brings versions to a `Live`, as `Service` says of its methods of the same names."""

    def start(self) -> None:
        """Begins in a thread of its own."""

    def stop(self) -> None:
        """Ends the thread."""

    def info(self) -> wire.FollowInfo:
        """How it follows."""

    def why_not_ready(self) -> str | None:
        """Why there is no version yet; None if there is one."""

    def pin(self, version: str) -> None:
        """See Service."""

    def version_before(self) -> str:
        """See Service."""

    def follow(self) -> None:
        """See Service."""

    def pause(self) -> None:
        """See Service."""


class PreparedLive(Live):
    """A `Live` for scoring: what that needs of a version is made before it answers, and dropped once another one does.

    Args:
        make: makes it, on the thread that follows.
        keep: drops what was made of all other versions, on the same thread.
    """

    def __init__(self, make: Callable[[ServedVersion], object], keep: Callable[[ServedVersion], None]) -> None:
        super().__init__()
        self._make, self._keep = make, keep

    def prepare(self, version: ServedVersion) -> None:
        """See Live."""
        self._make(version)

    def put(self, version: ServedVersion) -> None:
        """See Live."""
        super().put(version)
        self._keep(version)


class LiveService:
    """See `Service`. Shape letters: K candidates, n ids, D dimension.

    Args:
        follows: makes what brings versions to the `Live` that it is given.
        name: of the model, for whoever looks at the server.
        threads: that score; by default as many as there are cores.
        max_batch_rows: rows of requests that are scored together.
        max_wait_ms: how long a free thread waits for more requests before it scores; by default not at all.
        max_queue: requests that wait to be scored; further ones get 429.
        mode: exact; or fast, by the fastest engine whose scores differ by at most `greatest_error`.
        recorded: requests to warm versions with, and to choose the engine by.
        logs_served: a version whose columns have names of those that impressions have is not taken.
        running: computes columns of the events of a log; None: there is no log.
    """

    def __init__(
        self,
        follows: Callable[[Live], Follows],
        *,
        name: str = "model",
        threads: int | None = None,
        max_batch_rows: int = 4096,
        max_wait_ms: float = 0.0,
        max_queue: int = 256,
        mode: Literal["exact", "fast"] = "exact",
        greatest_error: float = GREATEST_ERROR,
        recorded: Sequence[wire.ScoreRequest] = (),
        logs_served: bool = False,
        running: LiveRunning | None = None,
    ) -> None:
        self._mode, self._greatest_error, self._recorded = mode, greatest_error, tuple(recorded)
        self._logs_served = logs_served
        self.running = running
        self.live = PreparedLive(self._prepare, self._keep)
        self.counts = Counts()
        self._follows = follows(self.live)
        self._name = name
        self._scorers: tuple[RequestScorer, ...] = ()  # of the version that answers, and of one that will
        self._preparing = threading.Lock()
        self._batches = Batches[Request, Scored](
            self._answer,
            threads=threads or len(os.sched_getaffinity(0)),
            max_rows=max_batch_rows,
            max_queue=max_queue,
            max_wait_ms=max_wait_ms,
            begin=_one_thread,
        )

    async def start(self) -> None:
        """See Service."""
        self._follows.start()

    async def stop(self) -> None:
        """See Service."""
        self._batches.stop()
        if self.running is not None:
            self.running.end()
        self._follows.stop()
        if self.running is not None:
            self.running.close()

    async def reach(self, dense: str | None, rows: str | None) -> None:
        """See Service."""
        await self.live.reach(dense, rows)

    async def score(self, request: wire.ScoreRequest | RowsRequest) -> Scored:
        """See Service."""
        if isinstance(request, RowsRequest):
            return await self._batches.ask(request, request.rows.num_rows)
        rows = request.rows if request.rows is not None else request.candidates
        return await self._batches.ask(request, len(rows or ()))

    async def score_table(self, rows: pa.Table) -> Scored:
        """See Service."""
        return await self._batches.ask(rows, rows.num_rows)

    def embed(self, *, feature: str | None, table: str | None, ids: Any) -> Embedded:
        """See Service."""
        scorer = self._current()
        versions = scorer.versions()
        if feature is not None and table is None:
            rows, is_cold, of = scorer.embedder.of_feature(feature, ids)
        elif table is not None and feature is None:
            rows, is_cold, of = scorer.embedder.of_table(table, ids)
        else:
            raise Refusal(422, "give feature and ids, or table and keys", "feature")
        self.counts.add_of(of, len(is_cold), int(np.count_nonzero(is_cold)))
        return Embedded(rows, is_cold, versions)

    def embed_bytes(self, *, feature: str | None, table: str | None, ids: npt.NDArray[np.int64]) -> RowBytes:
        """See Service."""
        scorer = self._current()
        versions = scorer.versions()
        rows, dim, cold, of = scorer.embedder.bytes_of(feature, table, ids)
        self.counts.add_of(of, len(ids), cold)
        return RowBytes(rows, dim, cold, versions)

    async def fingerprints(self, request: Request, versions: wire.Versions) -> dict[str, str]:
        """See Service."""
        scorer = self._current()

        def taken() -> dict[str, str]:
            if not self._is_settled(scorer, versions):
                return {}
            found = served_fingerprints(scorer, request)
            return found if self._is_settled(scorer, versions) else {}

        return await asyncio.to_thread(taken)

    @staticmethod
    def _is_settled(scorer: RequestScorer, versions: wire.Versions) -> bool:
        """Whether rows are those of these versions and of no other."""
        version = scorer.version
        return versions == wire.Versions(version.name, version.row_version) and not version.applied.is_changing

    async def explain(self, request: wire.ScoreRequest) -> wire.ExplainAnswer:
        """See Service."""
        scorer = self._current()
        versions = scorer.versions()
        return await asyncio.to_thread(explain, scorer, request, versions)

    def model(self) -> wire.ModelInfo:
        """See Service."""
        scorer = self._current()
        running = None if self.running is None else self.running.info()
        return scorer.description.now(self._name, scorer.engine, self._follows.info(), self.counts, running)

    def follow_info(self) -> wire.FollowInfo:
        """See Service."""
        return self._follows.info()

    def is_ready(self) -> tuple[bool, str]:
        """See Service."""
        why = None if self.running is None else self.running.why_not_ready()
        if why is not None:
            return False, why
        if self.live.current is not None:
            return True, ""
        return False, self._follows.why_not_ready() or "no version is loaded yet"

    def pin(self, version: str) -> None:
        """See Service."""
        self._follows.pin(version)

    def version_before(self) -> str:
        """See Service."""
        return self._follows.version_before()

    def follow(self) -> None:
        """See Service."""
        self._follows.follow()

    def pause(self) -> None:
        """See Service."""
        self._follows.pause()

    def _prepare(self, version: ServedVersion) -> RequestScorer:
        """What scoring needs of a version; made once, and from that of the version before as far as it is the same."""
        with self._preparing:
            found = self._made_for(version)
            if found is None:
                if self._logs_served:
                    need_free_names(version.content.trained)
                fold = None if self.running is None else self.running.need(version.content)
                current = tuple(scorer for scorer in self._scorers if scorer.version is self.live.current)
                how: dict[str, Any] = {"mode": self._mode, "greatest_error": self._greatest_error}
                found = RequestScorer(version, *current, fold=fold, **how)
                found.warm(self._recorded)
                self._scorers = (found, *current)
            return found

    def _keep(self, version: ServedVersion) -> None:
        """Drops what was made of other versions, and so their rows: requests that are being answered have their own."""
        with self._preparing:
            self._scorers = tuple(scorer for scorer in self._scorers if scorer.version is version)

    def _made_for(self, version: ServedVersion) -> RequestScorer | None:
        for scorer in self._scorers:
            if scorer.version is version:
                return scorer
        return None

    def _current(self) -> RequestScorer:
        """Of the version that is live. Raises Refusal 503 until there is one."""
        while True:
            version = self.live.current
            if version is None:
                raise Refusal(503, "no version is loaded yet; ask again", retry_after=_RETRY_SECONDS)
            found = self._made_for(version)
            if found is not None:
                return found
            if version is self.live.current:  # put without being prepared; if not, another one was put meanwhile
                return self._prepare(version)

    def _answer(self, requests: Sequence[Request], waited_us: Sequence[float]) -> list[Scored | BaseException]:
        """Scores of requests that were waiting, all by one version."""
        scorer = self._current()
        # Before rows are looked up: what is then found is of this version or of one that came meanwhile.
        versions = scorer.versions()
        answers: list[Scored | BaseException] = []
        for found, waited in zip(scorer.score_all(requests), waited_us, strict=True):
            if isinstance(found, BaseException):
                answers.append(found)
                continue
            self.counts.add(*found.of.counts(), found.missing)
            stages = {"wait": waited, **found.stages_us}
            served = asked = None
            if self._logs_served and found.given is not None:
                served = partial(scorer.served, found.given)
            if scorer.fills and found.given is not None:
                asked = found.given.request
            answers.append(Scored(scorer.labels, found.of.scores, versions, found.of.cold_ids(), stages, served, asked))
        return answers


def _one_thread() -> None:
    """A request's products are small: a thread computes its own, and several requests go side by side."""
    torch.set_num_threads(1)


def live_service(settings: Settings) -> LiveService:
    """The service of a server with these settings: the versions of its source, followed.

    Raises:
        ConfigError: the source is neither a run nor a folder of versions.
    """
    running = None
    if settings.events is not None:
        running = LiveRunning(settings.events, settings.running_dir, settings.running_checkpoint_seconds)
    limits = ValueLimits(greatest_norm=settings.greatest_norm, norm_ratio=settings.norm_ratio)
    follow = FollowSettings(poll_seconds=settings.poll_seconds, limits=limits)
    return LiveService(
        lambda live: Following(settings.source, live, follow, settings.version),
        name=settings.source.resolve().name,
        threads=settings.threads,
        max_batch_rows=settings.max_batch_rows,
        max_wait_ms=settings.max_wait_ms,
        max_queue=settings.max_queue,
        mode=settings.mode,
        recorded=recorded_requests(settings.request_log),
        logs_served=settings.log_served,
        running=running,
    )
