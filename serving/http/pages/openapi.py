"""`/openapi.json`: the routes, and the wire's types as msgspec describes them."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from embtables.serving import wire

_KINDS = (
    wire.ScoreRequest, wire.ScoreAnswer, wire.EmbedRequest, wire.EmbedAnswer, wire.ErrorBody, wire.ModelInfo,
    wire.ExplainAnswer, wire.Live, wire.Readiness, wire.EventsRequest, wire.EventsAnswer,
)  # fmt: skip
_REASONS = {
    400: "the request cannot be read",
    401: "the token is missing or wrong",
    404: "there is no feature, table or version of that name",
    405: "another method",
    406: "no answer of a type that Accept names",
    408: "the body came too slowly",
    409: "an operator keeps the server at an older version",
    413: "the body is too long",
    415: "the body is of another type, or compressed",
    422: "a value or a name is wrong: `field` says which",
    429: "too many requests wait; Retry-After says when to come again",
    500: "a fault of the server",
    501: "is not served yet",
    503: "no version is loaded, or none as new as is asked for",
}
_ASKED = (400, 404, 405, 406, 408, 409, 413, 415, 422, 429, 500, 503)
_SCALAR: list[dict[str, Any]] = [{"type": each} for each in ("number", "string", "boolean", "null")]
_VALUE = {"anyOf": [*_SCALAR, {"type": "array", "items": {"anyOf": _SCALAR}}]}
_ROW = {"type": "object", "additionalProperties": _VALUE}
_BINARY: dict[str, Any] = {}


@cache
def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1. The same object each time: not to be changed."""
    _, schemas = msgspec.json.schema_components(_KINDS, ref_template="#/components/schemas/{name}")
    score = schemas["ScoreRequest"]["properties"]
    score["context"] |= {"additionalProperties": _VALUE}
    score["rows"] = {"anyOf": [{"type": "array", "items": _ROW, "minItems": 1}, {"type": "null"}]}
    candidate = {"anyOf": [_ROW, {"type": "integer"}, {"type": "string"}]}
    score["candidates"] = {"anyOf": [{"type": "array", "items": candidate, "minItems": 1}, {"type": "null"}]}
    schemas["EventsRequest"]["properties"]["events"] |= {"items": _ROW, "minItems": 1}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "embtables server",
            "version": metadata.version("embtables"),
            "description": "Scores and embeddings of the version that is live. GET /v1/model says which columns, "
            "features and tables there are.",
        },
        "paths": {
            "/v1/score": {"post": _score()},
            "/v1/embed": {"post": _embed()},
            "/v1/explain": {"post": _explain()},
            "/v1/events": {"post": _events()},
            "/v1/retrieve": {"post": _retrieve()},
        }
        | {path: {"get": about} for path, about in _pages().items()},
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _score() -> dict[str, Any]:
    example = {"context": {"user": 17850, "country": "France"}, "candidates": [{"item": "85123A"}, {"item": "71053"}]}
    return {
        "operationId": "score",
        "summary": "scores of candidates, or of full rows",
        "description": "A candidate is a row, or its id alone where a side table of items is published. Columns that "
        "training joined from side tables may be left out. An Arrow stream has a row for each candidate, with all "
        "columns.",
        "parameters": _HEADERS,
        "requestBody": _body(
            {wire.JSON: {"schema": _reference(wire.ScoreRequest), "example": example}, wire.ARROW: {"schema": _BINARY}}
        ),
        "responses": _answers(wire.ScoreAnswer, wire.BYTES, wire.ARROW),
    }


def _embed() -> dict[str, Any]:
    names = [
        {"name": name, "in": "query", "schema": {"type": "string"}, "description": f"{text}, of a body of bytes"}
        for name, text in (("feature", "whose raw ids the body has"), ("table", "whose keys the body has"))
    ]
    example = {"feature": "item", "ids": [1, 2, 3]}
    return {
        "operationId": "embed",
        "summary": "rows of raw ids of a feature, or of keys of a table",
        "description": "Bytes are int64 ids, little-endian, in the body and float32 rows, (n, D), in the answer.",
        "parameters": [*names, *_HEADERS],
        "requestBody": _body(
            {wire.JSON: {"schema": _reference(wire.EmbedRequest), "example": example}, wire.BYTES: {"schema": _BINARY}}
        ),
        "responses": _answers(wire.EmbedAnswer, wire.BYTES),
    }


def _explain() -> dict[str, Any]:
    example = {"context": {"user": 17850, "country": "France"}, "candidates": [{"item": "85123A"}]}
    answers = _answers(wire.ExplainAnswer)
    return {
        "operationId": "explain",
        "summary": "what each feature adds to the score of one candidate, or of one full row",
        "description": "A contribution is the logit less that with the feature's rows read cold. A row has its key, "
        "its norm and its age.",
        "parameters": _HEADERS,
        "requestBody": _body({wire.JSON: {"schema": _reference(wire.ScoreRequest), "example": example}}),
        "responses": answers | _errors(501),
    }


def _events() -> dict[str, Any]:
    click = {"event_id": "9f2c", "kind": "click", "request_id": "3f1c-2a", "item": "85123A"}
    answers = _answers(wire.EventsAnswer)
    return {
        "operationId": "events",
        "summary": "appends events to the log; the answer comes when they are durable",
        "description": "An event has event_id, kind and its own columns; event_time (RFC 3339) is now by default. Send "
        "an event again under its event_id where no answer came. Events that are none are named in the answer.",
        "requestBody": _body(
            {
                wire.JSON: {"schema": _reference(wire.EventsRequest), "example": {"events": [click]}},
                wire.ARROW: {"schema": _BINARY},
            }
        ),
        "responses": answers | _errors(401, 501),
    }


def _retrieve() -> dict[str, Any]:
    return {
        "operationId": "retrieve",
        "summary": "the best items of all; not served yet",
        "responses": _errors(400, 405, 408, 413, 415, 500, 501),
    }


def _pages() -> dict[str, Any]:
    def page(name: str, summary: str, content: dict[str, Any], *errors: int) -> dict[str, Any]:
        fine = {"description": summary, "content": content}
        return {"operationId": name, "summary": summary, "responses": {"200": fine, **_errors(400, 500, *errors)}}

    def of(kind: type) -> dict[str, Any]:
        return {wire.JSON: {"schema": _reference(kind)}}

    ready = page("readyz", "whether a version is loaded", of(wire.Readiness))
    ready["responses"]["503"] = {"description": "none is yet", "content": of(wire.Readiness)}
    return {
        "/v1/model": page("model", "schema, versions, ages, rows, memory, engine", of(wire.ModelInfo), 503),
        "/v1/live": page("live", "what the page at / shows", of(wire.Live)),
        "/healthz": page("healthz", "that the process answers", of(wire.Readiness)),
        "/readyz": ready,
        "/metrics": page("metrics", "figures for Prometheus", {"text/plain": {"schema": {"type": "string"}}}),
    }


_HEADERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "schema": {"type": "string", "pattern": pattern},
        "description": text,
    }
    for name, pattern, text in (
        (wire.REQUEST_ID, "^[!-~]{1,128}$", "what the answer and the logs call this request"),
        (wire.MIN_DENSE_VERSION, "^serving-[0-9]{1,10}$", "the answer must not be of older dense weights"),
        (wire.MIN_ROW_VERSION, "^serving-[0-9]{1,10}$", "nor of older rows"),
    )
]


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


def _answers(kind: type, *binary: str) -> dict[str, Any]:
    content = {wire.JSON: {"schema": _reference(kind)}} | {name: {"schema": _BINARY} for name in binary}
    return {"200": {"description": "the answer", "content": content}, **_errors(*_ASKED)}


def _errors(*statuses: int) -> dict[str, Any]:
    content = {wire.JSON: {"schema": _reference(wire.ErrorBody)}}
    return {str(status): {"description": _REASONS[status], "content": content} for status in statuses}
