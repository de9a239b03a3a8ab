"""What goes over the wire: requests and answers, as the server and its client both have them. JSON by msgspec.

Shape letters: K candidates or rows, n ids, D dimension.

Besides JSON, two binary forms. Scores: an Arrow IPC stream with one row for each candidate (all columns in it) in; with
`Accept: application/octet-stream` float32 (K, n_labels) little-endian out, else an Arrow stream with a column for each
label. Embeddings: int64 ids little-endian in the body and `?feature=` or `?table=` in the address; float32 (n, D) out.
What JSON says beside the numbers is in headers then.
"""

from __future__ import annotations

from typing import Any

import msgspec

JSON = "application/json"
BYTES = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

REQUEST_ID = "embtables-request-id"
DENSE_VERSION = "embtables-dense-version"
ROW_VERSION = "embtables-row-version"
COLD = "embtables-cold"  # how many ids read a cold row; of scores how many columns, each row's counted
DIM = "embtables-dim"

# Of requests: the answer must not be of an older version, as a client asks that has seen one. A server that has not
# come so far answers 503 with Retry-After. REQUEST_ID may be given in a header, too.
MIN_DENSE_VERSION = "embtables-min-dense-version"
MIN_ROW_VERSION = "embtables-min-row-version"


class ScoreRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One context and K candidates, or K full rows.

    Attributes:
        context: columns that all candidates share, by name.
        candidates: a row for each, by column; or its id alone, where a side table of items is published.
        rows: full rows, in place of context and candidates.
        request_id: what the answer and the logs call this request; by default the server makes one.
    """

    context: dict[str, Any] = {}
    candidates: list[Any] | None = None
    rows: list[dict[str, Any]] | None = None
    request_id: str | None = None


class EventsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Events (n,): each with `event_id`, `kind` and the columns of its own; `event_time` (RFC 3339) is now by default.

    Attributes:
        events: an action names the `request_id` of the answer that it belongs to, and the item.
    """

    events: list[dict[str, Any]]


class RefusedEvent(msgspec.Struct):
    """An event that is none: its place in the request, and why."""

    index: int
    reason: str


class EventsAnswer(msgspec.Struct):
    """What became of events: so many are durable; the others will be refused again."""

    request_id: str
    accepted: int
    refused: list[RefusedEvent]


class Versions(msgspec.Struct):
    """Which versions an answer is of: `serving-12`.

    Attributes:
        dense: of dense weights and transforms, one for the whole answer.
        rows: the newest whose rows were all applied before this request was answered; `dense`, or one after it.
    """

    dense: str
    rows: str


class ColdIds(msgspec.Struct, omit_defaults=True):
    """Which ids read a cold row.

    Attributes:
        context: features of the context with at least one such id.
        candidates: by feature the positions of the candidates (or rows) with at least one.
    """

    context: list[str] = []
    candidates: dict[str, list[int]] = {}


class ScoreAnswer(msgspec.Struct):
    """Scores (K,) by label, in the order of the request."""

    request_id: str
    scores: dict[str, list[float]]
    versions: Versions
    cold: ColdIds


class LoggedRequest(msgspec.Struct, omit_defaults=True):
    """A line of a server's log of requests.

    Attributes:
        at: unix time.
        size: K.
        request: only where the server keeps values.
        features: digests of what the model read, by feature and dense column; none where rows changed meanwhile.
    """

    request_id: str
    at: float
    versions: Versions
    size: int
    scores: dict[str, list[float]]
    request: ScoreRequest | None = None
    features: dict[str, str] = {}


class RowInfo(msgspec.Struct, omit_defaults=True):
    """A row that a feature read.

    Attributes:
        key: of the table.
        is_cold: the key has no row, or one past its ttl.
        norm: L2, of its D values.
        age: since training last saw the key, by the table's clock: seconds in a table with a ttl, else steps. None
            without a row and in a fixed table.
    """

    key: int
    is_cold: bool
    norm: float
    age: int | None = None


class FeaturePart(msgspec.Struct, omit_defaults=True):
    """What a feature adds to a score.

    Attributes:
        without: what stands in its place to tell: `cold`: its ids read cold rows; `absent`: it has no ids, as in a
            fixed table, where every key has a row; `zero`: of a dense column the value 0 after its transforms.
        contribution: by label the logit less that without the feature.
        rows: that it read.
        value: of a dense column, after its transforms.
    """

    feature: str
    without: str
    contribution: dict[str, float]
    table: str | None = None
    rows: list[RowInfo] = []
    value: float | None = None


class ExplainAnswer(msgspec.Struct):
    """Why one candidate (or row) has its score: by label score and logit, and what each feature adds to the logit.

    Contributions do not add up to the logit where a model has products of features.
    """

    request_id: str
    scores: dict[str, float]
    logits: dict[str, float]
    versions: Versions
    features: list[FeaturePart]


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Raw ids of a feature (integers or strings), or keys of a table."""

    feature: str | None = None
    ids: list[int | str] | None = None
    table: str | None = None
    keys: list[int] | None = None
    request_id: str | None = None


class EmbedAnswer(msgspec.Struct):
    """Rows (n, D), and the positions of ids that read a cold row."""

    request_id: str
    rows: list[list[float]]
    versions: Versions
    cold: list[int]


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Why a request was refused.

    Attributes:
        error: what was wrong, what was received, what to do.
        field: the place in the request: `candidates.3.price`.
    """

    error: str
    request_id: str | None = None
    field: str | None = None


class ColumnInfo(msgspec.Struct, omit_defaults=True):
    """A column of a candidate or context that the model reads.

    Attributes:
        kind: integer, string, number, list of integers, list of strings, timestamp; `id`: integer or string.
        of: features and dense columns that read it.
        is_joined: a side table gives it where the request does not.
        is_running: the server computes it of events where the request does not give it.
        example: a value that a request may have.
    """

    name: str
    kind: str
    of: list[str]
    is_joined: bool = False
    example: Any = None
    is_running: bool = False


class FeatureInfo(msgspec.Struct, omit_defaults=True):
    """A feature: raw ids whose rows `/v1/embed` gives. `dim`: D of its embedding, None without one."""

    name: str
    table: str
    dim: int | None = None


class TableInfo(msgspec.Struct):
    """A table as it is served.

    Attributes:
        kind: fixed or collisionless.
        bytes: of memory, map and rows.
        ids: that requests have looked up since the server began; `cold_ids`: of these, which read a cold row.
    """

    name: str
    kind: str
    dim: int
    dtype: str
    rows: int
    bytes: int
    ttl_seconds: int | None = None
    ids: int = 0
    cold_ids: int = 0


class SideTableInfo(msgspec.Struct):
    """A published side table. `missing_keys`: of requests, since the server began."""

    name: str
    keys: list[str]
    columns: list[str]
    rows: int
    missing_keys: int = 0


class RunningFeatureInfo(msgspec.Struct):
    """A column that a server computes of events. `definition`: as the configuration has it."""

    name: str
    by: list[str]
    definition: dict[str, Any]


class RunningInfo(msgspec.Struct, omit_defaults=True):
    """The running features of a server.

    Attributes:
        events: folded, over all restarts.
        late_events, late_questions: older than the clock by more than `lateness_seconds`.
        held_back: batches whose time was further ahead than the clock may step.
        ignored: events that did not count, by the column that has no usable value, and `damaged`, `repeated` (an event
            id that was seen before), `before_begin` (of the time that was folded beforehand).
        keys, bytes: of the state.
        clock: event time, unix time in seconds.
        checkpoint_at: unix time of the last checkpoint that this process has written.
    """

    features: list[RunningFeatureInfo]
    events: int = 0
    late_events: int = 0
    late_questions: int = 0
    held_back: int = 0
    ignored: dict[str, int] = {}
    keys: int = 0
    bytes: int = 0
    clock: float | None = None
    checkpoint_at: float | None = None


class EngineTried(msgspec.Struct, omit_defaults=True):
    """A dense engine that was measured at load. `refused`: why it is not taken."""

    name: str
    milliseconds: float | None = None
    greatest_error: float | None = None
    refused: str | None = None


class EngineInfo(msgspec.Struct, omit_defaults=True):
    """What computes scores. `mode`: exact or fast."""

    mode: str
    name: str
    tried: list[EngineTried] = []


class RejectedDelta(msgspec.Struct):
    """A version that was set aside.

    Attributes:
        reason: for alarms: damaged, gap, schema, values or other.
        detail: what is wrong with it, with the path of the file.
        at: unix time.
    """

    version: str
    reason: str
    detail: str
    at: float


class FollowInfo(msgspec.Struct, omit_defaults=True):
    """How the server follows the trainer.

    Attributes:
        state: following, pinned or paused.
        available: complete versions that it could answer with, the newest last.
        newest: the newest version on disk.
        applied_versions, applied_rows, applied_tombstones: since the server began.
        rejected: versions set aside, by reason.
    """

    state: str
    available: list[str] = []
    newest: str | None = None
    applied_versions: int = 0
    applied_rows: int = 0
    applied_tombstones: int = 0
    rejected: dict[str, int] = {}
    last_rejected: RejectedDelta | None = None


class ModelInfo(msgspec.Struct, omit_defaults=True):
    """What a server answers with: `GET /v1/model`.

    Attributes:
        name: of the model's schema, or of its run.
        model: its kind: dcnv2.
        labels: of the scores, in this order.
        written_at, loaded_at: unix time of the dense version's manifest, and when it began to answer.
        staleness_seconds: since the newest version whose rows are applied was written; 0 if there is no newer one.
        item_column: the column that a candidate given as a bare id is a value of.
        memory_bytes: of the process what is resident now.
        running: what it computes of events; None: nothing.
    """

    name: str
    model: str
    labels: list[str]
    versions: Versions
    written_at: float
    loaded_at: float
    staleness_seconds: float
    columns: list[ColumnInfo]
    features: list[FeatureInfo]
    tables: list[TableInfo]
    engine: EngineInfo
    follow: FollowInfo
    side_tables: list[SideTableInfo] = []
    item_column: str | None = None
    memory_bytes: int = 0
    running: RunningInfo | None = None


class AdminStatus(msgspec.Struct):
    """Answer of the admin routes."""

    versions: Versions | None
    follow: FollowInfo


class PinRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /admin/pin`."""

    version: str


class RollBackRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /admin/rollback`; by default to the version before the present one."""

    version: str | None = None


class Readiness(msgspec.Struct, omit_defaults=True):
    """`GET /readyz`, and `/healthz`."""

    ready: bool
    reason: str = ""


class Throughput(msgspec.Struct, omit_defaults=True):
    """What the last seconds brought. `requests_by_second`: of the last minute, the oldest first."""

    requests_per_second: float
    rows_per_second: float
    requests_by_second: list[int]
    refused: int
    p50_ms: float | None = None
    p99_ms: float | None = None


class Live(msgspec.Struct, omit_defaults=True):
    """What the page at `/` shows: `GET /v1/live`. `model` is absent until the server is ready."""

    ready: bool
    reason: str
    throughput: Throughput
    follow: FollowInfo
    model: ModelInfo | None = None
