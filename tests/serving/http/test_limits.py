"""Absurd and hostile requests, sent to a real server: each has a defined answer, and others are answered after it."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from embtables.serving import wire
from tests.serving.arrow_for_tests import arrow
from tests.serving.conftest import ServerProcess
from tests.serving.http.sockets_for_tests import GOOD, ROW, is_fine, post, raw


@pytest.mark.parametrize(
    ("body", "status", "field", "text"),
    [
        (b"", 400, None, "the body is no JSON"),
        (b"{", 400, None, "the body is no JSON"),
        (b"\xff\xfe", 400, None, "the body is no JSON"),
        (b'{"rows": [{"price": NaN}]}', 400, None, "the body is no JSON"),
        (b'{"rows": [{"price": Infinity}]}', 400, None, "the body is no JSON"),
        (b'{"rows": [{"price": 1e999}]}', 422, "rows.0", "number out of range"),
        (b'{"rows": [{"user": 1' + b"0" * 30 + b"}]}", 422, "rows.0.user", "an integer has 64 bits"),
        (b'{"rows": [{"user": ' + b"9" * 5000 + b"}]}", 422, "rows.0", "out of range"),
        (b'{"rows": [{"tags": [1, 1' + b"0" * 30 + b"]}]}", 422, "rows.0.tags.1", "an integer has 64 bits"),
        (b'{"rows": [{"tags": [[1]]}]}', 422, "rows.0.tags.0", "an entry of a list is"),
        (b'{"rows": [{"user": {"a": 1}}]}', 422, "rows.0.user", "a value is a number, a string"),
        (b'{"rows": [7]}', 422, "rows.0", "expected object, got int"),
        (b'{"candidates": [1.5]}', 422, "candidates.0", "a candidate is an object"),
        (b'{"candidates": [true]}', 422, "candidates.0", "a candidate is an object"),
        (b'{"candidates": []}', 422, "candidates", "nothing to score"),
        (b'{"context": {}}', 422, "candidates", "give candidates"),
        (b'{"rows": [{}], "candidates": [{}]}', 422, "candidates", "give rows, which are whole, or"),
        (b'{"rows": [{}], "context": {"user": 1}}', 422, "context", "give rows, which are whole, or"),
        (b'{"candidate": [{}]}', 422, "candidate", "did you mean candidates?"),
        (b'{"rows": [{"usr": 1}]}', 422, "candidates.0.usr", "did you mean user?"),
        (b'{"rows": [{}], "request_id": "a b"}', 422, "request_id", "visible ASCII"),
        (b'{"rows": [{}], "request_id": "' + b"a" * 129 + b'"}', 422, "request_id", "visible ASCII"),
        (b"[" * 200_000, 422, None, "expected object, got array"),
        (b'{"context": {"a": ' + b"[" * 200_000, 400, None, "the body is no JSON"),
        (b'{"rows": [{"item": "' + b"x" * 70_000 + b'"}]}', 422, "rows.0.item", "has 70,000 characters"),
        (b'{"rows": [{"tags": [' + b"1," * 5000 + b"1]}]}", 422, "rows.0.tags", "has 5,001 entries, at most 4,096"),
        (b'{"rows": [' + b"{}," * 5000 + b"{}]}", 422, "rows", "has 5,001 entries, at most 4,096"),
        (
            b'{"candidates": [{}, {}, {}, {"tags": [' + b"1," * 5000 + b"1]}]}",
            422,
            "candidates.3.tags",
            "at most 4,096",
        ),
    ],
)
def test_bodies_that_cannot_be_scored(
    server: ServerProcess, body: bytes, status: int, field: str | None, text: str
) -> None:
    answer = httpx.post(f"{server.url}/v1/score", content=body)
    said = answer.json()
    assert (answer.status_code, said.get("field")) == (status, field), said
    assert text in said["error"]
    assert len(answer.content) < 1000
    is_fine(server)


@pytest.mark.parametrize(
    ("body", "status", "field", "text"),
    [
        ({"feature": "usre", "ids": [1]}, 404, "feature", "did you mean user?"),
        ({"table": "../../etc/passwd", "keys": [1]}, 404, "table", "there is no table"),
        ({"table": "%2e%2e/user", "keys": [1]}, 404, "table", "there is no table"),
        ({"table": "user\0", "keys": [1]}, 404, "table", "there is no table"),
        ({"feature": "../user", "ids": [1]}, 404, "feature", "there is no feature"),
        ({"feature": "%2e%2e%2fuser", "ids": [1]}, 404, "feature", "there is no feature"),
        ({"feature": "user\0", "ids": [1]}, 404, "feature", "there is no feature"),
        ({"feature": "user"}, 422, "ids", "give ids"),
        ({"ids": [1]}, 422, "feature", "received neither"),
        ({"feature": "user", "table": "user", "ids": [1]}, 422, "feature", "received both"),
        ({"feature": "user", "keys": [1]}, 422, "keys", "a feature has ids, received keys"),
        ({"table": "user", "ids": [1]}, 422, "ids", "a table has keys"),
        ({"feature": "item", "ids": [1, "a"]}, 422, "ids.1", "all integers or all strings"),
        ({"feature": "user", "ids": [1, 1.5]}, 422, "ids.1", "int | str"),
        ({"feature": "user", "ids": [2**70]}, 422, "ids.0", "an integer has 64 bits"),
        ({"table": "user", "keys": [2**63]}, 422, "keys", "a key is a signed integer"),
        ({"feature": "user", "ids": [1] * 70_000}, 422, "ids", "has 70,000 entries"),
        ({"feature": "user", "id": [1]}, 422, "id", "did you mean ids?"),
    ],
)
def test_embeddings_that_there_are_none_of(
    server: ServerProcess, body: dict[str, Any], status: int, field: str, text: str
) -> None:
    answer = httpx.post(f"{server.url}/v1/embed", json=body)
    said = answer.json()
    assert answer.status_code == status, said
    assert said["field"] == field
    assert text in said["error"]


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("feature=user", b"1234567", "int64 ids, 8 bytes each; received 7 bytes"),
        ("", b"12345678", "received neither"),
        ("feature=user&table=user", b"12345678", "received both"),
        ("feature=user&feature=item", b"12345678", "given twice"),
        ("featur=user", b"12345678", "did you mean feature?"),
        ("feature", b"12345678", "?feature=<name>"),
        ("feature=user", b"\0" * 8 * 70_000, "has 70,000 entries"),
        ("feature=%00", b"12345678", "there is no feature"),
        ("feature=..%2f..%2fetc%2fpasswd", b"12345678", "there is no feature"),
        ("&".join(f"a{n}=1" for n in range(100)), b"12345678", "?feature=<name>"),
    ],
)
def test_binary_requests_for_embeddings(server: ServerProcess, query: str, body: bytes, text: str) -> None:
    headers = {"content-type": wire.BYTES}
    answer = httpx.post(f"{server.url}/v1/embed?{query}", content=body, headers=headers)
    assert answer.status_code in (404, 422)
    assert text in answer.json()["error"]


def _lying_table() -> bytes:
    return arrow(pa.table({"price": pa.nulls(10**9)}))


@pytest.mark.parametrize(
    ("body", "status", "field", "text"),
    [
        (b"", 400, None, "no Arrow IPC stream"),
        (b"\xff" * 64, 400, None, "no Arrow IPC stream"),
        (GOOD, 400, None, "no Arrow IPC stream"),
        (arrow(pa.table({"user": [1]}))[:-100], 400, None, "cut off"),
        (arrow(pa.table({"user": [1] * 10_000}), compression="zstd"), 415, None, "compressed Arrow buffers"),
        (arrow(pa.table({"item": ["a"]}).combine_chunks(), compression="lz4"), 415, None, "compressed Arrow buffers"),
        (_lying_table(), 422, "rows", "has more than 4,096 rows"),
        (arrow(pa.table({"user": pa.array([], pa.int64())})), 422, "rows", "has no rows"),
        (arrow(pa.table({"price": [1.0, float("nan")]})), 422, "rows.1.price", "NaN or infinite"),
        (arrow(pa.table({"price": [float("-inf")]})), 422, "rows.0.price", "NaN or infinite"),
        (arrow(pa.table({"tags": [[1.0, float("inf")]]})), 422, "rows.tags", "NaN or infinite"),
        (arrow(pa.table({"tags": [[1], [1] * 5000]})), 422, "rows.1.tags", "has 5,000 entries"),
        (arrow(pa.table({"user": [{"a": 1}]})), 422, "user", "a column of type struct"),
        (arrow(pa.table({"tags": [[[1]]]})), 422, "tags", "a column of type list"),
        (arrow(pa.table([pa.array([1]), pa.array([1])], ["user", "user"])), 422, "user", "there twice"),
        (
            arrow(pa.table({"item": pa.array(["x" * 70_000] * 2000).dictionary_encode()})),
            422,
            "item",
            "has a string of 70,000 bytes",
        ),
    ],
)
def test_arrow_streams_that_lie(server: ServerProcess, body: bytes, status: int, field: str | None, text: str) -> None:
    answer = httpx.post(f"{server.url}/v1/score", content=body, headers={"content-type": wire.ARROW})
    said = answer.json()
    assert (answer.status_code, said.get("field")) == (status, field), said
    assert text in said["error"]
    is_fine(server)


def test_damaged_arrow_streams_have_an_answer(server: ServerProcess) -> None:
    good = arrow(pa.table({name: [value] * 3 for name, value in ROW.items()}))
    draw = np.random.default_rng(7)
    seen = set()
    with httpx.Client(headers={"content-type": wire.ARROW}) as client:
        for _ in range(300):
            body = bytearray(good)
            for place in draw.integers(0, len(good), draw.integers(1, 5)):
                body[place] = draw.integers(0, 256)
            seen.add(client.post(f"{server.url}/v1/score", content=bytes(body)).status_code)
    assert seen <= {200, 400, 415, 422}
    assert 400 in seen
    is_fine(server)


def test_compressed_bodies_are_refused(server: ServerProcess) -> None:
    bomb = gzip.compress(b" " * (50 << 20))
    for encoding in ("gzip", "deflate", "br", "gzip, gzip"):
        answer = httpx.post(f"{server.url}/v1/score", content=bomb, headers={"content-encoding": encoding})
        assert answer.status_code == 415
        assert "compressed" in answer.json()["error"]


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"Host:",
        b"Host: a b",
        b"Host: a/../b",
        b"Host: a@b",
        b"Host: a:b",
        b"Host: a:999999",
        b"Host: [::1",
        b"Host: \xff",
    ],
)
def test_a_malformed_host_is_refused(server: ServerProcess, host: bytes) -> None:
    assert raw(server, post(GOOD, host=host))[0] == 400
    assert raw(server, b"GET /v1/model HTTP/1.1\r\n" + host + (b"\r\n" if host else b"") + b"\r\n")[0] == 400


@pytest.mark.parametrize("host", [b"Host: here:80", b"Host: [::1]:8080", b"Host: 127.0.0.1", b"Host: a-b.c_d.example"])
def test_a_host_that_is_one(server: ServerProcess, host: bytes) -> None:
    assert raw(server, post(GOOD, host=host))[0] == 200


def test_heads_that_no_client_sends(server: ServerProcess) -> None:
    assert raw(server, post(GOOD, b"Host: there"))[0] == 400  # two hosts
    assert raw(server, post(GOOD, b"Content-Type: application/json", b"Content-Type: text/plain"))[0] == 400
    assert raw(server, post(GOOD, b"Content-Length: 3"))[0] == 400
    assert raw(server, b"nonsense\r\n\r\n")[0] in (0, 400)
    assert raw(server, b"GET / HTTP/1.1\r\nHost: here\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n")[0] in (0, 400, 431)
    many = b"".join(b"h%d: 1\r\n" % number for number in range(10_000))
    assert raw(server, b"GET / HTTP/1.1\r\nHost: here\r\n" + many + b"\r\n")[0] in (0, 400, 431)
    assert raw(server, post(GOOD, b"Embtables-Request-Id: " + b"a" * 200))[0] == 422
    is_fine(server)


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/docs/../admin/pause", "/v1/score/", "/\x00"],
)
def test_paths_lead_nowhere(server: ServerProcess, path: str) -> None:
    status, text = raw(server, b"GET " + path.encode() + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    assert status in (307, 400, 404)
    assert b"root:" not in text


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_other_methods(server: ServerProcess, method: str) -> None:
    answer = httpx.request(method, f"{server.url}/v1/score")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_types_that_are_not_read_or_written(server: ServerProcess) -> None:
    for kind in ("text/xml", "application/x-python-pickle", "multipart/form-data; boundary=x"):
        answer = httpx.post(f"{server.url}/v1/score", content=GOOD, headers={"content-type": kind})
        assert answer.status_code == 415
    answer = httpx.post(f"{server.url}/v1/score", content=GOOD, headers={"accept": "image/png"})
    assert answer.status_code == 406
