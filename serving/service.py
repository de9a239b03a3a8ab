"""`Service`: what the HTTP side calls, without knowing how versions are followed or scores are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.serving import wire
from embtables.serving.rows_request import RowsRequest
from embtables.serving.running.live_running import LiveRunning

Request: TypeAlias = "wire.ScoreRequest | RowsRequest | pa.Table"


@dataclass(frozen=True, slots=True)
class Served:
    """What was read of a request that was scored.

    Attributes:
        columns: (K,) those of the features stage, side tables and defaults among them.
        times_us: (K,) int64 microseconds since 1970: the event time, or when the request came.
    """

    columns: pa.Table
    times_us: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a request.

    Attributes:
        labels: names of the columns of `scores`.
        scores: (K, n_labels) float32.
        stages_us: microseconds by stage: wait, features, lookup, dense.
        served: makes what was read; None: no candidates, or what is served is not logged.
        asked: makes the request with the columns that the server computed for it; None: it computed none.
    """

    labels: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    versions: wire.Versions
    cold: wire.ColdIds
    stages_us: Mapping[str, float] = field(default_factory=dict)
    served: Callable[[], Served] | None = None
    asked: Callable[[], wire.ScoreRequest] | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows (n, D) float32 of ids or keys, and (n,) bool which read a cold row."""

    rows: npt.NDArray[np.float32]
    is_cold: npt.NDArray[np.bool_]
    versions: wire.Versions


@dataclass(frozen=True, slots=True)
class RowBytes:
    """Rows (n, dim) float32 of ids or keys, as bytes, and how many of these read a cold row."""

    rows: bytes
    dim: int
    num_cold: int
    versions: wire.Versions


class Service(Protocol):
    """Answers from the version that is live. Errors are `serving.refusals.Refusal`, with an HTTP status and a field.

    It is made and started in the process that answers, and called on that process's event loop, except `pin`, `follow`
    and `pause`, which may take seconds and come from a thread of their own, one at a time.

    Attributes:
        running: folds the events that are appended; None: it needs none.
    """

    running: LiveRunning | None

    async def start(self) -> None:
        """Begins to load and follow, in threads of its own; returns at once. EmbtablesError: nothing to serve."""

    async def stop(self) -> None:
        """Ends its threads. No request comes any more."""

    async def reach(self, dense: str | None, rows: str | None) -> None:
        """Waits a moment until it answers with versions that are not older than these, which a client has seen.

        Refusal 503: it has not come so far; 409: an operator keeps it at an older one; 422: these are no versions.
        """

    async def score(self, request: wire.ScoreRequest | RowsRequest) -> Scored:
        """Scores of candidates or rows."""

    async def score_table(self, rows: pa.Table) -> Scored:
        """Scores of full rows, (K,) in a table."""

    def embed(self, *, feature: str | None, table: str | None, ids: Any) -> Embedded:
        """Rows of raw ids of a feature, or of keys of a table; takes microseconds, on the caller's thread.

        Args:
            ids: (n,) int64, or a list of integers or strings.
        """

    async def fingerprints(self, request: Request, versions: wire.Versions) -> dict[str, str]:
        """Digests of what the model reads of a request, by feature and dense column, for the log of requests.

        Args:
            versions: that have scored it; nothing is returned if they are not those of now, or rows are changing.
        """

    async def explain(self, request: wire.ScoreRequest) -> wire.ExplainAnswer:
        """What each feature adds to the score of one candidate (or row). Refusals as of `score`."""

    def embed_bytes(self, *, feature: str | None, table: str | None, ids: npt.NDArray[np.int64]) -> RowBytes:
        """The same of integers (n,), as bytes."""

    def model(self) -> wire.ModelInfo:
        """What `/v1/model` answers. Refusal 503 until there is a version. Cheap: a scrape of metrics calls it."""

    def follow_info(self) -> wire.FollowInfo:
        """How it follows; also before there is a version."""

    def is_ready(self) -> tuple[bool, str]:
        """Whether a verified version is loaded and warmed; if not, why."""

    def pin(self, version: str) -> None:
        """Answers with this version and stays there until `follow`; returns when it answers. Refusal 404: none such."""

    def version_before(self) -> str:
        """The version that roll-back goes to: the one before the present one. Refusal 404: there is none."""

    def follow(self) -> None:
        """Follows the newest version again."""

    def pause(self) -> None:
        """Stays with the present version."""
