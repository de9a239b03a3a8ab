"""What a service answered -> bytes: JSON, float32 or Arrow, as the client asked."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from embtables.serving import wire
from embtables.serving.http.exchange.arrow import write_scores
from embtables.serving.http.exchange.call import Answer, Call
from embtables.serving.refusals import Refusal
from embtables.serving.service import Embedded, RowBytes, Scored

_FORMS = (wire.JSON, wire.BYTES, wire.ARROW)
_ANY = ("*/*", "application/*")
_encoder = msgspec.json.Encoder()


def form_of(call: Call, default: str, taken: tuple[str, ...] = _FORMS) -> str:
    """The content type to answer with: the first of `Accept` that there is.

    Raises:
        Refusal: 406 there is none.
    """
    accept = call.headers.get("accept")
    if accept is None or accept == "*/*":
        return default
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in _ANY:
            return default
        if name in taken:
            return name
    raise Refusal(406, f"there is no answer of a type that Accept names; there are: {', '.join(taken)}")


def scored(call: Call, answer: Scored, form: str) -> Answer:
    """Scores in that form."""
    scores = np.ascontiguousarray(answer.scores, "<f4")
    if not np.isfinite(scores).all():
        raise Refusal(503, "the model gave a score that is not finite; it was not sent", retry_after=1)
    if form == wire.JSON:
        columns = {label: scores[:, place].tolist() for place, label in enumerate(answer.labels)}
        body = wire.ScoreAnswer(call.request_id, columns, answer.versions, answer.cold)
        return as_json(200, body)
    cold = len(answer.cold.context) + sum(map(len, answer.cold.candidates.values()))
    data = scores.tobytes() if form == wire.BYTES else write_scores(answer.labels, scores)
    return Answer(200, form, data, *_headers(call.request_id, answer.versions), (wire.COLD, str(cold)))


def embedded(call: Call, answer: Embedded, form: str) -> Answer:
    """Rows in that form."""
    if form == wire.JSON:
        cold = np.flatnonzero(answer.is_cold).tolist()
        return as_json(200, wire.EmbedAnswer(call.request_id, answer.rows.tolist(), answer.versions, cold))
    count, dim = str(np.count_nonzero(answer.is_cold)), str(answer.rows.shape[1])
    headers = _headers(call.request_id, answer.versions)
    return Answer(200, form, answer.rows.tobytes(), *headers, (wire.COLD, count), (wire.DIM, dim))


def row_headers(request_id: str, found: RowBytes) -> list[tuple[str, str]]:
    """The headers of rows as bytes."""
    return [
        ("content-type", wire.BYTES),
        *_headers(request_id, found.versions),
        (wire.COLD, str(found.num_cold)),
        (wire.DIM, str(found.dim)),
    ]


def _headers(request_id: str, versions: wire.Versions) -> tuple[tuple[str, str], ...]:
    return (
        (wire.REQUEST_ID, request_id),
        (wire.DENSE_VERSION, versions.dense),
        (wire.ROW_VERSION, versions.rows),
    )


def as_json(status: int, body: Any, *headers: tuple[str, str]) -> Answer:
    """One of the wire's types as JSON."""
    return Answer(status, wire.JSON, _encoder.encode(body), *headers)


def refused(call: Call, refusal: Refusal) -> Answer:
    """Why there is no answer."""
    headers = [(wire.REQUEST_ID, call.request_id)]
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(refusal.retry_after)))
    if refusal.allow is not None:
        headers.append(("allow", refusal.allow))
    if refusal.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if refusal.status in (400, 408, 413):  # what follows on this connection may be the rest of a body
        headers.append(("connection", "close"))
    return as_json(refusal.status, wire.ErrorBody(refusal.reason, call.request_id, refusal.field), *headers)
