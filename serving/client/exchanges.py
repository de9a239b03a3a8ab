"""What each call sends, and what it makes of the answer. Shape letters: K candidates or rows, n ids, D dimension."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import httpx
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import ConfigError, DataError, RefusedError, ServingError
from embtables.frames.table import Frame, as_table
from embtables.given import as_choice, as_name, need, need_mapping
from embtables.serving import wire

ScoreForm = Literal["json", "arrow"]
EmbedForm = Literal["json", "bytes"]
Float32s: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")

_NOT_FINITE = "a NaN or an infinity means nothing to a model; leave the column out, or send None"


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a request.

    Attributes:
        labels: names of the columns of `values`.
        values: (K, n_labels) float32, in the order of the request.
        versions: of dense weights and of rows.
        request_id: what the server's logs call the request.
        cold: which ids read a cold row; the Arrow form has only their number.
        num_cold: how many ids read a cold row, if the server says so.
    """

    labels: tuple[str, ...]
    values: Float32s
    versions: wire.Versions
    request_id: str
    cold: wire.ColdIds | None
    num_cold: int | None


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of events.

    Attributes:
        ids: (n,) of all that were sent: whoever gives up after an error may send them again under these.
        refused: those that are no events, by id, with the reason; all others are durable.
    """

    ids: tuple[str, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exchange(Generic[T]):
    """A request that can be sent any number of times, and how its answer is read.

    Attributes:
        read: the result, and the versions it is of if it is of any.
    """

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[httpx.Response], tuple[T, wire.Versions | None]]
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


def score(
    context: Mapping[str, Any], candidates: Sequence[Any], form: ScoreForm, request_id: str | None
) -> Exchange[Scores]:
    """A request for scores of candidates.

    Raises:
        ConfigError: an argument is of another kind.
        DataError: a value cannot be sent.
    """
    need_mapping(context, "context", "a dict of columns")
    _need_list(candidates, "candidates")
    as_choice(form, ("json", "arrow"), "form")
    if form == "json":
        request = wire.ScoreRequest(context=dict(context), candidates=list(candidates), request_id=request_id)
        return _score_json(request)
    for place, candidate in enumerate(candidates):
        if not isinstance(candidate, Mapping):
            reason = f"must be a dict of columns in the Arrow form, received a {type(candidate).__name__}"
            raise ConfigError(f"{reason}; form='json' takes an id alone", argument=f"candidates.{place}")
    columns = {name: [value] * len(candidates) for name, value in context.items()}
    own = dict.fromkeys(name for candidate in candidates for name in candidate)
    columns |= {name: [candidate.get(name, context.get(name)) for candidate in candidates] for name in own}
    return _score_arrow(as_table(columns, "candidates"), request_id)


def score_rows(
    rows: Frame | Sequence[Mapping[str, Any]], form: ScoreForm | None, request_id: str | None
) -> Exchange[Scores]:
    """A request for scores of full rows; by default a list goes as JSON and a table as Arrow. Raises as `score`."""
    if form is not None:
        as_choice(form, ("json", "arrow"), "form")
    if not isinstance(rows, list | tuple):
        table = as_table(rows, "rows")
        if form == "json":
            return _score_json(wire.ScoreRequest(rows=table.to_pylist(), request_id=request_id))
        return _score_arrow(table, request_id)
    for place, row in enumerate(rows):
        need(row, Mapping, f"rows.{place}", "a dict of columns")
    if form == "arrow":
        names = dict.fromkeys(name for row in rows for name in row)
        return _score_arrow(as_table({name: [row.get(name) for row in rows] for name in names}, "rows"), request_id)
    return _score_json(wire.ScoreRequest(rows=[dict(row) for row in rows], request_id=request_id))


def embed(
    ids: Any, feature: str | None, table: str | None, form: EmbedForm | None, request_id: str | None
) -> Exchange[Float32s]:
    """A request for rows of ids or keys; by default strings go as JSON and integers as bytes. Raises as `score`."""
    if (feature is None) == (table is None):
        raise ConfigError("give a feature with its ids, or a table with its keys", argument="feature")
    name, of = ("feature", feature) if feature is not None else ("table", table)
    as_name(of, name)
    if form is not None:
        as_choice(form, ("json", "bytes"), "form")
    values = _ids(ids)
    if form == "json" or values.dtype.kind == "U":
        if form == "bytes":
            raise ConfigError("holds strings, which go as JSON: leave form out", argument="ids")
        plain: Any = values.tolist()
        request = wire.EmbedRequest(
            feature=feature,
            table=table,
            ids=plain if table is None else None,
            keys=plain if feature is None else None,
            request_id=request_id,
        )
        return Exchange("POST", "/v1/embed", _read_rows_json, _json(request), {"content-type": wire.JSON})
    headers = {"content-type": wire.BYTES, "accept": wire.BYTES} | _named(request_id)
    content = values.astype("<i8", copy=False).tobytes()
    return Exchange("POST", "/v1/embed", _read_rows_bytes, content, headers, {name: str(of)})


def embed_answer(key: int, table: str) -> Exchange[wire.EmbedAnswer]:
    """A request for the row of a key, which says whether it is a cold one."""
    request = wire.EmbedRequest(table=table, keys=[key])

    def read(response: httpx.Response) -> tuple[wire.EmbedAnswer, wire.Versions]:
        answer = _decoded(response, wire.EmbedAnswer)
        return answer, answer.versions

    return Exchange("POST", "/v1/embed", read, _json(request), {"content-type": wire.JSON})


def explain(context: Mapping[str, Any], candidate: Any, request_id: str | None) -> Exchange[wire.ExplainAnswer]:
    """A request for what each feature adds to a score. Raises as `score`."""
    need_mapping(context, "context", "a dict of columns")
    request = wire.ScoreRequest(context=dict(context), candidates=[candidate], request_id=request_id)

    def read(response: httpx.Response) -> tuple[wire.ExplainAnswer, wire.Versions]:
        answer = _decoded(response, wire.ExplainAnswer)
        return answer, answer.versions

    return Exchange("POST", "/v1/explain", read, _json(request), {"content-type": wire.JSON})


def post_events(events: Sequence[Mapping[str, Any]], token: str | None) -> Exchange[Posted]:
    """A request that appends events. Those without an id get one here, so that what is sent again counts once.

    Raises:
        ConfigError: it is no list of dicts.
        DataError: a value cannot be sent.
    """
    _need_list(events, "events")
    named = []
    for place, event in enumerate(events):
        need(event, Mapping, f"events.{place}", "a dict of columns")
        columns = {name: _sent(value) for name, value in event.items()}
        named.append(columns | {"event_id": columns.get("event_id") or uuid.uuid4().hex})
    ids = tuple(str(event["event_id"]) for event in named)

    def read(response: httpx.Response) -> tuple[Posted, None]:
        answer = _decoded(response, wire.EventsAnswer)
        return Posted(ids, {ids[each.index]: each.reason for each in answer.refused}), None

    headers = {"content-type": wire.JSON}
    if token is not None:
        headers["authorization"] = f"Bearer {as_name(token, 'token')}"
    return Exchange("POST", "/v1/events", read, _json(wire.EventsRequest(events=named)), headers)


def _sent(value: Any) -> Any:
    """A time without a zone is UTC, as everywhere here."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
    return value


def model() -> Exchange[wire.ModelInfo]:
    """A request for what the server says of its model."""
    return Exchange("GET", "/v1/model", _read_model)


def ready() -> Exchange[None]:
    """A request that is answered once the server answers others."""
    return Exchange("GET", "/readyz", lambda _: (None, None))


def refusal(response: httpx.Response) -> RefusedError:
    """What a response of another status than 200 says."""
    try:
        body = msgspec.json.decode(response.content, type=wire.ErrorBody)
    except msgspec.DecodeError:  # of something between this client and the server
        body = wire.ErrorBody(error=f"{response.reason_phrase or 'no reason'}: {response.text[:200]}".strip())
    return RefusedError(
        body.error,
        status=response.status_code,
        field=body.field,
        request_id=body.request_id or response.headers.get(wire.REQUEST_ID),
        retry_after_seconds=_seconds(response.headers.get("retry-after")),
    )


def _score_json(request: wire.ScoreRequest) -> Exchange[Scores]:
    return Exchange("POST", "/v1/score", _read_scores_json, _json(request), {"content-type": wire.JSON})


def _score_arrow(rows: pa.Table, request_id: str | None) -> Exchange[Scores]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    headers = {"content-type": wire.ARROW, "accept": wire.ARROW} | _named(request_id)
    return Exchange("POST", "/v1/score", _read_scores_arrow, sink.getvalue().to_pybytes(), headers)


def _read_scores_json(response: httpx.Response) -> tuple[Scores, wire.Versions]:
    answer = _decoded(response, wire.ScoreAnswer)
    labels = tuple(answer.scores)
    try:
        values = np.array([answer.scores[label] for label in labels], np.float32).reshape(len(labels), -1).T
    except ValueError as error:
        raise _unreadable(response, error) from error
    found = Scores(labels, values, answer.versions, answer.request_id, answer.cold, _count(response))
    return found, answer.versions


def _read_scores_arrow(response: httpx.Response) -> tuple[Scores, wire.Versions]:
    versions = _versions(response)
    try:
        table = pa.ipc.open_stream(response.content).read_all()
        columns = [column.to_numpy().astype(np.float32, copy=False) for column in table.columns]
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unreadable(response, error) from error
    values = np.stack(columns, axis=1) if columns else np.empty((0, 0), np.float32)
    request_id = response.headers.get(wire.REQUEST_ID, "")
    return Scores(tuple(table.column_names), values, versions, request_id, None, _count(response)), versions


def _read_rows_json(response: httpx.Response) -> tuple[Float32s, wire.Versions]:
    answer = _decoded(response, wire.EmbedAnswer)
    try:
        rows = np.array(answer.rows, np.float32) if answer.rows else np.empty((0, _dim(response)), np.float32)
    except ValueError as error:
        raise _unreadable(response, error) from error
    return rows, answer.versions


def _read_rows_bytes(response: httpx.Response) -> tuple[Float32s, wire.Versions]:
    dim = _dim(response)
    if dim < 1 or len(response.content) % (4 * dim):
        raise _unreadable(response, ValueError(f"{len(response.content)} bytes are no rows of {dim} float32"))
    # A copy: what is read from bytes cannot be written to, which callers and torch would stumble over.
    return np.frombuffer(response.content, "<f4").astype(np.float32).reshape(-1, dim), _versions(response)


def _read_model(response: httpx.Response) -> tuple[wire.ModelInfo, None]:
    return _decoded(response, wire.ModelInfo), None


def _decoded(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        raise _unreadable(response, error) from error


def _unreadable(response: httpx.Response, error: Exception) -> ServingError:
    reason = f"the answer of {response.url} cannot be read: {error}; is it an embtables server of this version?"
    return ServingError(reason, request_id=response.headers.get(wire.REQUEST_ID))


def _versions(response: httpx.Response) -> wire.Versions:
    try:
        return wire.Versions(response.headers[wire.DENSE_VERSION], response.headers[wire.ROW_VERSION])
    except KeyError as error:
        raise _unreadable(response, ValueError(f"it has no header {error}")) from error


def _count(response: httpx.Response) -> int | None:
    found = response.headers.get(wire.COLD, "")
    return int(found) if found.isdecimal() else None


def _dim(response: httpx.Response) -> int:
    found = response.headers.get(wire.DIM, "")
    return int(found) if found.isdecimal() else 0


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


def _named(request_id: str | None) -> dict[str, str]:
    if request_id is None:
        return {}
    if not (as_name(request_id, "request_id").isascii() and request_id.isprintable()):
        raise ConfigError("must be printable ASCII, since it goes in a header", argument="request_id")
    return {wire.REQUEST_ID: request_id}


def _need_list(given: object, argument: str) -> None:
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ConfigError(f"must be a list, received a {type(given).__name__}", argument=argument)


def _ids(given: Any) -> npt.NDArray[Any]:
    """(n,) int64 or strings."""
    if isinstance(given, pa.Array | pa.ChunkedArray):
        given = given.to_pylist()
    if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        raise ConfigError(f"must be a list or an array, received a {type(given).__name__}", argument="ids")
    try:
        values = np.asarray(given) if len(given) else np.empty(0, np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"are neither integers nor strings: {error}", argument="ids") from error
    is_list = not isinstance(given, np.ndarray)
    if values.dtype.kind == "U" and is_list and not all(isinstance(each, str) for each in given):
        raise DataError("must be all integers or all strings, received both", argument="ids")
    if values.dtype == object and all(isinstance(each, str) for each in values.flat):
        values = values.astype(str)
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        shape = f"{values.ndim} dimensions of {values.dtype}"
        raise DataError(f"must be a list of integers or of strings, received {shape}", argument="ids")
    if values.dtype.kind == "u" and len(values) and int(values.max()) >= 2**63:
        raise DataError(f"are int64, received {int(values.max())}", argument="ids")
    return values if values.dtype.kind == "U" else values.astype(np.int64, copy=False)


def _json(request: msgspec.Struct) -> bytes:
    try:
        body = msgspec.json.encode(request, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"a value has no JSON: {error}", argument="request") from error
    if b"null" in body:  # as which a NaN would be written
        _refuse_not_finite(msgspec.structs.asdict(request), ())
    return body


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


def _refuse_not_finite(value: Any, place: tuple[str, ...]) -> None:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"holds {value}; {_NOT_FINITE}", field=".".join(place))
    if isinstance(value, Mapping):
        for name, each in value.items():
            _refuse_not_finite(each, (*place, str(name)))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _refuse_not_finite(each, (*place, str(number)))
