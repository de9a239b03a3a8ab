"""What a service answered -> bytes: JSON, float32 or Arrow, as the client asked."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from embtables.serving import wire
from embtables.serving.http.arrow import write_scores
from embtables.serving.http.call import Answer, Call
from embtables.serving.refusals import Refusal
from embtables.serving.service import Embedded, Scored

_JSON, _BYTES, _ARROW = wire.JSON.encode(), wire.BYTES.encode(), wire.ARROW.encode()
_FORMS = {wire.JSON: _JSON, wire.BYTES: _BYTES, wire.ARROW: _ARROW}
_ANY = ("*/*", "application/*")
_REQUEST_ID = wire.REQUEST_ID.encode()
_DENSE_VERSION, _ROW_VERSION = wire.DENSE_VERSION.encode(), wire.ROW_VERSION.encode()
_COLD, _DIM = wire.COLD.encode(), wire.DIM.encode()
_encoder = msgspec.json.Encoder()


def form_of(call: Call, default: bytes, taken: tuple[bytes, ...] = (_JSON, _BYTES, _ARROW)) -> bytes:
    """The content type to answer with: the first of `Accept` that there is.

    Raises:
        Refusal: 406 there is none.
    """
    accept = call.headers.get(b"accept")
    if accept is None or accept == b"*/*":
        return default
    for part in accept.decode("latin-1").split(","):
        name = part.split(";")[0].strip().lower()
        if name in _ANY:
            return default
        if (form := _FORMS.get(name)) is not None and form in taken:
            return form
    known = ", ".join(form.decode() for form in taken)
    raise Refusal(406, f"there is no answer of a type that Accept names; there are: {known}")


def scored(call: Call, answer: Scored, form: bytes) -> Answer:
    """Scores in that form."""
    scores = np.ascontiguousarray(answer.scores, "<f4")
    if not np.isfinite(scores).all():
        raise Refusal(503, "the model gave a score that is not finite; it was not sent", retry_after=1)
    if form == _JSON:
        columns = {label: scores[:, place].tolist() for place, label in enumerate(answer.labels)}
        body = wire.ScoreAnswer(call.request_id, columns, answer.versions, answer.cold)
        return as_json(200, body)
    cold = len(answer.cold.context) + sum(map(len, answer.cold.candidates.values()))
    data = scores.tobytes() if form == _BYTES else write_scores(answer.labels, scores)
    return Answer(200, form, data, *_headers(call, answer.versions), (_COLD, b"%d" % cold))


def embedded(call: Call, answer: Embedded, form: bytes) -> Answer:
    """Rows in that form."""
    if form == _JSON:
        cold = np.flatnonzero(answer.is_cold).tolist()
        return as_json(200, wire.EmbedAnswer(call.request_id, answer.rows.tolist(), answer.versions, cold))
    count = b"%d" % np.count_nonzero(answer.is_cold)
    dim = b"%d" % answer.rows.shape[1]
    headers = _headers(call, answer.versions)
    return Answer(200, form, answer.rows.tobytes(), *headers, (_COLD, count), (_DIM, dim))


def _headers(call: Call, versions: wire.Versions) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (_REQUEST_ID, call.request_id.encode()),
        (_DENSE_VERSION, versions.dense.encode()),
        (_ROW_VERSION, versions.rows.encode()),
    )


def as_json(status: int, body: Any, *headers: tuple[bytes, bytes]) -> Answer:
    """One of the wire's types as JSON."""
    return Answer(status, _JSON, _encoder.encode(body), *headers)


def refused(call: Call, refusal: Refusal) -> Answer:
    """Why there is no answer."""
    headers = [(_REQUEST_ID, call.request_id.encode())]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.allow is not None:
        headers.append((b"allow", refusal.allow.encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (400, 408, 413):  # what follows on this connection may be the rest of a body
        headers.append((b"connection", b"close"))
    return as_json(refusal.status, wire.ErrorBody(refusal.reason, call.request_id, refusal.field), *headers)
